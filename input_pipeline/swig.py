"""Reads and checks a folder in the layout of SWiG.

See docs/architecture.md for the layout. One record of a split's JSON:

  "img.jpg": {"verb", "height", "width", "bb": {role: [x1, y1, x2, y2]},
              "frames": [{role: noun id or ""}, x3]}

with boxes in pixels and [-1, -1, -1, -1] where a role is not grounded
(Pratt et al., Grounded Situation Recognition, ECCV 2020).
"""

import collections
import dataclasses
import functools
import hashlib
import json
import logging
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from input_pipeline import images, splits, swig_record, vocabulary
from input_pipeline.errors import InputError
from input_pipeline.schema import GROUPS
from input_pipeline.swig_record import Record

SPLITS = ("train", "dev", "test")
IMAGES_FOLDER = "images_512"
JSONS_FOLDER = "SWiG_jsons"
_REQUIRED = (
  vocabulary.SPACE_FILE,
  *(f"{split}.json" for split in SPLITS),
)
_OPTIONAL = (
  vocabulary.VERB_FILE,
  vocabulary.ROLE_FILE,
  vocabulary.NOUN_FILE,
  splits.SPLITS_FILE,
)
_SHOWN = 5


@dataclasses.dataclass(frozen=True)
class SwigFolder:
  """A folder that was read and checked.

  Attributes:
    folder: its path.
    vocabulary: verbs, roles, nouns, frames.
    groups: seen, rare and unseen verbs.
    splits: records of 'train', 'dev' and 'test' in the order of the JSON;
      no training record has an unseen verb.
    dropped: how many training records of unseen verbs were left out.
    fingerprint: see `fingerprint`.
  """

  folder: pathlib.Path
  vocabulary: vocabulary.Vocabulary
  groups: splits.VerbGroups
  splits: Mapping[str, list[Record]]
  dropped: int
  fingerprint: str

  @functools.cached_property
  def train_counts(self) -> np.ndarray:
    """Training images of each verb: int64 [V]."""
    verbs = [record.verb for record in self.splits["train"]]
    return np.bincount(verbs, minlength=len(self.vocabulary.verbs))

  def counts(self) -> dict[str, dict[str, int]]:
    """Number of images by split and group."""
    table = {}
    for split, records in self.splits.items():
      found = collections.Counter(record.group for record in records)
      table[split] = {name: found[i] for i, name in enumerate(GROUPS)}
    return table


def read_folder(
  folder: str | pathlib.Path,
  *,
  num_rare: int | None = None,
  num_unseen: int | None = None,
  seed: int = 0,
) -> SwigFolder:
  """Reads a folder; draws its verb groups where ov_splits.json is absent.

  Args:
    folder: DIR with images_512 and SWiG_jsons.
    num_rare, num_unseen, seed: of the draw, see `splits.load_groups`.

  Raises:
    InputError: anything missing, cut off or contradictory; the message names
      file, image and role.
  """
  folder = pathlib.Path(folder)
  check_layout(folder)
  words = vocabulary.load(folder)
  contents = {split: _read_split(folder, split, words) for split in SPLITS}
  _check_disjoint(folder, contents)
  counts = np.zeros(len(words.verbs), np.int64)
  for entry in contents["train"].values():
    counts[words.verb_index[entry["verb"]]] += 1
  groups = splits.load_groups(
    folder, words, counts, num_rare=num_rare, num_unseen=num_unseen, seed=seed
  )
  _check_images(folder, contents)
  unseen = {words.verbs[verb] for verb in groups.verbs_in("unseen")}
  train = contents["train"]
  kept = {k: v for k, v in train.items() if v["verb"] not in unseen}
  dropped = len(train) - len(kept)
  if dropped:
    logging.getLogger(__name__).info(
      "%s: left out %d training images of unseen verbs", folder, dropped
    )
  contents["train"] = kept
  return SwigFolder(
    folder=folder,
    vocabulary=words,
    groups=groups,
    splits={
      split: _records(folder, split, content, words, groups)
      for split, content in contents.items()
    },
    dropped=dropped,
    fingerprint=fingerprint(folder),
  )


def check_layout(folder: str | pathlib.Path) -> None:
  """Says in one message which pieces of a folder are missing."""
  folder = pathlib.Path(folder)
  missing = [] if (folder / IMAGES_FOLDER).is_dir() else [f"{IMAGES_FOLDER}/"]
  missing += [
    f"{JSONS_FOLDER}/{name}"
    for name in _REQUIRED
    if not (folder / JSONS_FOLDER / name).is_file()
  ]
  if not missing:
    return
  raise InputError(
    f"{folder} is no SWiG folder: it lacks {', '.join(missing)}",
    "get images_512.zip and SWiG_jsons from the SWiG project page, "
    f"https://github.com/allenai/swig, and put them at "
    f"{folder / IMAGES_FOLDER} and {folder / JSONS_FOLDER}; to try without "
    "them: python -m input_pipeline.small_world --out=DIR",
  )


def fingerprint(folder: str | pathlib.Path) -> str:
  """sha256 over the JSON and index files and the images' names and sizes."""
  folder = pathlib.Path(folder)
  check_layout(folder)
  digest = hashlib.sha256()
  for name in (*_REQUIRED, *_OPTIONAL):
    path = folder / JSONS_FOLDER / name
    content = path.read_bytes() if path.exists() else b""
    digest.update(f"{name} {len(content)}\n".encode())
    digest.update(content)
  sizes = sorted(_image_sizes(folder).items())
  digest.update(json.dumps(sizes).encode())
  return digest.hexdigest()


def verify_images(folder: SwigFolder, limit: int = _SHOWN) -> list[InputError]:
  """Checks every image's header and size; up to `limit` problems."""
  problems: list[InputError] = []
  for records in folder.splits.values():
    for record in records:
      try:
        images.check(
          record.path.read_bytes(), record.name, record.height, record.width
        )
      except InputError as error:
        problems.append(error)
      if len(problems) == limit:
        return problems
  return problems


def _image_sizes(folder: pathlib.Path) -> dict[str, int]:
  """Bytes of every file in the image folder, by name."""
  with os.scandir(folder / IMAGES_FOLDER) as entries:
    return {e.name: e.stat().st_size for e in entries if e.is_file()}


def _read_split(
  folder: pathlib.Path, split: str, words: vocabulary.Vocabulary
) -> dict[str, Any]:
  path = folder / JSONS_FOLDER / f"{split}.json"
  content = vocabulary.read_json(path)
  if not isinstance(content, dict):
    raise InputError(
      f"{path} holds a {type(content).__name__}, not an object by image name",
      "see docs/architecture.md for the form of a record",
    )
  for name, entry in content.items():
    verb = entry.get("verb") if isinstance(entry, dict) else None
    if verb not in words.verb_index:
      raise InputError(
        f"{path}: image {name} has the verb {verb!r}, which has no frame",
        f"add the verb to {vocabulary.SPACE_FILE}, or take the image out",
      )
  return content


def _check_disjoint(
  folder: pathlib.Path, contents: Mapping[str, Mapping[str, Any]]
) -> None:
  home: dict[str, str] = {}
  for split, content in contents.items():
    for name in content:
      if name in home:
        raise InputError(
          f"{folder / JSONS_FOLDER}: image {name} stands in {home[name]}.json "
          f"and in {split}.json",
          "leave each image in one split",
        )
      home[name] = split


def _check_images(
  folder: pathlib.Path, contents: Mapping[str, Mapping[str, Any]]
) -> None:
  there = _image_sizes(folder)
  for split, content in contents.items():
    missing = [name for name in content if name not in there]
    if missing:
      raise InputError(
        f"{folder / IMAGES_FOLDER} lacks {len(missing)} of {len(content)} "
        f"images of {split}.json: {', '.join(missing[:_SHOWN])}"
        f"{', ...' if len(missing) > _SHOWN else ''}",
        f"put them there, or take their records out of {split}.json",
      )


def _records(
  folder: pathlib.Path,
  split: str,
  content: Mapping[str, Any],
  words: vocabulary.Vocabulary,
  groups: splits.VerbGroups,
) -> list[Record]:
  json_path = folder / JSONS_FOLDER / f"{split}.json"
  return [
    swig_record.parse(
      entry,
      swig_record.Place(json_path, folder / IMAGES_FOLDER / name),
      words,
      groups.groups,
      boxes_required=split == "train",
    )
    for name, entry in content.items()
  ]
