"""Which detected pairs are right, and average precision: HICO-DET's metric.

The rules are those of ho-rcnn's `VOCevaldet_bboxpair.m` (Chao et al., WACV
2018). Its loop over detections is a few array operations here, since a
detection has no second choice: it is right if the pair that it overlaps best
overlaps by half and no better-scored detection has the same best pair. `Pool`
collects the detections of all images and keeps little of each.
"""

import dataclasses

import numpy as np

MIN_OVERLAP = 0.5
# Recalls at which precision is read: Matlab's 0:0.1:1, which counts from both
# ends, so that only the fourth differs from its decimal.
RECALLS = tuple(0.1 * i for i in range(6)) + tuple(
  1 - 0.1 * i for i in range(4, -1, -1)
)


@dataclasses.dataclass(frozen=True, eq=False)
class Truth:
  """Annotated pairs of N images, T in all, of I interactions.

  Attributes:
    names: file names of the images.
    keys: int64 [T] image * I + interaction, ascending.
    boxes: float64 [T, 8] corners of human and object, pixels from 1.
    counts: int64 [I] pairs of each interaction.
    known: bool [N, O] whether an image is labelled with an object.
    object_of: int32 [I].
    has_pairs: bool [N].
    sizes: (height, width) of each image in pixels, None where unknown.
  """

  names: tuple[str, ...]
  keys: np.ndarray
  boxes: np.ndarray
  counts: np.ndarray
  known: np.ndarray
  object_of: np.ndarray
  has_pairs: np.ndarray
  sizes: tuple[tuple[int, int] | None, ...]

  def of_image(self, row: int) -> slice:
    """The rows of an image's pairs in `keys` and `boxes`."""
    edges = np.array([row, row + 1]) * len(self.counts)
    return slice(*np.searchsorted(self.keys, edges).tolist())


@dataclasses.dataclass(frozen=True, eq=False)
class Detections:
  """Detected pairs side by side, D of them.

  Attributes:
    image: int32 [D].
    boxes: float64 [D, 8] corners of human and object, pixels from 0.
    interaction: int32 [D].
    score: float64 [D].
  """

  image: np.ndarray
  boxes: np.ndarray
  interaction: np.ndarray
  score: np.ndarray


def match(truth: Truth, detected: Detections) -> np.ndarray:
  """Which detections are right: bool [D].

  Args:
    truth: the annotations.
    detected: all detections of some images. Of equal scores the earlier counts
      as the better one.
  """
  key = (
    detected.image.astype(np.int64) * len(truth.counts) + detected.interaction
  )
  first = np.searchsorted(truth.keys, key, "left")
  number = np.searchsorted(truth.keys, key, "right") - first
  rows = np.flatnonzero(number)
  if not len(rows):
    return np.zeros(len(key), bool)
  number = number[rows]
  start = np.cumsum(number) - number
  candidate = np.arange(number.sum()) + np.repeat(first[rows] - start, number)
  # The truth counts pixels from 1.
  detected_Mx8 = np.repeat(detected.boxes[rows] + 1, number, axis=0)
  annotated_Mx8 = truth.boxes[candidate]
  overlap = np.minimum(
    iou(detected_Mx8[:, :4], annotated_Mx8[:, :4]),
    iou(detected_Mx8[:, 4:], annotated_Mx8[:, 4:]),
  )
  best = np.maximum.reduceat(overlap, start)
  # Of equally good ones the first, as in the original's comparison.
  is_best = overlap == np.repeat(best, number)
  order = np.where(is_best, np.arange(len(overlap)), len(overlap))
  chosen = candidate[np.minimum.reduceat(order, start)]
  hits = np.flatnonzero(best >= MIN_OVERLAP)
  by_score = hits[np.argsort(-detected.score[rows[hits]], kind="stable")]
  _, takes = np.unique(chosen[by_score], return_index=True)
  right = np.zeros(len(key), bool)
  right[rows[by_score[takes]]] = True
  return right


def average_precision(right: np.ndarray, pairs: int) -> float:
  """11-point average precision in 0..1.

  Args:
    right: bool [D], best score first.
    pairs: number of annotated pairs; 0 gives 0, as the original does.
  """
  if not pairs or not len(right):
    return 0.0
  hits = np.cumsum(right)
  recall = hits / pairs
  precision = hits / np.arange(1, len(right) + 1)
  best_from = np.maximum.accumulate(precision[::-1])[::-1]
  places = np.searchsorted(recall, RECALLS, "left")
  points = [best_from[i] for i in places if i < len(best_from)]
  return float(sum(points)) / len(RECALLS)


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """[n] overlap of boxes [n, 4]; both corners belong to a box."""
  low = np.maximum(a[:, :2], b[:, :2])
  size = np.minimum(a[:, 2:], b[:, 2:]) - low + 1
  shared = size[:, 0] * size[:, 1]
  union = _area(a) + _area(b) - shared
  meets = (size > 0).all(axis=1)
  return np.where(meets, shared / np.where(meets, union, 1), 0)


def _area(boxes_Nx4: np.ndarray) -> np.ndarray:
  size_Nx2 = boxes_Nx4[:, 2:] - boxes_Nx4[:, :2] + 1
  return size_Nx2[:, 0] * size_Nx2[:, 1]


_ROWS = 1 << 15  # detections matched at a time


class Pool:
  """Collects detections image by image; keeps 18 bytes of each.

  Args:
    truth: the annotations.
  """

  def __init__(self, truth: Truth):
    self._truth = truth
    self._waiting: list[Detections] = []
    self._rows = 0
    self._matched: list[tuple[np.ndarray, ...]] = []
    self.images = 0

  def add(self, hits: Detections) -> None:
    """Takes all detections of one image; each image once."""
    self._waiting.append(hits)
    self._rows += len(hits.score)
    self.images += 1
    if self._rows >= _ROWS:
      self._match()

  def average_precisions(self) -> tuple[np.ndarray, np.ndarray]:
    """Two [I] in 0..1: by the default setting, and by known objects."""
    self._match()
    number = len(self._truth.counts)
    precisions = np.zeros((2, number))
    if not self._matched:
      return precisions[0], precisions[1]
    image, interaction, score, right = map(
      np.concatenate, zip(*self._matched, strict=True)
    )
    self._matched = [(image, interaction, score, right)]
    by_class = np.argsort(interaction, kind="stable")
    edges = np.searchsorted(interaction[by_class], np.arange(number + 1))
    for row in range(number):
      rows = by_class[edges[row] : edges[row + 1]]
      # Of equal scores the earlier image, then the earlier detection.
      rows = rows[np.lexsort((image[rows], -score[rows]))]
      hits, pairs = right[rows], int(self._truth.counts[row])
      labelled = self._truth.known[image[rows], self._truth.object_of[row]]
      precisions[0, row] = average_precision(hits, pairs)
      precisions[1, row] = average_precision(hits[labelled], pairs)
    return precisions[0], precisions[1]

  def _match(self) -> None:
    if not self._rows:
      self._waiting = []
      return
    joined = Detections(
      *(
        np.concatenate([getattr(x, field.name) for x in self._waiting])
        for field in dataclasses.fields(Detections)
      )
    )
    right = match(self._truth, joined)
    self._matched.append(
      (joined.image, joined.interaction, joined.score, right)
    )
    self._waiting, self._rows = [], 0
