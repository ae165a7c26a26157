"""Checks that all annotation files share: names, boxes, numbers."""

import pathlib
from typing import Any

import numpy as np

from input_pipeline.swig_record import Place, RecordError

# Annotators' boxes may leave the image so far; they are cut then.
SLACK = 2.0
_BOX = "give four numbers in pixels, x1 y1 x2 y2, with x1 <= x2 and y1 <= y2"


def place(path: pathlib.Path, images: pathlib.Path, name: Any) -> Place:
  """Where an image stands; `RecordError` if that is no name of a file."""
  if not isinstance(name, str) or not name or "/" in name or "\\" in name:
    raise RecordError(
      Place(path, images / str(name)),
      "form",
      f"'file_name' is {name!r}",
      "give the name of a file, without folders",
    )
  return Place(path, images / name)


def boxes(
  where: Place, found: Any, what: str, base: int, size: tuple[int, int] | None
) -> np.ndarray:
  """Checked boxes, counted from 0: float64 [n, 4].

  Args:
    where: for messages.
    found: as the file has them.
    what: the field, for messages.
    base: number of the first pixel in the file.
    size: (height, width); None: not known.

  Raises:
    RecordError: not four finite numbers, negative size, or outside.
  """
  array = numbers(where, found, what, (4,))
  wrong = (array[:, :2] > array[:, 2:]).any(axis=1)
  if wrong.any():
    row = int(wrong.argmax())
    raise RecordError(
      where, "boxes", f"{what} {row} is {found[row]}, of negative size", _BOX
    )
  array = array - base
  low = (array[:, :2] < 0).any(axis=1) if base else np.zeros(len(array), bool)
  if low.any():
    row = int(low.argmax())
    raise RecordError(
      where,
      "boxes",
      f"{what} {row} is {found[row]}, but boxes of this file are taken to "
      "count pixels from 1",
      "say --box-base=0 if the file counts from 0",
    )
  if size is not None:
    check_inside(where, array, what, size)
  return array


def check_inside(
  where: Place, found: np.ndarray, what: str, size: tuple[int, int]
) -> None:
  """`RecordError` if a box from 0 leaves the image of (height, width)."""
  high = found[:, 2:] - (np.array([size[1], size[0]]) - 1)
  outside = (high > SLACK).any(axis=1) | (found[:, :2] < -SLACK).any(axis=1)
  if outside.any():
    row = int(outside.argmax())
    raise RecordError(
      where,
      "boxes",
      f"{what} {row} is {found[row].tolist()} counted from 0, outside the "
      f"image of {size[1]} x {size[0]} pixels (width x height)",
      "use the images that the boxes were drawn on, or mend the box",
    )


def numbers(
  where: Place, found: Any, what: str, shape: tuple[int, ...] = ()
) -> np.ndarray:
  """A list as float64 [n, *shape]; `RecordError` names the first wrong one."""
  if not isinstance(found, list):
    raise RecordError(where, "form", f"has no list {what!r}", "see the docs")
  try:
    array = np.array(found, np.float64).reshape(len(found), *shape)
    if np.isfinite(array).all():
      return array
  except (TypeError, ValueError):
    pass
  row = next(i for i, x in enumerate(found) if not _is_finite(x, shape))
  kind = f"{shape[0]} finite numbers" if shape else "a finite number"
  raise RecordError(
    where, "boxes", f"{what} {row} is {found[row]!r}, not {kind}", _BOX
  )


def integers(
  where: Place, found: Any, what: str, first: int, stop: int
) -> np.ndarray:
  """A list of whole numbers from `first` to `stop` - 1, as int32 from 0."""
  if not isinstance(found, list):
    raise RecordError(where, "form", f"has no list {what!r}", "see the docs")
  for row, value in enumerate(found):
    if type(value) is not int or not first <= value < stop:
      raise RecordError(
        where,
        "labels",
        f"{what} {row} is {value!r}, which does not exist",
        f"give a whole number from {first} to {stop - 1}",
      )
  return np.array(found, np.int32) - first


def same_length(where: Place, **lists: Any) -> None:
  """`RecordError` unless all lists are of one length."""
  sizes = {name: len(found) for name, found in lists.items()}
  if len(set(sizes.values())) > 1:
    told = ", ".join(f"{size} {name}" for name, size in sizes.items())
    raise RecordError(
      where, "form", f"has {told}", "give one of each for every label"
    )


def _is_finite(value: Any, shape: tuple[int, ...]) -> bool:
  try:
    array = np.array(value, np.float64)
  except (TypeError, ValueError):
    return False
  return array.shape == shape and bool(np.isfinite(array).all())
