"""Checks for all annotation files: names, boxes, numbers."""

import pathlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from input_pipeline.hico_det.records import ImageLabels
from input_pipeline.io.findings import Place, RecordError

# Annotated boxes may leave the image by so many pixels; they are clipped.
SLACK = 2.0
# Forms of datasets and tools, by the keys of an object.
_FORMS = (
  ({"images", "annotations"}, "COCO's form of annotations"),
  ({"annotation", "filenames"}, "UPT's form of annotations"),
  ({"file_name", "hoi_annotation"}, "QPIC's form of annotations"),
  ({"boxes_h", "boxes_o"}, "a list of annotations"),
  ({"human_boxes", "object_boxes"}, "our form of predictions"),
  ({"hoi_prediction"}, "PPDM's and QPIC's form of predictions"),
  ({"hoi_scores"}, "QPIC's and GEN-VLKT's output before it is written"),
  ({"pairing"}, "UPT's and PViC's output"),
  ({"bbox", "category_id", "score"}, "COCO's form of detections, x y w h"),
  ({"box", "label", "score"}, "Hugging Face's pipeline, one object per box"),
  ({"bboxes", "labels", "scores"}, "MMDetection's output"),
  ({"pred_boxes", "pred_classes", "scores"}, "Detectron2's output"),
  ({"boxes", "labels", "scores"}, "an object detector's output"),
  ({"pred_logits", "pred_boxes"}, "DETR's output before post-processing"),
)
_SHOWN = 60  # characters of a value in a message
_BOX = "give four numbers in pixels, x1 y1 x2 y2, with x1 <= x2 and y1 <= y2"


def place(path: pathlib.Path, images: pathlib.Path, name: Any) -> Place:
  """The place of an image; RecordError if its name is not a file name."""
  if not isinstance(name, str) or not name or "/" in name or "\\" in name:
    raise RecordError(
      Place(path, images / str(name)),
      "form",
      f"'file_name' is {name!r}",
      "give the name of a file, without folders",
    )
  return Place(path, images / name)


def labels_of(
  entries: Iterable[tuple[Any, Any]],
  path: pathlib.Path,
  images: pathlib.Path,
  read: Callable[[Any, Place], ImageLabels],
  report: Callable[[RecordError], None],
) -> list[ImageLabels]:
  """Labels of every usable image of a file.

  Args:
    entries: name and entry of each image.
    path, images: the file and the image folder.
    read: parses an entry; RecordError says what is wrong with it.
    report: takes the faults.
  """
  labels = []
  for name, entry in entries:
    try:
      labels.append(read(entry, place(path, images, name)))
    except RecordError as error:
      report(error)
  return labels


def looks_like(content: Any) -> str:
  """ "; it looks like COCO's form ...", or nothing, for messages."""
  if isinstance(content, list) and content:
    content = content[0]
  keys = set(content) if isinstance(content, dict) else set()
  form = next((name for x, name in _FORMS if x <= keys), "")
  return f"; it looks like {form}" if form else ""


def boxes(
  where: Place, given: Any, what: str, base: int, size: tuple[int, int] | None
) -> np.ndarray:
  """Checked boxes, counted from 0: float64 [n, 4].

  Args:
    where: the image, for messages.
    given: the boxes as in the file.
    what: the field, for messages.
    base: number of the first pixel in the file.
    size: (height, width) in pixels; None: unknown.

  Raises:
    RecordError: not four finite numbers, a negative size, or outside.
  """
  array = numbers(where, given, what, (4,))
  wrong = (array[:, :2] > array[:, 2:]).any(axis=1)
  if wrong.any():
    row = int(wrong.argmax())
    raise RecordError(
      where,
      "boxes",
      f"{what} {row} is {shown(given[row])}, of negative size (x2 < x1 or "
      "y2 < y1), as x y width height or cx cy w h may look",
      _BOX,
    )
  array = array - base
  low = (array[:, :2] < 0).any(axis=1) if base else np.zeros(len(array), bool)
  if low.any() and (array + base).max() <= 1:
    raise RecordError(
      where,
      "boxes",
      f"all of {what} lie within 0 and 1, the first is {shown(given[0])}: "
      "shares of the image, not pixels",
      _BOX,
    )
  if low.any():
    row = int(low.argmax())
    raise RecordError(
      where,
      "boxes",
      f"{what} {row} is {shown(given[row])}, but boxes of this file are taken "
      "to count pixels from 1",
      "say --box-base=0 if the file counts from 0",
    )
  if size is not None:
    check_inside(where, array, what, size)
  return array


def check_inside(
  where: Place, corners: np.ndarray, what: str, size: tuple[int, int]
) -> None:
  """Raises RecordError if a box [n, 4] leaves the image of (height, width).

  Boxes count pixels from 0.
  """
  high = corners[:, 2:] - (np.array([size[1], size[0]]) - 1)
  outside = (high > SLACK).any(axis=1) | (corners[:, :2] < -SLACK).any(axis=1)
  if outside.any():
    row = int(outside.argmax())
    raise RecordError(
      where,
      "boxes",
      f"{what} {row} is {corners[row].tolist()} counted from 0, outside the "
      f"image of {size[1]} x {size[0]} pixels (width x height)",
      "use the images that the boxes were drawn on, or mend the box",
    )


def numbers(
  where: Place, given: Any, what: str, shape: tuple[int, ...] = ()
) -> np.ndarray:
  """A list as float64 [n, *shape]; RecordError names the first wrong one."""
  if not isinstance(given, list):
    raise RecordError(where, "form", f"has no list {what!r}", "see the docs")
  array = as_numbers(given, shape)
  if array is not None:
    return array
  row = next(i for i, x in enumerate(given) if as_numbers([x], shape) is None)
  kind = f"{shape[0]} finite numbers" if shape else "a finite number"
  raise RecordError(
    where,
    "boxes",
    f"{what} {row} is {shown(given[row])}, not {kind}",
    _BOX if shape else "give one finite number each",
  )


def as_numbers(given: list[Any], shape: tuple[int, ...]) -> np.ndarray | None:
  """float64 [n, *shape]; None if anything is not a finite number.

  Texts and booleans are refused, which numpy would convert.
  """
  flat = [x for row in given for x in row] if shape and _rows(given) else given
  if not all(type(x) is float or type(x) is int for x in flat):
    return None
  try:
    array = np.array(given, np.float64)
  except (ValueError, OverflowError):  # rows of two lengths, 400 digits
    return None
  if not given:
    return np.zeros((0, *shape))
  fits = array.shape == (len(given), *shape) and np.isfinite(array).all()
  return array if fits else None


def _rows(given: list[Any]) -> bool:
  return all(isinstance(row, list) for row in given)


def shown(value: Any) -> str:
  """A value as text for messages, shortened."""
  text = repr(value)
  return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def integers(
  where: Place, given: Any, what: str, first: int, stop: int
) -> np.ndarray:
  """A list of integers from `first` to `stop` - 1, as int32 [n] from 0."""
  if not isinstance(given, list):
    raise RecordError(where, "form", f"has no list {what!r}", "see the docs")
  for row, value in enumerate(given):
    if type(value) is not int or not first <= value < stop:
      raise RecordError(
        where,
        "labels",
        f"{what} {row} is {shown(value)}, which does not exist",
        f"give a whole number from {first} to {stop - 1}",
      )
  return np.array(given, np.int32) - first


def same_length(where: Place, **lists: Any) -> None:
  """Raises RecordError unless all lists have the same length."""
  sizes = {name: len(items) for name, items in lists.items()}
  if len(set(sizes.values())) > 1:
    counts = ", ".join(f"{size} {name}" for name, size in sizes.items())
    raise RecordError(
      where, "form", f"has {counts}", "give one of each for every label"
    )
