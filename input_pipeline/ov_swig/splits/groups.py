"""Which verbs are seen, rare and unseen: `ov_splits.json`.

The file is data, not a by-product: it says which verbs training may see and
which dev images may choose a model, so it is read where it exists and made,
hashed and written once where not.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from input_pipeline.io import json_files
from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig.layout import SPLITS_FILE, jsons_folder, read_json
from input_pipeline.ov_swig.splits import split_file, verb_draw
from input_pipeline.ov_swig.splits.verb_draw import Lists, draw
from input_pipeline.ov_swig.vocabulary import Vocabulary
from input_pipeline.schema import GROUPS

_FORM = {group: [str] for group in GROUPS}
_REMEDY = f"correct the file, or delete it to have {SPLITS_FILE} drawn anew"


@dataclasses.dataclass(frozen=True)
class VerbGroups:
  """The group of every verb.

  Attributes:
    groups: int32 [V], an index into `schema.GROUPS`.
    sha256: hash of the three lists of verb names, in hexadecimal.
    method: how the verbs were chosen; '' if the file does not say.
    images: what the file says of the images that follow, see
      `split_file.image_sets`; {} if nothing.
  """

  groups: np.ndarray
  sha256: str
  method: str = ""
  images: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def verbs_in(self, group: str) -> np.ndarray:
    """Ids of the verbs in a group, ascending: int64 [n]."""
    return np.flatnonzero(self.groups == GROUPS.index(group))

  @functools.cached_property
  def counts(self) -> dict[str, int]:
    """Number of verbs by group name."""
    return {name: len(self.verbs_in(name)) for name in GROUPS}

  def lists(self, vocabulary: Vocabulary) -> Lists:
    """Verb names by group, sorted."""
    return {
      group: sorted(vocabulary.verbs[verb] for verb in self.verbs_in(group))
      for group in GROUPS
    }

  def may_train(self, verbs: np.ndarray) -> np.ndarray:
    """Which images, by verb id [n], may stand in training: bool [n]."""
    return self.groups[verbs] != GROUPS.index("unseen")

  def may_select(self, verbs: np.ndarray) -> np.ndarray:
    """Which dev images, by verb id [n], may choose a model: bool [n]."""
    selecting = [GROUPS.index(group) for group in split_file.SELECTING]
    return np.isin(self.groups[verbs], selecting)


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
  found = read(folder, vocabulary)
  if found is not None:
    return found
  lists = default_draw(
    vocabulary,
    train_counts,
    num_rare=num_rare,
    num_unseen=num_unseen,
    seed=seed,
  )
  split_file.write(folder, lists, method=verb_draw.RANDOM, seed=seed)
  return of_lists(lists, vocabulary, method=verb_draw.RANDOM)


def default_draw(
  vocabulary: Vocabulary,
  train_counts: Sequence[int] | np.ndarray,
  *,
  num_rare: int | None = None,
  num_unseen: int | None = None,
  seed: int = 0,
  method: str = verb_draw.RANDOM,
) -> Lists:
  """`draw` with a sixth of the verbs in a group whose number is None."""
  sixth = max(1, len(vocabulary.verbs) // 6)
  return draw(
    vocabulary,
    train_counts,
    num_rare=sixth if num_rare is None else num_rare,
    num_unseen=sixth if num_unseen is None else num_unseen,
    seed=seed,
    method=method,
  )


def read(
  folder: str | pathlib.Path, vocabulary: Vocabulary
) -> VerbGroups | None:
  """The groups of a folder's split file; None where there is no file.

  Raises:
    InputError: as `load_groups`.
  """
  path = jsons_folder(folder) / SPLITS_FILE
  if not path.exists():
    return None
  content = read_json(path)
  _check_form(path, content)
  lists = {group: content[group] for group in GROUPS}
  json_files.check(content, _FORM, where=str(path), remedy=_REMEDY)
  claimed = content.get("sha256")
  if claimed is not None and claimed != split_file.digest(lists):
    raise InputError(
      f"{path}: the lists do not fit their sha256 {str(claimed)[:12]}",
      "restore the file, or take 'sha256' out if you edited it on purpose",
    )
  _check_lists(path, lists, vocabulary)
  images = content.get("images")
  return of_lists(
    lists,
    vocabulary,
    method=str(content.get("method", "")),
    images=images if isinstance(images, dict) else {},
  )


def of_lists(
  lists: Mapping[str, list[str]],
  vocabulary: Vocabulary,
  *,
  method: str = "",
  images: Mapping[str, Any] | None = None,
) -> VerbGroups:
  """The groups that three lists of all verbs make."""
  groups = np.zeros(len(vocabulary.verbs), np.int32)
  for number, group in enumerate(GROUPS):
    for verb in lists[group]:
      groups[vocabulary.verb_index[verb]] = number
  groups.setflags(write=False)
  return VerbGroups(groups, split_file.digest(lists), method, images or {})


def _check_form(path: pathlib.Path, content: Any) -> None:
  good = (
    isinstance(content, dict)
    and content.get("version") == split_file.VERSION
    and all(isinstance(content.get(group), list) for group in GROUPS)
  )
  if not good:
    raise InputError(
      f"{path} is not {{'version': {split_file.VERSION}, 'seen': [verbs], "
      "'rare': [verbs], 'unseen': [verbs]}",
      _REMEDY,
    )


def _check_lists(
  path: pathlib.Path, lists: Mapping[str, list[str]], vocabulary: Vocabulary
) -> None:
  """Every verb of the vocabulary exactly once over the three lists."""
  home: dict[str, str] = {}
  for group in GROUPS:
    for verb in lists[group]:
      if not isinstance(verb, str) or verb not in vocabulary.verb_index:
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
