"""Which verbs are seen, rare and unseen: `ov_splits.json`.

The file is data, not a by-product: it says which verbs training may see, so
it is read where it exists and drawn, hashed and written once where not.
"""

import dataclasses
import functools
import hashlib
import json
import logging
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from input_pipeline import atomic
from input_pipeline.errors import InputError
from input_pipeline.schema import GROUPS
from input_pipeline.vocabulary import Vocabulary, jsons_folder, read_json

SPLITS_FILE = "ov_splits.json"
_VERSION = 1
_REMEDY = f"correct the file, or delete it to have {SPLITS_FILE} drawn anew"


@dataclasses.dataclass(frozen=True)
class VerbGroups:
  """The group of every verb.

  Attributes:
    groups: int32 [V], an index into `schema.GROUPS`.
    sha256: hash of the three lists of verb names, in hexadecimal.
  """

  groups: np.ndarray
  sha256: str

  def verbs_in(self, group: str) -> np.ndarray:
    """Ids of the verbs in a group, ascending: int64 [n]."""
    return np.flatnonzero(self.groups == GROUPS.index(group))

  @functools.cached_property
  def counts(self) -> dict[str, int]:
    """Number of verbs by group name."""
    return {name: len(self.verbs_in(name)) for name in GROUPS}


def load_groups(
  folder: str | pathlib.Path,
  vocabulary: Vocabulary,
  train_counts: Sequence[int] | np.ndarray,
  *,
  num_rare: int | None = None,
  num_unseen: int | None = None,
  seed: int = 0,
) -> VerbGroups:
  """Reads the verb groups, or draws and writes them where there are none.

  Args:
    folder: DIR, or DIR/SWiG_jsons.
    vocabulary: the verbs to divide.
    train_counts: [V] training images of each verb.
    num_rare: how many rare verbs to draw; None: a sixth of the verbs.
    num_unseen: how many unseen verbs to draw; None: a sixth of the verbs.
    seed: of the draw. The last three count only where no file exists.

  Raises:
    InputError: a verb in two lists, in none, or unknown; a hash that does
      not fit the lists; a file that cannot be written.
  """
  path = jsons_folder(folder) / SPLITS_FILE
  if path.exists():
    return _read(path, vocabulary)
  sixth = max(1, len(vocabulary.verbs) // 6)
  lists = draw(
    vocabulary,
    train_counts,
    num_rare=sixth if num_rare is None else num_rare,
    num_unseen=sixth if num_unseen is None else num_unseen,
    seed=seed,
  )
  digest = _digest(lists)
  content = {"version": _VERSION, "seed": seed, "sha256": digest, **lists}
  _write(path, json.dumps(content, indent=1))
  logging.getLogger(__name__).info(
    "drew %s with seed %d: %s verbs, sha256 %s",
    path,
    seed,
    ", ".join(f"{len(lists[g])} {g}" for g in GROUPS),
    digest[:12],
  )
  return _groups(lists, vocabulary)


def draw(
  vocabulary: Vocabulary,
  train_counts: Sequence[int] | np.ndarray,
  *,
  num_rare: int,
  num_unseen: int,
  seed: int,
) -> dict[str, list[str]]:
  """Draws verb names by group, each list sorted.

  Unseen verbs are drawn at random; rare ones are, of the rest, those with
  the fewest training images (ties by name).
  """
  total = len(vocabulary.verbs)
  if num_rare < 0 or num_unseen < 0 or num_rare + num_unseen >= total:
    raise InputError(
      f"cannot draw {num_rare} rare and {num_unseen} unseen verbs of {total}",
      "ask for fewer: at least one verb must be seen",
    )
  # Sorted first, so that the draw does not depend on the verbs' numbering.
  names = np.array(sorted(vocabulary.verbs))
  keys = np.random.Philox(key=seed).random_raw(total)
  shuffled = names[np.argsort(keys, kind="stable")].tolist()
  unseen, rest = shuffled[:num_unseen], shuffled[num_unseen:]
  counts = dict(zip(vocabulary.verbs, map(int, train_counts), strict=True))
  rest.sort(key=lambda verb: (counts[verb], verb))
  return {
    "seen": sorted(rest[num_rare:]),
    "rare": sorted(rest[:num_rare]),
    "unseen": sorted(unseen),
  }


def _read(path: pathlib.Path, vocabulary: Vocabulary) -> VerbGroups:
  content = read_json(path)
  _check_form(path, content)
  lists = {group: content[group] for group in GROUPS}
  claimed = content.get("sha256")
  if claimed is not None and claimed != _digest(lists):
    raise InputError(
      f"{path}: the lists do not fit their sha256 {claimed[:12]}",
      "restore the file, or take 'sha256' out if you edited it on purpose",
    )
  _check_lists(path, lists, vocabulary)
  return _groups(lists, vocabulary)


def _check_form(path: pathlib.Path, content: Any) -> None:
  good = (
    isinstance(content, dict)
    and content.get("version") == _VERSION
    and all(isinstance(content.get(group), list) for group in GROUPS)
  )
  if not good:
    raise InputError(
      f"{path} is not {{'version': {_VERSION}, 'seen': [verbs], 'rare': "
      "[verbs], 'unseen': [verbs]}",
      _REMEDY,
    )


def _check_lists(
  path: pathlib.Path, lists: Mapping[str, list[str]], vocabulary: Vocabulary
) -> None:
  """Every verb of the vocabulary exactly once over the three lists."""
  home: dict[str, str] = {}
  for group in GROUPS:
    for verb in lists[group]:
      if verb not in vocabulary.verb_index:
        raise InputError(
          f"{path}: {verb!r} of the list {group!r} is no verb of the frames",
          _REMEDY,
        )
      if verb in home:
        raise InputError(
          f"{path}: verb {verb!r} stands in the lists {home[verb]!r} and "
          f"{group!r}",
          "leave each verb in one list, once",
        )
      home[verb] = group
  homeless = [verb for verb in vocabulary.verbs if verb not in home]
  if homeless:
    raise InputError(
      f"{path}: {len(homeless)} verbs stand in no list: {homeless[:5]}",
      "put each verb in 'seen', 'rare' or 'unseen'",
    )


def _groups(
  lists: Mapping[str, list[str]], vocabulary: Vocabulary
) -> VerbGroups:
  groups = np.zeros(len(vocabulary.verbs), np.int32)
  for number, group in enumerate(GROUPS):
    for verb in lists[group]:
      groups[vocabulary.verb_index[verb]] = number
  groups.setflags(write=False)
  return VerbGroups(groups, _digest(lists))


def _digest(lists: Mapping[str, list[str]]) -> str:
  text = json.dumps([sorted(lists[group]) for group in GROUPS])
  return hashlib.sha256(text.encode()).hexdigest()


def _write(path: pathlib.Path, text: str) -> None:
  """Writes whole or not at all."""
  try:
    with atomic.replacing(path) as temporary:
      temporary.write_text(text, "utf-8")
  except OSError as error:
    raise InputError(
      f"cannot write {path}: {error.strerror}",
      "make the folder writable once, or put your own file there",
    ) from None
