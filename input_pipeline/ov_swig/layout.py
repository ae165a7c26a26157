"""The files of a folder: SWiG's own, the authors', or your own.

Two sources have the same folders and differ in their record files:

  SWiG, or your own data   train.json  dev.json  test.json
  the authors' Ov-SWiG     train_L10_with_obj_cap_refined.json
                           dev.json   dev_L10_unseen_...  dev_L20_rare_...
                           test.json  test_L10_unseen_... test_L20_rare_...

The latter are the files of the MIPD release (its README and datasets/swig.py
name them). If any of them exists, they are the dataset, and a `train.json`
beside them is ignored: it holds training images of unseen verbs.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from input_pipeline.io import json_files
from input_pipeline.io.errors import InputError

SPLITS = ("train", "dev", "test")
IMAGES_FOLDER = "images_512"
JSONS_FOLDER = "SWiG_jsons"
SPACE_FILE = "imsitu_space.json"
VERB_FILE = "verb_indices.txt"
ROLE_FILE = "role_indices.txt"
NOUN_FILE = "train_classes.csv"
SPLITS_FILE = "ov_splits.json"
OPTIONAL = (VERB_FILE, ROLE_FILE, NOUN_FILE, SPLITS_FILE)

SWIG, AUTHORS = "SWiG", "authors"
# The release's names end in "_with_obj_cap_refined"; the numbers may vary.
_AUTHORS_TRAIN = "train_L[0-9]*.json"
_AUTHORS_GROUP = "{split}_L[0-9]*_{group}*.json"
LISTED_GROUPS = ("unseen", "rare")


@dataclasses.dataclass(frozen=True)
class Layout:
  """The files of a folder.

  Attributes:
    folder: DIR.
    source: `SWIG` (also your own data) or `AUTHORS`.
    records: files of each split; an image may be in several of one split.
    listed: group -> files that list its verbs; {} unless `AUTHORS`.
  """

  folder: pathlib.Path
  source: str
  records: Mapping[str, tuple[pathlib.Path, ...]]
  listed: Mapping[str, tuple[pathlib.Path, ...]]

  @property
  def jsons(self) -> pathlib.Path:
    return self.folder / JSONS_FOLDER

  @property
  def images(self) -> pathlib.Path:
    return self.folder / IMAGES_FOLDER

  @property
  def record_files(self) -> tuple[pathlib.Path, ...]:
    """Every file of records, once, in the order of the splits."""
    return tuple(path for split in SPLITS for path in self.records[split])

  @property
  def files(self) -> tuple[pathlib.Path, ...]:
    """All files of the dataset except the images; some may be absent."""
    names = (SPACE_FILE, *(path.name for path in self.record_files), *OPTIONAL)
    return tuple(self.jsons / name for name in names)

  def image_sizes(self) -> dict[str, int]:
    """Bytes of every file in the image folder, by name."""
    with os.scandir(self.images) as entries:
      return {e.name: e.stat().st_size for e in entries if _is_file(e)}

  def checksums(self) -> dict[str, str]:
    """sha256 of each existing file of `files`, by name."""
    return {p.name: _sha256(p) for p in self.files if p.exists()}

  def fingerprint(self) -> str:
    """sha256 over all `files` and the images' names and sizes."""
    digest = hashlib.sha256()
    for path in self.files:
      content = path.read_bytes() if path.exists() else b""
      digest.update(f"{path.name} {len(content)}\n".encode())
      digest.update(content)
    sizes = sorted(self.image_sizes().items())
    digest.update(json.dumps(sizes).encode())
    return digest.hexdigest()


def find(folder: str | pathlib.Path, *, images: bool = True) -> Layout:
  """The layout of a folder.

  Args:
    folder: DIR with images_512 and SWiG_jsons.
    images: whether images_512 must exist.

  Raises:
    InputError: parts are missing (all are named), or one of the authors' file
      names fits two files.
  """
  folder = pathlib.Path(folder)
  jsons = folder / JSONS_FOLDER
  missing = []
  if images and not (folder / IMAGES_FOLDER).is_dir():
    missing.append(f"{IMAGES_FOLDER}/")
  patterns, listed = _patterns(jsons)
  paths = {pattern: _match(jsons, pattern) for pattern in _all(patterns)}
  missing += [f"{JSONS_FOLDER}/{p}" for p, path in paths.items() if not path]
  if not (jsons / SPACE_FILE).is_file():
    missing.append(f"{JSONS_FOLDER}/{SPACE_FILE}")
  if missing:
    raise _incomplete(folder, missing, authors=bool(listed))
  return Layout(
    folder=folder,
    source=AUTHORS if listed else SWIG,
    records={s: tuple(paths[p] for p in ps) for s, ps in patterns.items()},
    listed={g: tuple(paths[p] for p in ps) for g, ps in listed.items()},
  )


def jsons_folder(folder: str | pathlib.Path) -> pathlib.Path:
  """DIR/SWiG_jsons if it exists, else DIR itself."""
  folder = pathlib.Path(folder)
  inner = folder / JSONS_FOLDER
  return inner if inner.is_dir() else folder


def training_file(jsons: pathlib.Path) -> pathlib.Path | None:
  """The file of training records in a folder of JSONs, if it exists."""
  patterns, _ = _patterns(jsons)
  return _match(jsons, patterns["train"][0])


def read_json(path: pathlib.Path) -> Any:
  """Parses a JSON file; `InputError` names file, line and column."""
  _check_there(path)
  return json_files.read(path)


def read_lines(path: pathlib.Path) -> tuple[str, ...]:
  """The non-empty lines of a text file; errors as in `read_json`."""
  _check_there(path)
  lines = (line.strip() for line in json_files.read_text(path).splitlines())
  return tuple(line for line in lines if line)


def _is_file(entry: os.DirEntry) -> bool:
  try:
    return entry.is_file()
  except OSError:  # a link to itself
    return False


def _check_there(path: pathlib.Path) -> None:
  if not path.exists():
    raise InputError(
      f"{path} is missing",
      "put the file there; docs/own_data.md shows the folder's layout",
    )


def _patterns(
  jsons: pathlib.Path,
) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
  """Names of the record files by split, and by group if they list it."""
  groups = {
    group: tuple(
      _AUTHORS_GROUP.format(split=split, group=group) for split in SPLITS[1:]
    )
    for group in LISTED_GROUPS
  }
  names = (_AUTHORS_TRAIN, *_all(groups))
  if not any(_matches(jsons, name) for name in names):
    return {split: (f"{split}.json",) for split in SPLITS}, {}
  splits = {"train": (_AUTHORS_TRAIN,)}
  for number, split in enumerate(SPLITS[1:]):
    listed = (groups[group][number] for group in LISTED_GROUPS)
    splits[split] = (f"{split}.json", *listed)
  return splits, groups


def _all(patterns: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
  return tuple(name for names in patterns.values() for name in names)


def _matches(jsons: pathlib.Path, pattern: str) -> list[pathlib.Path]:
  return sorted(path for path in jsons.glob(pattern) if path.is_file())


def _match(jsons: pathlib.Path, pattern: str) -> pathlib.Path | None:
  matches = _matches(jsons, pattern)
  if len(matches) > 1:
    raise InputError(
      f"{jsons} has {len(matches)} files for {pattern}: "
      + ", ".join(path.name for path in matches),
      "keep the one that belongs to this dataset",
    )
  return matches[0] if matches else None


def _incomplete(
  folder: pathlib.Path, missing: list[str], *, authors: bool
) -> InputError:
  what = "Ov-SWiG folder with the authors' files" if authors else "SWiG folder"
  remedy = (
    "get images_512.zip and SWiG_jsons from the SWiG project page, "
    f"https://github.com/allenai/swig, and put them at "
    f"{folder / IMAGES_FOLDER} and {folder / JSONS_FOLDER}; to try without "
    "them: python -m input_pipeline.small_world --out=DIR"
  )
  if authors:
    remedy = (
      "get the rest of the Ov-SWiG files (https://github.com/caicch/Ov-GSR "
      "links them), or take the authors' files (train_L..., ..._unseen_..., "
      "..._rare_...) away to use train.json; images and imsitu_space.json: "
      "https://github.com/allenai/swig"
    )
  return InputError(
    f"{folder} is not a complete {what}: it lacks {', '.join(missing)}", remedy
  )


def _sha256(path: pathlib.Path) -> str:
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()
