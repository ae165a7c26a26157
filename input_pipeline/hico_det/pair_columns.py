"""Pairs of an image as rows of the batch contract: schema.PAIR_ANNOTATIONS.

Every detected person is paired with every other detected box. In training a
pair gets the labels of all annotated pairs with its object that it overlaps by
half (the smaller of the two boxes' IoU, as in the metric). If an image has more
pairs than slots, labelled pairs come first, annotated before detected ones, and
the others are drawn by a hash of the image's name, so that every machine makes
the same cache.
"""

import dataclasses
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from input_pipeline import schema
from input_pipeline.geometry import Letterbox
from input_pipeline.hico_det.detectors.detections import ImageDetections
from input_pipeline.hico_det.records import Record

VERSION = "pairs-1"
_OVERLAP = 0.5


@dataclasses.dataclass(frozen=True)
class Selection:
  """Which detections make pairs; see mipd_jax/tasks/config.py."""

  max_people: int
  max_objects: int
  min_score: float


@dataclasses.dataclass(frozen=True, eq=False)
class Pairs:
  """P pairs of one image.

  Attributes:
    boxes: float64 [P, 8] corners of person and object, pixels from 0.
    objects: int32 [P] numbers of the objects.
    scores: float32 [P, 2] of the person and the object.
  """

  boxes: np.ndarray
  objects: np.ndarray
  scores: np.ndarray

  def rows(self, which: np.ndarray) -> "Pairs":
    return Pairs(self.boxes[which], self.objects[which], self.scores[which])


def pair_up(
  detected: ImageDetections, person: int, selection: Selection
) -> Pairs:
  """All pairs of an image's detections, the best product of scores first."""
  good = detected.scores >= selection.min_score
  people = np.flatnonzero(good & (detected.objects == person))
  things = np.flatnonzero(good & (detected.objects != person))
  people = people[: selection.max_people]
  things = np.concatenate([people, things[: selection.max_objects]])
  pairs = np.array(
    [(a, b) for a in people for b in things if a != b], np.int64
  ).reshape(-1, 2)
  product = detected.scores[pairs].astype(np.float64).prod(axis=1)
  pairs = pairs[np.argsort(-product, kind="stable")]
  return Pairs(
    detected.boxes[pairs].astype(np.float64).reshape(-1, 8),
    detected.objects[pairs[:, 1]],
    detected.scores[pairs],
  )


def labels_of(pairs: Pairs, record: Record) -> list[tuple[int, ...]]:
  """The labels of the annotated pairs that each pair overlaps."""
  if not len(record.pairs):
    return [()] * len(pairs.objects)
  truth = record.boxes[record.pairs].astype(np.float64).reshape(-1, 8)
  kind = record.objects[record.pairs[:, 1]]
  overlap = np.minimum(
    _iou(pairs.boxes[:, None, :4], truth[None, :, :4]),
    _iou(pairs.boxes[:, None, 4:], truth[None, :, 4:]),
  )
  same = (overlap >= _OVERLAP) & (pairs.objects[:, None] == kind)
  given: list[list[int]] = [[] for _ in record.pairs]
  for pair, interaction in record.labels.tolist():
    given[pair].append(interaction)
  return [
    tuple(sorted({label for i in np.flatnonzero(row) for label in given[i]}))
    for row in same
  ]


def training_pairs(
  record: Record, annotated: Pairs, detected: Pairs | None, slots: int
) -> tuple[Pairs, list[tuple[int, ...]]]:
  """At most `slots` pairs of a training image, and their labels."""
  parts = [annotated] if detected is None else [annotated, detected]
  pairs = Pairs(
    *(
      np.concatenate([getattr(part, field.name) for part in parts])
      for field in dataclasses.fields(Pairs)
    )
  )
  labels = labels_of(pairs, record)
  rng = np.random.default_rng(zlib.crc32(record.name.encode()))
  drawn = rng.permutation(len(labels))
  known = np.array([bool(x) for x in labels], bool)
  # Labelled pairs in their order, then the others in the order drawn.
  order = np.lexsort((np.where(known, np.arange(len(labels)), drawn), ~known))
  order = order[:slots]
  return pairs.rows(order), [labels[i] for i in order]


def columns(
  records: Sequence[Record],
  pairs: Sequence[Pairs],
  labels: Sequence[Sequence[tuple[int, ...]]],
  slots: int,
) -> dict[str, np.ndarray]:
  """The contract's columns; the number of pairs is a multiple of `slots`."""
  most = max([len(x.objects) for x in pairs] + [1])
  count, size = len(records), -(-most // slots) * slots
  width = max([len(x) for image in labels for x in image] + [1])
  arrays = {
    schema.EXAMPLE_MASK: np.ones(count, bool),
    schema.INDEX: np.arange(count, dtype=np.int32),
    schema.PAIR_MASK: np.zeros((count, size), bool),
    schema.PAIR_BOXES: np.full((count, size, 8), -1, np.float32),
    schema.PAIR_OBJECT: np.zeros((count, size), np.int32),
    schema.PAIR_LABELS: np.full((count, size, width), -1, np.int32),
    schema.PAIR_DETECTION: np.zeros((count, size, 2), np.float32),
    schema.IMAGE_SIZE: np.array(
      [(r.height, r.width) for r in records], np.int32
    ).reshape(-1, 2),
  }
  for row, (record, item) in enumerate(zip(records, pairs, strict=True)):
    n = len(item.objects)
    arrays[schema.PAIR_MASK][row, :n] = True
    arrays[schema.PAIR_BOXES][row, :n] = to_canvas(record, item.boxes)
    arrays[schema.PAIR_OBJECT][row, :n] = item.objects
    arrays[schema.PAIR_DETECTION][row, :n] = item.scores
    for place, numbers in enumerate(labels[row]):
      arrays[schema.PAIR_LABELS][row, place, : len(numbers)] = numbers
  return arrays


# A box's edge is one pixel after its last pixel.
_EDGE = np.array([0, 0, 1, 1])


def to_canvas(record: Record, boxes: np.ndarray) -> np.ndarray:
  """float [P, 8] corners in pixels -> cx cy w h twice, shares of the canvas."""
  geometry = Letterbox(record.height, record.width)
  edges = boxes.reshape(-1, 2, 4) + _EDGE
  return geometry.boxes_to_canvas(edges).reshape(-1, 8)


def to_pixels(image_size: np.ndarray, boxes: np.ndarray) -> np.ndarray:
  """The inverse: int [2], float32 [P, 8] -> corners in pixels, [P, 8]."""
  geometry = Letterbox(*image_size.tolist())
  edges = geometry.boxes_to_pixels(boxes.reshape(-1, 2, 4)).astype(np.float64)
  return (edges - _EDGE).reshape(-1, 8)


def _iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """IoU of boxes [..., 4], pixels with both corners inside: [...]."""
  low = np.maximum(a[..., :2], b[..., :2])
  meet = np.maximum(np.minimum(a[..., 2:], b[..., 2:]) - low + 1, 0)
  shared = meet[..., 0] * meet[..., 1]
  return shared / (_area(a) + _area(b) - shared)


def _area(boxes: np.ndarray) -> np.ndarray:
  """Area in pixels of boxes [..., 4]: [...]."""
  size = boxes[..., 2:] - boxes[..., :2] + 1
  return size[..., 0] * size[..., 1]


def labelled(columns: Mapping[str, np.ndarray], count: int) -> np.ndarray:
  """Number of pairs with each interaction as a label: int [count]."""
  numbers = columns[schema.PAIR_LABELS]
  return np.bincount(numbers[numbers >= 0], minlength=count)
