"""`trainval_hico.json` and `test_hico.json` of PPDM, QPIC and GEN-VLKT.

  [{"file_name": "HICO_train2015_00000001.jpg", "img_id": 1,
    "annotations": [{"bbox": [x1, y1, x2, y2], "category_id": 1}, ...],
    "hoi_annotation": [{"subject_id": 0, "object_id": 1,
                        "category_id": 73, "hoi_category_id": 153}, ...]}]

`category_id` of a box is COCO's (1 to 90, a person is 1); that of an
interaction is its verb, from 1. Only some files have `hoi_category_id`, from 1.
None have image sizes.
"""

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from input_pipeline.hico_det.records import ImageLabels
from input_pipeline.hico_det.sources import parsing
from input_pipeline.hico_det.vocabulary import Vocabulary
from input_pipeline.io.findings import Place, RecordError

_HELP = "docs/hico_det.md shows the form"


def read(
  content: list[Any],
  path: pathlib.Path,
  images: pathlib.Path,
  words: Vocabulary,
  base: int,
  report: Callable[[RecordError], None],
) -> list[ImageLabels]:
  """Labels of every usable image; see `annotations.read`."""
  objects = {int(number): i for i, number in enumerate(words.category_ids)}

  def name(number: int, entry: Any) -> Any:
    given = entry.get("file_name") if isinstance(entry, dict) else None
    return f"(entry {number})" if given is None else given

  return parsing.labels_of(
    ((name(i, entry), entry) for i, entry in enumerate(content)),
    path,
    images,
    lambda entry, where: _image(entry, where, words, objects, base),
    report,
  )


def _image(
  entry: Any,
  where: Place,
  words: Vocabulary,
  objects: dict[int, int],
  base: int,
) -> ImageLabels:
  boxes, kinds = _boxes(entry, where, objects, base)
  labels = entry.get("hoi_annotation")
  if not isinstance(labels, list):
    raise RecordError(where, "form", "has no list 'hoi_annotation'", _HELP)
  rows = np.array(
    [_label(x, i, where, words, kinds) for i, x in enumerate(labels)], np.int32
  ).reshape(-1, 3)
  return ImageLabels(
    place=where,
    size=None,
    human_boxes=boxes[rows[:, 0]],
    object_boxes=boxes[rows[:, 1]],
    interactions=rows[:, 2],
    visible=np.ones(len(rows), bool),
    image_interactions=None,
  )


def _boxes(
  entry: Any, where: Place, objects: dict[int, int], base: int
) -> tuple[np.ndarray, list[int]]:
  """Boxes float64 [N, 4] of an image, and the object in each."""
  given = entry.get("annotations") if isinstance(entry, dict) else None
  if not isinstance(given, list) or not all(
    isinstance(box, dict) and "bbox" in box for box in given
  ):
    raise RecordError(
      where, "form", "has no list 'annotations' of objects with 'bbox'", _HELP
    )
  kinds = []
  for row, box in enumerate(given):
    category = box.get("category_id")
    if type(category) is not int or category not in objects:
      raise RecordError(
        where,
        "labels",
        f"box {row} has the category_id {category!r}, which does not exist",
        "give COCO's number of the object, 1 to 90; a person is 1",
      )
    kinds.append(objects[category])
  corners = parsing.boxes(where, [b["bbox"] for b in given], "box", base, None)
  return corners, kinds


def _label(
  label: Any, row: int, where: Place, words: Vocabulary, kinds: list[int]
) -> tuple[int, int, int]:
  """Box of the person, box of the object, interaction."""

  def wrong(problem: str, remedy: str = _HELP) -> RecordError:
    return RecordError(where, "labels", f"label {row} {problem}", remedy)

  if not isinstance(label, dict):
    raise wrong(f"is {label!r}")
  for key in ("subject_id", "object_id"):
    index = label.get(key)
    if type(index) is not int or not 0 <= index < len(kinds):
      raise wrong(
        f"has the {key} {index!r}, there are {len(kinds)} boxes",
        "give the position of a box in 'annotations', from 0",
      )
  subject, object_ = label["subject_id"], label["object_id"]
  if kinds[subject] != words.person:
    raise wrong(
      f"has the {words.objects[kinds[subject]]} of box {subject} as its "
      "subject",
      "the subject is a person",
    )
  verb = label.get("category_id")
  if type(verb) is not int or not 1 <= verb <= len(words.verbs):
    raise wrong(
      f"has the verb {verb!r}, which does not exist",
      f"give 'category_id' from 1 to {len(words.verbs)}",
    )
  interaction = int(words.table[verb - 1, kinds[object_]])
  name = f"{words.verbs[verb - 1]} {words.objects[kinds[object_]]}"
  if interaction < 0:
    raise wrong(f"is {name!r}, which is no interaction", "mend verb or object")
  given = label.get("hoi_category_id", interaction + 1)
  if given != interaction + 1:
    raise wrong(
      f"has the hoi_category_id {given!r}, but {name!r} is {interaction + 1}",
      "mend one of the two",
    )
  return subject, object_, interaction
