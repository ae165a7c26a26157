"""Detected people and objects, or the annotated boxes instead.

  [{"detector": "facebook/detr-resnet-50, threshold 0.05"},
   {"file_name": "HICO_test2015_00000001.jpg",
    "boxes": [[x1, y1, x2, y2], ...],
    "labels": ["person", "bicycle", ...], or numbers of classes.json
    "scores": [0 to 1, ...]}, ...]

Boxes are pixels from 0 with both corners inside, as everywhere here. The
first entry names the detector; it is printed with every result, since only
figures of the same detector are comparable. An image without detections has
empty lists; a missing image is an error.
"""

import dataclasses
import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from input_pipeline.hico_det.detectors import box_readings, label_numbers
from input_pipeline.hico_det.records import Record
from input_pipeline.hico_det.sources import json_stream, parsing
from input_pipeline.hico_det.vocabulary import Vocabulary, shown
from input_pipeline.io import atomic
from input_pipeline.io.errors import InputError

ORACLE = "ground-truth boxes (oracle)"
# A float32 softmax may exceed 1 by so much.
_ROUNDED = 1e-6
_FORM = "docs/hico_det.md shows the form of detections"


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class ImageDetections:
  """The detections of an image: D boxes, the best first.

  Attributes:
    boxes: float32 [D, 4] x1 y1 x2 y2 pixels from 0, corners inside.
    objects: int32 [D] object numbers.
    scores: float32 [D] in 0..1.
  """

  boxes: np.ndarray
  objects: np.ndarray
  scores: np.ndarray

  @classmethod
  def of(
    cls, boxes: np.ndarray, objects: np.ndarray, scores: np.ndarray
  ) -> "ImageDetections":
    """Sorts by score; equal scores keep their order."""
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    return cls(
      np.asarray(boxes, np.float32).reshape(-1, 4)[order],
      np.asarray(objects, np.int32)[order],
      np.minimum(np.asarray(scores, np.float32), 1)[order],
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Detections:
  """The detections of one detector.

  Attributes:
    detector: its name, printed with every result.
    images: detections by file name.
    left_out: number of detections of objects outside the vocabulary.
    outside: number of detections outside their image, also left out.
    notes: doubts, and what could not be checked.
  """

  detector: str
  images: Mapping[str, ImageDetections]
  left_out: int = 0
  outside: int = 0
  notes: tuple[str, ...] = ()


def oracle(records: Iterable[Record]) -> Detections:
  """The annotated boxes as detections of a perfect detector.

  For training, pass records from `splits.without_unseen`.
  """
  return Detections(
    ORACLE,
    {
      r.name: ImageDetections.of(r.boxes, r.objects, np.ones(len(r.objects)))
      for r in records
    },
  )


def read(
  path: str | pathlib.Path, words: Vocabulary, names: Iterable[str]
) -> Detections:
  """Reads a file of the form above.

  Args:
    path: the file.
    words: the objects.
    names: images of the dataset; the file must have the same.

  Raises:
    InputError: the file is truncated or of another form, a box, a label or a
      score is invalid, or an image is unknown, missing or repeated.
  """
  path = pathlib.Path(path)
  expected = set(names)
  entries = json_stream.entries(path)
  first = next(entries, {})
  detector = first.get("detector")
  if not isinstance(detector, str) or not detector.strip():
    raise InputError(
      f"{path} does not begin with the name of its detector"
      f"{parsing.looks_like(first)}",
      'make {"detector": NAME} its first entry',
    )
  images: dict[str, ImageDetections] = {}
  for entry in entries:
    where = parsing.place(path, path.parent, entry.get("file_name"))
    name = where.image_path.name
    if name not in expected:
      raise InputError(
        f"{path}: image {name} is not in the dataset",
        "keep only the dataset's images in the file, or give its own file",
      )
    if name in images:
      raise InputError(f"{path}: image {name} is there twice", "join its lists")
    images[name] = parse(entry, where, words)
  missing = sorted(expected - images.keys())
  if missing:
    raise InputError(
      f"{path} lacks {len(missing)} of {len(expected)} images: "
      f"{shown(missing)}",
      "run the detector on them; give empty lists where it finds nothing",
    )
  return Detections(detector, images)


def parse(
  entry: Mapping[str, Any], where: parsing.Place, words: Vocabulary
) -> ImageDetections:
  """The detections of one entry; RecordError names its fault."""
  boxes = parsing.boxes(where, entry.get("boxes"), "boxes", 0, None)
  scores = parsing.numbers(where, entry.get("scores"), "scores")
  labels = entry.get("labels")
  if not isinstance(labels, list):
    raise parsing.RecordError(
      where,
      "form",
      f"has no list 'labels'{parsing.looks_like(entry)}",
      _FORM,
    )
  parsing.same_length(where, boxes=boxes, labels=labels, scores=scores)
  check_scores(where, scores)
  numbers = objects(labels, where, words)
  return ImageDetections.of(boxes, np.array(numbers, np.int32), scores)


def check_scores(where: parsing.Place, scores: np.ndarray) -> None:
  """Raises RecordError for the first score [n] that is not a probability."""
  outside = (scores < 0) | (scores > 1 + _ROUNDED)
  if outside.any():
    row = int(outside.argmax())
    raise parsing.RecordError(
      where,
      "labels",
      f"scores {row} is {scores[row]}, not within 0 and 1",
      "give probabilities, not logits",
    )


def objects(
  labels: list[Any], where: parsing.Place, words: Vocabulary
) -> list[int]:
  """Objects of the vocabulary, by name or number; RecordError if unknown."""
  return [_object(x, row, where, words) for row, x in enumerate(labels)]


def compare(
  detected: Detections, records: Iterable[Record], words: Vocabulary, where: str
) -> tuple[str, ...]:
  """Compares detections with the annotated boxes of their images.

  Returns:
    Doubts, and what could not be checked.

  Raises:
    InputError: the boxes are not pixels of their images, or the objects are
      numbered as in another list; the message names the kind.
  """
  readings = box_readings.Readings(where)
  agreement = label_numbers.Agreement(words)
  for record in records:
    item = detected.images.get(record.name)
    if item is not None:
      boxes = item.boxes.astype(np.float64)
      size = (record.height, record.width)
      readings.add(boxes, record.boxes.astype(np.float64), size)
      agreement.add(
        boxes, item.objects, item.scores, record.boxes, record.objects
      )
  doubts = [readings.check(), agreement.check_objects(where)]
  total = sum(len(item.objects) for item in detected.images.values())
  if total and not any(
    (item.objects == words.person).any() for item in detected.images.values()
  ):
    doubts.append(
      f"{where}: none of {total} boxes is a {words.objects[words.person]!r}, "
      "so no pair can be made of them"
    )
  return tuple(note for note in doubts if note)


def write(path: str | pathlib.Path, detected: Detections, words: Vocabulary):
  """Writes a file of the form above, whole or not at all."""
  rows: list[dict[str, Any]] = [{"detector": detected.detector}]
  rows += [
    {
      "file_name": name,
      "boxes": np.round(item.boxes.astype(np.float64), 2).tolist(),
      "labels": [words.objects[i] for i in item.objects],
      "scores": np.round(item.scores.astype(np.float64), 5).tolist(),
    }
    for name, item in detected.images.items()
  ]
  try:
    with (
      atomic.replacing(path) as temporary,
      temporary.open("w", encoding="utf-8") as file,
    ):
      for number, row in enumerate(rows):
        file.write((",\n" if number else "[\n") + json.dumps(row))
      file.write("\n]\n")
  except OSError as error:
    raise InputError(
      f"cannot write {path}: {error.strerror}", "give another file"
    ) from None


def _object(
  label: Any, row: int, where: parsing.Place, words: Vocabulary
) -> int:
  number = None
  if isinstance(label, str):
    number = words.object_number(label)
  elif type(label) is int and 0 <= label < len(words.objects):
    number = label
  if number is None:
    near = words.near_object(label) if isinstance(label, str) else None
    hint = f" (did you mean {near!r}?)" if near else ""
    raise parsing.RecordError(
      where,
      "labels",
      f"labels {row} is {parsing.shown(label)}, which is no object{hint}",
      f"give a name of classes.json or a number from 0 to "
      f"{len(words.objects) - 1}",
    )
  return number
