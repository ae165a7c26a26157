"""Chooses rare and unseen verbs: by list, by frequency, or by a draw.

Unseen verbs are balanced over frames: each frame size (1 to 6 roles) gives a
number in proportion to its share of the verbs. A verb with a role that no
other verb could train is chosen only if no others are left. Rare verbs are
those of the rest with the fewest training images.
"""

import collections
import math
from collections.abc import Collection, Sequence

import numpy as np

from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig.vocabulary import Vocabulary
from input_pipeline.schema import GROUPS

RANDOM, FREQUENCY, LIST = "random", "frequency", "list"
METHODS = (RANDOM, FREQUENCY, LIST)
Lists = dict[str, list[str]]


def draw(
  vocabulary: Vocabulary,
  train_counts: Sequence[int] | np.ndarray,
  *,
  num_rare: int,
  num_unseen: int,
  seed: int,
  method: str = RANDOM,
) -> Lists:
  """Chooses verb names by group, each list sorted.

  Args:
    vocabulary: the verbs and their frames.
    train_counts: [V] training images of each verb.
    num_rare, num_unseen: how many verbs.
    seed: seed of `RANDOM`.
    method: `RANDOM` draws the unseen verbs; `FREQUENCY` takes those with the
      fewest training images (ties by name).

  Raises:
    InputError: no seen verb would be left.
  """
  total = len(vocabulary.verbs)
  if num_rare < 0 or num_unseen < 0 or num_rare + num_unseen >= total:
    raise InputError(
      f"cannot draw {num_rare} rare and {num_unseen} unseen verbs of {total}",
      "ask for fewer: at least one verb must be seen",
    )
  counts = dict(zip(vocabulary.verbs, map(int, train_counts), strict=True))
  fewest = sorted(counts, key=lambda verb: (counts[verb], verb))
  order = fewest if method == FREQUENCY else _shuffled(vocabulary, seed)
  unseen = _balanced(vocabulary, order, num_unseen)
  rest = [verb for verb in fewest if verb not in unseen]
  return {
    "seen": sorted(rest[num_rare:]),
    "rare": sorted(rest[:num_rare]),
    "unseen": sorted(unseen),
  }


def from_lists(
  vocabulary: Vocabulary, rare: Collection[str], unseen: Collection[str]
) -> Lists:
  """Groups from lists of verbs; verbs in neither list are seen.

  Raises:
    InputError: a name is not a verb, or is in both lists.
  """
  for group, names in (("rare", rare), ("unseen", unseen)):
    unknown = sorted(set(names) - set(vocabulary.verbs))
    if unknown:
      raise InputError(
        f"the list of {group} verbs has {len(unknown)} names that are not "
        f"verbs of the frames: {unknown[:5]}",
        "write them as in imsitu_space.json, one a line",
      )
  both = sorted(set(rare) & set(unseen))
  if both:
    raise InputError(
      f"{len(both)} verbs are in both lists: {both[:5]}",
      "keep each in one",
    )
  chosen = set(rare) | set(unseen)
  seen = [verb for verb in vocabulary.verbs if verb not in chosen]
  if not seen:
    raise InputError("the lists have all verbs", "leave one verb as seen")
  return {
    "seen": sorted(seen),
    "rare": sorted(set(rare)),
    "unseen": sorted(set(unseen)),
  }


def untrained_roles(vocabulary: Vocabulary, lists: Lists) -> dict[str, str]:
  """Roles that only unseen verbs have: role -> one such verb."""
  trained = {
    role
    for group in GROUPS
    if group != "unseen"
    for verb in lists[group]
    for role in _roles(vocabulary, verb)
  }
  return {
    role: verb
    for verb in lists["unseen"]
    for role in _roles(vocabulary, verb)
    if role not in trained
  }


def frame_sizes(
  vocabulary: Vocabulary, verbs: Collection[str]
) -> collections.Counter:
  """Number of verbs by the number of roles in their frame."""
  return collections.Counter(len(_roles(vocabulary, verb)) for verb in verbs)


def _roles(vocabulary: Vocabulary, verb: str) -> tuple[str, ...]:
  return vocabulary.frame_roles(vocabulary.verb_index[verb])


def _shuffled(vocabulary: Vocabulary, seed: int) -> list[str]:
  """Verbs in random order; sorted first, so their numbering is irrelevant."""
  if not 0 <= seed < 2**128:
    raise InputError(
      f"no draw with seed {seed}", "give a seed from 0 to 2**128 - 1"
    )
  names = np.array(sorted(vocabulary.verbs))
  keys = np.random.Philox(key=seed).random_raw(len(names))
  return names[np.argsort(keys, kind="stable")].tolist()


def _balanced(
  vocabulary: Vocabulary, order: Sequence[str], wanted: int
) -> set[str]:
  """Takes `wanted` verbs in order, balanced over frame sizes."""
  quota = _quotas(frame_sizes(vocabulary, order), wanted)
  homes = collections.Counter(
    role for verb in order for role in _roles(vocabulary, verb)
  )
  chosen: dict[str, None] = {}

  def take(keep_roles: bool, keep_quotas: bool) -> None:
    for verb in order:
      roles = _roles(vocabulary, verb)
      last = any(homes[role] == 1 for role in roles)
      full = quota[len(roles)] == 0
      if len(chosen) == wanted:
        return
      if verb in chosen or (keep_roles and last) or (keep_quotas and full):
        continue
      chosen[verb] = None
      quota[len(roles)] -= 1
      homes.subtract(roles)

  # The number matters most, then trained roles, then balanced sizes.
  take(keep_roles=True, keep_quotas=True)
  take(keep_roles=True, keep_quotas=False)
  take(keep_roles=False, keep_quotas=False)
  return set(chosen)


def _quotas(sizes: collections.Counter, wanted: int) -> collections.Counter:
  """Shares of `wanted` by largest remainder; ties to the smaller size."""
  total = sizes.total()
  exact = {size: wanted * count / total for size, count in sizes.items()}
  quota = collections.Counter({s: math.floor(x) for s, x in exact.items()})
  rest = sorted(exact, key=lambda size: (quota[size] - exact[size], size))
  for size in rest[: wanted - quota.total()]:
    quota[size] += 1
  return quota
