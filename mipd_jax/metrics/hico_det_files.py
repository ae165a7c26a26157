"""Predictions and annotations of HICO-DET as JSON: read and checked.

Predictions, of any model; one entry of the last four lists is one detection:

  [{"file_name": "HICO_test2015_00000001.jpg",
    "human_boxes": [[x1, y1, x2, y2], ...], "object_boxes": [...],
    "hoi": [0 to 599, or names such as "ride bicycle"], "scores": [...]}, ...]

Boxes are pixels from 0 with both corners inside. An image without detections
may be absent. Annotations are in any form that `input_pipeline.hico_det`
reads: test_hico.json, instances_test2015.json, or a list of entries with
"file_name", "boxes_h", "boxes_o", "hoi" (numbers or names).

Boxes of these files count pixels from 1, as HICO-DET's own do, and so are
those of a list taken to; --box-base=0 says that yours count from 0.
trainval_hico.json counts from 0; a file of its form under another name needs
--box-base.
"""

import itertools
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from input_pipeline.hico_det.records import ImageLabels
from input_pipeline.hico_det.sources import annotations, json_stream, parsing
from input_pipeline.hico_det.vocabulary import Vocabulary
from input_pipeline.io.errors import InputError
from mipd_jax.metrics.hico_det_doubts import Doubts
from mipd_jax.metrics.hico_det_matching import Detections, Truth

_FORM = "python -m mipd_jax.metrics.hico_det --help shows the form"
_BOX = "give x1 y1 x2 y2, four finite numbers, with x1 <= x2 and y1 <= y2"


def read_truth(
  path: str | pathlib.Path, words: Vocabulary, base: int | None = None
) -> Truth:
  """Annotated pairs of a file.

  Args:
    path: the annotations.
    words: verbs, objects and interactions.
    base: number of the first pixel in it; None: as published.

  Raises:
    InputError: the file or an image in it cannot be used; it is named.
  """
  return make_truth(annotations.read(path, words, base=base), words)


def make_truth(images: list[ImageLabels], words: Vocabulary) -> Truth:
  """The same from labels that are read already."""
  labelled = np.zeros((len(images), len(words.objects)), bool)
  for row, item in enumerate(images):
    # A label counts for the image even where its boxes are not used.
    labelled[row, words.object_of[item.interactions]] = True
    if item.image_interactions is not None:
      labelled[row, words.object_of[item.image_interactions]] = True
  number = [int(item.visible.sum()) for item in images]
  image = np.repeat(np.arange(len(images), dtype=np.int64), number)
  interaction = _join([x.interactions[x.visible] for x in images], np.int64)
  boxes = np.concatenate(
    [
      _join([x.human_boxes[x.visible] for x in images]).reshape(-1, 4),
      _join([x.object_boxes[x.visible] for x in images]).reshape(-1, 4),
    ],
    axis=1,
  )
  keys = image * len(words) + interaction
  order = np.argsort(keys, kind="stable")
  return Truth(
    names=tuple(item.name for item in images),
    keys=keys[order],
    boxes=boxes[order] + 1,
    counts=np.bincount(interaction, minlength=len(words)),
    known=labelled,
    object_of=words.object_of,
    has_pairs=np.array(number, np.int64) > 0,
    sizes=tuple(item.size for item in images),
  )


def read_predictions(
  path: str | pathlib.Path,
  truth: Truth,
  words: Vocabulary,
  notes: list[str] | None = None,
) -> Iterator[Detections]:
  """Detections image by image, in the file's order; never all at once.

  Args:
    path: the predictions.
    truth: the annotations.
    words: the interactions.
    notes: gets what is odd about the whole file, once it is read.

  Raises:
    InputError: the file cannot be read, an image is not annotated or occurs
      twice, or one of its detections cannot be used; it is named. At the
      end: the boxes are not pixels of their images, or interactions count
      from 1.
  """
  place = {name: row for row, name in enumerate(truth.names)}
  read: set[int] = set()
  whole = Doubts(str(path), truth, words)
  for number, entry in enumerate(json_stream.entries(path)):
    name = entry.get("file_name")
    where = f"{path}: image {name}"
    if not isinstance(name, str):
      raise InputError(
        f"{path}: entry {number} has no 'file_name'{parsing.looks_like(entry)}",
        _FORM,
      )
    if name not in place:
      raise InputError(
        f"{where} is not in the annotations{_near(name, place)}",
        "predict their images alone, or give the annotations of these",
      )
    if place[name] in read:
      raise InputError(f"{where} is there twice", "put its lists together")
    read.add(place[name])
    hits = _detections(entry, place[name], where, words)
    whole.add(place[name], hits)
    yield hits
  odd = whole.check()
  if notes is not None:
    notes += odd


def _near(name: str, names: Iterable[str]) -> str:
  """The annotated image whose name differs in folder or ending, in words."""

  def stem(name: str) -> str:
    return pathlib.PurePath(name.strip().replace("\\", "/")).stem.lower()

  near = next((x for x in names if stem(x) == stem(name)), None)
  return f"; {near} is" if near is not None else ""


def _detections(
  entry: dict[str, Any], image: int, where: str, words: Vocabulary
) -> Detections:
  lists = ("human_boxes", "object_boxes", "hoi", "scores")
  for key in lists:
    if not isinstance(entry.get(key), list):
      raise InputError(
        f"{where} has no list {key!r}{parsing.looks_like(entry)}", _FORM
      )
  sizes = [len(entry[key]) for key in lists]
  if len(set(sizes)) > 1:
    counts = ", ".join(
      f"{n} {key}" for key, n in zip(lists, sizes, strict=True)
    )
    raise InputError(f"{where} has {counts}", "give one of each per detection")
  score = _numbers(entry["scores"], "score", where, "give a finite number", ())
  boxes = [
    _boxes(entry[key], key, where) for key in ("human_boxes", "object_boxes")
  ]
  return Detections(
    image=np.full(sizes[0], image, np.int32),
    boxes=np.concatenate(boxes, axis=1),
    interaction=_interactions(entry["hoi"], where, words),
    score=score,
  )


def _boxes(rows: list[Any], what: str, where: str) -> np.ndarray:
  boxes = _numbers(rows, what, where, _BOX, (4,))
  negative = (boxes[:, :2] > boxes[:, 2:]).any(axis=1)
  if negative.any():
    row = int(negative.argmax())
    raise InputError(
      f"{where}: {what} {row} is {parsing.shown(rows[row])}, of negative size "
      "(x2 < x1 or y2 < y1), as x y width height or cx cy w h may look",
      _BOX,
    )
  return boxes


def _interactions(
  values: list[Any], where: str, words: Vocabulary
) -> np.ndarray:
  if values and all(isinstance(x, str) for x in values):
    return words.interactions(values, where)
  for row, value in enumerate(values):
    if type(value) is not int or not 0 <= value < len(words):
      raise InputError(
        f"{where}: hoi {row} is {parsing.shown(value)}, which is no "
        "interaction",
        f"give whole numbers from 0 to {len(words) - 1}, or names throughout",
      )
  return np.array(values, np.int32)


def _numbers(
  values: list[Any], what: str, where: str, remedy: str, shape: tuple[int, ...]
) -> np.ndarray:
  """float64 [n, *shape]; `InputError` names the first that is not a number."""
  try:
    array = np.array(values)
    if array.size == 0 and not values:
      return np.zeros((0, *shape))
    fits = array.dtype.kind in "iuf" and array.shape == (len(values), *shape)
    # numpy takes true for 1 where numbers stand beside it.
    flat = itertools.chain.from_iterable(values) if shape and fits else values
    if fits and bool not in set(map(type, flat)):
      array = array.astype(np.float64, copy=False)
      if np.isfinite(array).all():
        return array
  except ValueError:  # rows of different lengths
    pass
  row = next(i for i, x in enumerate(values) if not _is_finite(x, shape))
  raise InputError(
    f"{where}: {what} {row} is {parsing.shown(values[row])}", remedy
  )


def _is_finite(value: Any, shape: tuple[int, ...]) -> bool:
  if isinstance(value, list) and bool in set(map(type, value)):
    return False
  try:
    array = np.array(value)
  except ValueError:
    return False
  return (
    array.dtype.kind in "iuf"
    and array.shape == shape
    and bool(np.isfinite(array).all())
  )


def _join(arrays: list[np.ndarray], dtype: type = np.float64) -> np.ndarray:
  if not arrays:
    return np.zeros(0, dtype)
  return np.concatenate(arrays).astype(dtype)
