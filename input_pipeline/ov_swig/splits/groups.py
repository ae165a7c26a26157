"""The split file `ov_splits.json`: which verbs are seen, rare and unseen.

It decides which verbs training may see and which dev images may select a
model. So an existing file is read, and a missing one is drawn, hashed and
written once.
"""

import dataclasses
import functools
import hashlib
import json
import logging
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from input_pipeline.io import atomic, json_files
from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig import layout
from input_pipeline.ov_swig.layout import SPLITS_FILE, jsons_folder, read_json
from input_pipeline.ov_swig.splits import verb_draw
from input_pipeline.ov_swig.splits.verb_draw import Lists, draw
from input_pipeline.ov_swig.vocabulary import Vocabulary
from input_pipeline.schema import GROUPS

VERSION = 1
# Groups whose dev images select checkpoints and settings; never unseen ones.
SELECTING = ("seen", "rare")


def write(
  folder: str | pathlib.Path,
  lists: Mapping[str, list[str]],
  *,
  method: str,
  seed: int | None = None,
  images: Mapping[str, Any] | None = None,
  files: Mapping[str, str] | None = None,
) -> pathlib.Path:
  """Writes the split file of a folder, whole or not at all.

  Args:
    folder: DIR, or DIR/SWiG_jsons.
    lists: verb names by group.
    method: how they were chosen.
    seed: seed of a draw.
    images: counts and hashes of the resulting sets, see `image_sets`.
    files: sha256 of the source files, by name.

  Raises:
    InputError: the file cannot be written.
  """
  path = jsons_folder(folder) / SPLITS_FILE
  content = {"version": VERSION, "method": method}
  content |= {} if seed is None else {"seed": seed}
  content |= {"sha256": digest(lists)}
  content |= {"files": dict(files)} if files else {}
  content |= {"images": dict(images)} if images else {}
  content |= {group: sorted(lists[group]) for group in GROUPS}
  write_text(path, json.dumps(content, indent=1) + "\n")
  logging.getLogger(__name__).info(
    "wrote %s (%s): %s verbs, sha256 %s",
    path,
    method,
    ", ".join(f"{len(lists[group])} {group}" for group in GROUPS),
    content["sha256"][:12],
  )
  return path


def write_text(path: pathlib.Path, text: str) -> None:
  """Writes a file whole or not at all; raises InputError if it cannot."""
  try:
    with atomic.replacing(path) as temporary:
      temporary.write_text(text, "utf-8")
  except OSError as error:
    raise InputError(
      f"cannot write {path}: {error.strerror}",
      "make the folder writable once, or put your own file there",
    ) from None


def image_sets(
  verbs_of: Mapping[str, Mapping[str, str]], lists: Mapping[str, list[str]]
) -> dict[str, dict[str, Any]]:
  """The images that may train, select and be reported: number and hash.

  Args:
    verbs_of: split -> image name -> verb name, from the records.
    lists: verb names by group.

  Returns:
    'train' (what training sees), 'dev_selection' (dev images that may select
    a model), 'dev' and 'test' (all reported images), each with 'images',
    their number, and 'sha256' over their sorted names, one a line.
  """
  unseen = set(lists["unseen"])
  selecting = {verb for group in SELECTING for verb in lists[group]}
  train, dev, test = (verbs_of[split] for split in layout.SPLITS)
  return {
    "train": _set(name for name, verb in train.items() if verb not in unseen),
    "dev_selection": _set(n for n, verb in dev.items() if verb in selecting),
    "dev": _set(dev),
    "test": _set(test),
  }


def digest(lists: Mapping[str, list[str]]) -> str:
  """sha256 of three lists of verb names, independent of their order."""
  text = json.dumps([sorted(lists[group]) for group in GROUPS])
  return hashlib.sha256(text.encode()).hexdigest()


def names_digest(names: Iterable[str]) -> str:
  """sha256 over sorted names, one a line."""
  lines = "".join(f"{name}\n" for name in sorted(names))
  return hashlib.sha256(lines.encode()).hexdigest()


def _set(names: Iterable[str]) -> dict[str, Any]:
  names = list(names)
  return {"images": len(names), "sha256": names_digest(names)}


_FORM = {group: [str] for group in GROUPS}
_REMEDY = f"correct the file, or delete it to have {SPLITS_FILE} drawn again"


@dataclasses.dataclass(frozen=True)
class VerbGroups:
  """The group of every verb.

  Attributes:
    groups: int32 [V], an index into `schema.GROUPS`.
    sha256: hash of the three lists of verb names, in hexadecimal.
    method: how the verbs were chosen; '' if the file does not say.
    images: the file's counts and hashes of images, see `image_sets`; {} if
      it has none.
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
    """Which images, by verb id [n], may be used in training: bool [n]."""
    return self.groups[verbs] != GROUPS.index("unseen")

  def may_select(self, verbs: np.ndarray) -> np.ndarray:
    """Which dev images, by verb id [n], may select a model: bool [n]."""
    selecting = [GROUPS.index(group) for group in SELECTING]
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
  """Reads the verb groups, or draws and writes them if there are none.

  Args:
    folder: DIR, or DIR/SWiG_jsons.
    vocabulary: the verbs to divide.
    train_counts: [V] training images of each verb.
    num_rare: how many rare verbs to draw; None: a sixth of the verbs.
    num_unseen: how many unseen verbs to draw; None: a sixth of the verbs.
    seed: seed of the draw. The last three matter only if no file exists.

  Raises:
    InputError: a verb in two lists, in none, or unknown; a hash that does
      not fit the lists; a file that cannot be written.
  """
  groups = read(folder, vocabulary)
  if groups is not None:
    return groups
  lists = default_draw(
    vocabulary,
    train_counts,
    num_rare=num_rare,
    num_unseen=num_unseen,
    seed=seed,
  )
  write(folder, lists, method=verb_draw.RANDOM, seed=seed)
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
  """`draw`; a group whose number is None gets a sixth of the verbs."""
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
  """The groups of a folder's split file; None if there is no file.

  Raises:
    InputError: as in `load_groups`.
  """
  path = jsons_folder(folder) / SPLITS_FILE
  if not path.exists():
    return None
  content = read_json(path)
  _check_form(path, content)
  lists = {group: content[group] for group in GROUPS}
  json_files.check(content, _FORM, where=str(path), remedy=_REMEDY)
  claimed = content.get("sha256")
  if claimed is not None and claimed != digest(lists):
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
  """The groups given by three lists that together have all verbs."""
  groups = np.zeros(len(vocabulary.verbs), np.int32)
  for number, group in enumerate(GROUPS):
    for verb in lists[group]:
      groups[vocabulary.verb_index[verb]] = number
  groups.setflags(write=False)
  return VerbGroups(groups, digest(lists), method, images or {})


def _check_form(path: pathlib.Path, content: Any) -> None:
  good = (
    isinstance(content, dict)
    and content.get("version") == VERSION
    and all(isinstance(content.get(group), list) for group in GROUPS)
  )
  if not good:
    raise InputError(
      f"{path} is not {{'version': {VERSION}, 'seen': [verbs], "
      "'rare': [verbs], 'unseen': [verbs]}",
      _REMEDY,
    )


def _check_lists(
  path: pathlib.Path, lists: Mapping[str, list[str]], vocabulary: Vocabulary
) -> None:
  """Raises InputError unless each verb is once in the three lists."""
  home: dict[str, str] = {}
  for group in GROUPS:
    for verb in lists[group]:
      if not isinstance(verb, str) or verb not in vocabulary.verb_index:
        raise InputError(
          f"{path}: {verb!r} in the list {group!r} is not a verb of the frames",
          _REMEDY,
        )
      if verb in home:
        raise InputError(
          f"{path}: verb {verb!r} is in the lists {home[verb]!r} and {group!r}",
          "keep each verb in one list, once",
        )
      home[verb] = group
  homeless = [verb for verb in vocabulary.verbs if verb not in home]
  if homeless:
    raise InputError(
      f"{path}: {len(homeless)} verbs are in no list: {homeless[:5]}",
      "put each verb in 'seen', 'rare' or 'unseen'",
    )
