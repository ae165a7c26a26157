"""Reads annotation files of HICO-DET in any public form.

  form   files                                     boxes, as published
  qpic   trainval_hico.json, test_hico.json        from 0, but from 1 in test
         (PPDM, QPIC, GEN-VLKT, HOICLIP)
  upt    instances_train2015.json,                 from 1
         instances_test2015.json (UPT, ADA-CM)
  list   [{"file_name", "width", "height",         from 1, or --box-base=0
         "boxes_h", "boxes_o", "hoi"}, ...]

HICO-DET's own file counts pixels from 1; `trainval_hico.json` is shifted and
`test_hico.json` is not. Boxes read here always count from 0. For a file of the
first form under another name the base must be given; other files are taken to
count from 1 unless --box-base=0 says otherwise. A shift of one pixel costs
small boxes their overlap.
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
  """Raises the first error; pass another function to collect all."""
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
    images: folder of its images; None: the file's folder, for names only.
    base: number of the first pixel in the file, 0 or 1; None: as published.
    report: called with an error for every unusable image, which is left out.

  Returns:
    One entry per image in the file's order, including those without labels.

  Raises:
    InputError: the file has none of the forms, its base is unknown, or it has
      an image twice or none at all; what `report` raises.
  """
  path = pathlib.Path(path)
  content = read_json(path)
  form = form_of(content, path)
  base = _base(path, form, base)
  images = images if images is not None else path.parent
  if form == QPIC:
    labels = qpic.read(content, path, images, words, base, report)
  elif form == UPT:
    labels = upt.read_instances(content, path, images, words, base, report)
  else:
    labels = upt.read_list(content, path, images, words, base, report)
  _check_names(labels, path)
  boxes = corners(labels)
  if len(boxes) and boxes.max() + base <= 1:
    raise InputError(
      f"{path}: all {len(boxes)} boxes lie within 0 and 1, as shares of the "
      "image do",
      "give pixels of the original image",
    )
  return labels


def form_of(content: Any, path: pathlib.Path) -> str:
  """The form of parsed JSON; InputError if it has none of them."""
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


def check_inside(labels: ImageLabels, size: tuple[int, int]) -> None:
  """Raises RecordError if a box leaves the image of (height, width)."""
  for what, boxes in (
    ("the human box", labels.human_boxes),
    ("the object box", labels.object_boxes),
  ):
    parsing.check_inside(labels.place, boxes, what, size)


def corners(images: list[ImageLabels]) -> np.ndarray:
  """All boxes of a file, float64 [n, 4]."""
  boxes = [b for x in images for b in (x.human_boxes, x.object_boxes)]
  return np.concatenate([np.zeros((0, 4)), *boxes])


def is_published(path: str | pathlib.Path) -> bool:
  """Whether a file's name says whether its boxes count from 0 or 1."""
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


def _check_names(labels: list[ImageLabels], path: pathlib.Path) -> None:
  names: set[str] = set()
  for item in labels:
    if item.name in names:
      raise InputError(
        f"{path} has the image {item.name} twice", "leave one of the entries"
      )
    names.add(item.name)
  if not labels:
    raise InputError(f"{path} has no image that can be used", _HELP)
