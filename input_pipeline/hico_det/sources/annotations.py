"""Annotation files of HICO-DET in any public form, read into one.

  form   files                                     boxes, as published
  qpic   trainval_hico.json, test_hico.json        from 0, but from 1 in test
         (PPDM, QPIC, GEN-VLKT, HOICLIP)
  upt    instances_train2015.json,                 from 1
         instances_test2015.json (UPT, ADA-CM)
  list   [{"file_name", "width", "height",         from 1, or --box-base=0
         "boxes_h", "boxes_o", "hoi"}, ...]

HICO-DET's own file counts pixels from 1; `trainval_hico.json` is shifted and
`test_hico.json` is not. What is read here always counts from 0. A file of the
first form under another name does not tell, so its base has to be given; other
files are taken to count from 1 unless --box-base=0 says otherwise. A shift of
one pixel costs small boxes their overlap.
"""

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from input_pipeline.hico_det.records import ImageLabels
from input_pipeline.hico_det.sources import parsing, qpic, upt
from input_pipeline.hico_det.vocabulary import Vocabulary
from input_pipeline.io.errors import InputError
from input_pipeline.io.findings import RecordError
from input_pipeline.ov_swig.layout import read_json

QPIC, UPT, LIST = "qpic", "upt", "list"
_BASES = {
  "trainval_hico.json": 0,
  "test_hico.json": 1,
  "instances_train2015.json": 1,
  "instances_test2015.json": 1,
}
_HELP = "docs/hico_det.md shows the forms"


def stop(error: RecordError) -> None:
  """Raises the first error; give another function to collect them all."""
  raise error


def read(
  path: str | pathlib.Path,
  words: Vocabulary,
  *,
  images: pathlib.Path | None = None,
  base: int | None = None,
  report: Callable[[RecordError], None] = stop,
) -> list[ImageLabels]:
  """Reads a file of any of the forms.

  Args:
    path: the file.
    words: verbs, objects and interactions.
    images: folder of its images; None: that of the file, for names only.
    base: number of the first pixel in the file, 0 or 1; None: as published.
    report: told of every image that cannot be used; it is left out.

  Returns:
    One entry per image in the file's order, those without labels included.

  Raises:
    InputError: the file is of none of the forms, its base is not known, it
      has an image twice or none at all; what `report` raises.
  """
  path = pathlib.Path(path)
  content = read_json(path)
  form = form_of(content, path)
  base = _base(path, form, base)
  images = images if images is not None else path.parent
  if form == QPIC:
    found = qpic.read(content, path, images, words, base, report)
  elif form == UPT:
    found = upt.read_instances(content, path, images, words, base, report)
  else:
    found = upt.read_list(content, path, images, words, base, report)
  _check_names(found, path)
  boxes = corners(found)
  if len(boxes) and boxes.max() + base <= 1:
    raise InputError(
      f"{path}: all {len(boxes)} boxes lie within 0 and 1, as shares of the "
      "image do",
      "give pixels of the original image",
    )
  return found


def form_of(content: Any, path: pathlib.Path) -> str:
  """Which form parsed JSON has; `InputError` if none."""
  if isinstance(content, dict) and {"annotation", "filenames"} <= set(content):
    return UPT
  if isinstance(content, list) and content and isinstance(content[0], dict):
    if "hoi_annotation" in content[0]:
      return QPIC
    if "boxes_h" in content[0]:
      return LIST
  first = content[0] if isinstance(content, list) and content else content
  what = type(content).__name__
  what += (
    " without entries" if isinstance(content, list) and not content else ""
  )
  raise InputError(
    f"{path} holds a {what}, which is none of the forms of HICO-DET"
    f"{parsing.looks_like(first)}",
    _HELP,
  )


def check_inside(found: ImageLabels, size: tuple[int, int]) -> None:
  """Raises `RecordError` if a box leaves the image of (height, width)."""
  for what, boxes in (
    ("the human box", found.human_boxes),
    ("the object box", found.object_boxes),
  ):
    parsing.check_inside(found.place, boxes, what, size)


def corners(images: list[ImageLabels]) -> np.ndarray:
  """All boxes of a file, float64 [n, 4]."""
  found = [b for x in images for b in (x.human_boxes, x.object_boxes)]
  return np.concatenate([np.zeros((0, 4)), *found])


def is_published(path: str | pathlib.Path) -> bool:
  """Whether a file's name tells what its boxes count from."""
  return pathlib.Path(path).name in _BASES


def _base(path: pathlib.Path, form: str, base: int | None) -> int:
  if base is not None:
    return base
  if form != QPIC:
    return 1
  if path.name not in _BASES:
    raise InputError(
      f"{path} does not tell whether its boxes count pixels from 0 (as "
      "trainval_hico.json) or from 1 (as test_hico.json and instances_*.json)",
      "say which by --box-base=0 or --box-base=1, or keep the published name",
    )
  return _BASES[path.name]


def _check_names(found: list[ImageLabels], path: pathlib.Path) -> None:
  names: set[str] = set()
  for item in found:
    if item.name in names:
      raise InputError(
        f"{path} has the image {item.name} twice", "leave one of the entries"
      )
    names.add(item.name)
  if not found:
    raise InputError(f"{path} has no image that can be used", _HELP)
