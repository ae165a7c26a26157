"""Writes the split file and says which images follow from it."""

import hashlib
import json
import logging
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from input_pipeline.io import atomic
from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig import layout
from input_pipeline.ov_swig.layout import SPLITS_FILE, jsons_folder
from input_pipeline.schema import GROUPS

VERSION = 1
# Groups whose dev images choose checkpoints and settings; unseen ones never.
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
    seed: of a draw.
    images: counts and hashes of the images that follow, see `image_sets`.
    files: sha256 of the files it was made from, by name.

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
  """Writes whole or not at all; `InputError` where it cannot."""
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
  """Which images may do what: number and hash of the names of each set.

  Args:
    verbs_of: split -> image name -> verb name, as the records have it.
    lists: verb names by group.

  Returns:
    'train' (what training sees), 'dev_selection' (dev images that may choose
    a model), 'dev' and 'test' (all that are reported), each with 'images',
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
  """sha256 of three lists of verb names, whatever their order."""
  text = json.dumps([sorted(lists[group]) for group in GROUPS])
  return hashlib.sha256(text.encode()).hexdigest()


def names_digest(names: Iterable[str]) -> str:
  """sha256 over sorted names, one a line."""
  lines = "".join(f"{name}\n" for name in sorted(names))
  return hashlib.sha256(lines.encode()).hexdigest()


def _set(names: Iterable[str]) -> dict[str, Any]:
  names = list(names)
  return {"images": len(names), "sha256": names_digest(names)}
