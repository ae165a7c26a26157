"""Detects boxes that are not pixels of their images, by the annotated boxes.

A file does not say what its boxes are. Shares of the image, thousandths, sizes
instead of corners, or boxes of a resized image overlap hardly any annotated box
if they are read as corners in pixels. Read as what they are, they do.
"""

from collections.abc import Callable, Iterator

import numpy as np

from input_pipeline.io.errors import InputError

# Boxes read as another kind need more overlap, and with few annotated boxes a
# larger share must fit, so that a poor detector is not taken for another kind.
_OVERLAP, _OTHER_OVERLAP = 0.5, 0.7
_FEW, _SHARE_OF_FEW, _SHARE_OF_MANY = 20, 0.75, 0.3
# Annotated boxes are compared in at most so many images, the first ones.
_IMAGES = 200
# A box's edge is one pixel after its last pixel.
_EDGE = np.array([0, 0, 1, 1])
_SHORT, _LONG = 800, 1333  # sides of resized images of DETR and others
# Sides of resized images of other models.
_SQUARES = (224, 256, 320, 336, 384, 416, 448, 512, 640, 768, 800, 1024)
_SIDES = (224, 320, 336, 384, 448, 480, 512, 600, 640, 672, 1024, 1333)
# (height, width) of most images of HICO-DET, for files without sizes.
_USUAL = ((480, 640), (640, 480), (427, 640), (640, 427), (360, 640))
_LEAST = 5  # fewest annotated boxes to test rare kinds, or usual sizes
_SUSPECT = 0.05  # share of a file's boxes that raises a doubt
_UNIT = 1.5  # numbers up to this may be shares of the image, of any kind
_REMEDY = (
  "give corners x1 y1 x2 y2 in pixels of the original image, counted from 0"
)


# Readings of boxes [n, 4] as corners in pixels [n, 4]; `size` is float [4]:
# width, height, width, height.
def _swapped(boxes: np.ndarray) -> np.ndarray:
  return boxes[:, [1, 0, 3, 2]]


def _from_size(boxes: np.ndarray) -> np.ndarray:
  return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:] - 1], 1)


def _from_centre(boxes: np.ndarray) -> np.ndarray:
  half = boxes[:, 2:] / 2
  return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half - 1], 1)


def _mirrored(boxes: np.ndarray, size: np.ndarray) -> np.ndarray:
  ends = size - 1 - boxes
  return np.stack([ends[:, 2], boxes[:, 1], ends[:, 0], boxes[:, 3]], axis=1)


def _from_below(boxes: np.ndarray, size: np.ndarray) -> np.ndarray:
  ends = size - 1 - boxes
  return np.stack([boxes[:, 0], ends[:, 3], boxes[:, 2], ends[:, 1]], axis=1)


def _resized(boxes: np.ndarray, size: np.ndarray) -> np.ndarray:
  scale = min(_SHORT / size.min(), _LONG / size.max())
  return boxes / scale


_Reading = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _side(side: int, of: Callable[[np.ndarray], float]) -> _Reading:
  return lambda boxes, size: boxes * (of(size) / side)


def _square(side: int) -> _Reading:
  return lambda boxes, size: boxes * (size / side)


# Other meanings of four numbers.
_ANYWHERE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
  "corners in pixels counted from 1": lambda boxes: boxes - 1,
  "x y width height in pixels": _from_size,
  "cx cy width height in pixels": _from_centre,
  "y1 x1 y2 x2 in pixels": _swapped,
}
_BY_SIZE: dict[str, _Reading] = {
  "corners as shares of the image": lambda b, size: b * size - [0, 0, 1, 1],
  "cx cy w h as shares of the image": lambda b, size: _from_centre(b * size),
  "x y w h as shares of the image": lambda b, size: _from_size(b * size),
  "corners in thousandths of the image": lambda b, size: b * size / 1000,
  "y1 x1 y2 x2 in thousandths of the image": lambda b, size: (
    _swapped(b) * size / 1000
  ),
  f"corners in an image resized to {_SHORT} pixels": _resized,
}
# Only tested for files with more annotated boxes.
_RARE: dict[str, _Reading] = {
  "corners in hundredths of the image": lambda b, size: b * size / 100,
  "corners of a mirrored image": _mirrored,
  "corners counted from the lower edge": _from_below,
  **{
    f"corners in an image resized to {side} x {side} pixels": _square(side)
    for side in _SQUARES
  },
  **{
    f"corners in an image whose longer side is {side} pixels": _side(side, max)
    for side in _SIDES
  },
  **{
    f"corners in an image whose shorter side is {side} pixels": _side(side, min)
    for side in _SIDES
  },
  **{
    f"corners in an image {words} as large": lambda b, _, by=by: b / by
    for words, by in (("half", 0.5), ("twice", 2.0), ("a quarter", 0.25))
  },
}


class Readings:
  """Collects the boxes of a file image by image; `check` judges them.

  Args:
    where: the file, for messages.
    remedy: what to do about boxes of another kind.
    least: with fewer annotated boxes `check` says nothing.
  """

  def __init__(self, where: str, remedy: str = _REMEDY, least: int = 0):
    self._where, self._remedy, self._least = where, remedy, least
    self._boxes = self._shares = self._leaving = self._sized = 0
    self._annotated = self._right = 0
    # (boxes, annotated, size) of the compared images.
    self._kept: list[tuple[np.ndarray, np.ndarray, tuple[int, int] | None]] = []

  def add(
    self,
    boxes: np.ndarray,
    annotated: np.ndarray,
    size: tuple[int, int] | None,
  ) -> None:
    """Adds an image.

    Args:
      boxes: [n, 4] as in the file, read as x1 y1 x2 y2 in pixels from 0,
        corners inside.
      annotated: [m, 4], the annotated boxes in pixels from 0.
      size: (height, width) in pixels; None: unknown.
    """
    if not len(boxes):
      return
    self._boxes += len(boxes)
    self._shares += int((np.abs(boxes) <= _UNIT).all(axis=1).sum())
    whole = None if size is None else np.array([size[1], size[0]] * 2, float)
    if whole is not None:
      inside = _area(np.clip(boxes, 0, whole - 1))
      inside = np.where(empty_after_cut(boxes + _EDGE, size), 0, inside)
      self._leaving += int((2 * inside < _area(boxes)).sum())
      self._sized += len(boxes)
    if not len(annotated) or len(self._kept) >= _IMAGES:
      return
    annotated = np.unique(annotated, axis=0)
    self._annotated += len(annotated)
    self._right += overlapped(boxes, annotated)
    self._kept.append((boxes, annotated, size))

  def check(self) -> str:
    """Doubts, and what could not be checked, as text; "" if there are none.

    Raises:
      InputError: the boxes are of another kind, which the message names.
    """
    if not self._boxes or self._annotated < self._least:
      return ""
    # A reading that overlaps half of the boxes cannot be beaten by a factor 2.
    best, hits = "", 0
    if 2 * self._right <= self._annotated:
      best, hits = self._other()
    share = _SHARE_OF_FEW if self._annotated < _FEW else _SHARE_OF_MANY
    fits = hits >= share * self._annotated and hits >= 2 * self._right
    if hits and fits:
      raise InputError(
        f"{self._where}: taken as corners in pixels from 0, its boxes overlap "
        f"{self._right} of {self._annotated} annotated ones; taken as {best}, "
        f"{hits}",
        self._remedy,
      )
    if 2 * self._shares > self._boxes:
      self._refuse("lie within 0 and 1, as shares of the image do", "shares")
    if 2 * self._leaving > max(self._sized, 1):
      self._refuse("lie outside their image by more than half", "leaving")
    return "; ".join(self._notes())

  def _notes(self) -> Iterator[str]:
    for number, of, what in (
      (self._shares, self._boxes, "lie within 0 and 1, as shares do"),
      (self._leaving, self._sized, "leave their image by more than half"),
    ):
      if number > _SUSPECT * of:
        yield f"{self._where}: {number} of {of} boxes {what}"
    if not self._annotated:
      yield (
        "no image with boxes has an annotated one: whether they are pixels "
        "could not be checked"
      )
    elif not self._right or (
      self._annotated >= _FEW and self._right < _SUSPECT * self._annotated
    ):
      count = "none" if not self._right else f"only {self._right}"
      yield (
        f"{count} of {self._annotated} annotated boxes is overlapped by a box "
        f"of the file ({_OVERLAP:g} or more): are they pixels of these images?"
      )

  def _other(self) -> tuple[str, int]:
    """The kind that fits best, and how many annotated boxes it overlaps."""
    hits_of: dict[str, int] = {}
    many = self._annotated >= _LEAST
    for boxes, annotated, size in self._kept:
      read = {name: [of(boxes)] for name, of in _ANYWHERE.items()}
      sizes = _USUAL if many and size is None else (size,)
      for name, of in (_BY_SIZE | (_RARE if many else {})).items():
        read[name] = [
          of(boxes, np.array([x[1], x[0]] * 2, float)) for x in sizes if x
        ]
      for name, kinds in read.items():
        hits = [overlapped(x, annotated, _OTHER_OVERLAP) for x in kinds]
        hits_of[name] = hits_of.get(name, 0) + max(hits, default=0)
    best = max(hits_of, key=hits_of.__getitem__, default="")
    return best, hits_of.get(best, 0)

  def _refuse(self, what: str, which: str) -> None:
    number = self._shares if which == "shares" else self._leaving
    count = "all" if number == self._boxes else f"{number} of"
    raise InputError(
      f"{self._where}: {count} {self._boxes} boxes {what}", self._remedy
    )


def empty_after_cut(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Which boxes of edges [n, 4] lie outside the image: bool [n].

  Args:
    boxes: x1 y1 x2 y2, from 0 to the width and height.
    size: (height, width).
  """
  limit = np.array([size[1], size[0]])
  low = np.maximum(boxes[:, :2], 0)
  high = np.minimum(boxes[:, 2:], limit)
  return ((boxes[:, :2] >= limit) | (boxes[:, 2:] <= 0) | (high < low)).any(1)


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """IoU [n, m] of boxes [n, 4] and [m, 4], pixels with both corners inside."""
  a, b = a[:, None], b[None]
  low = np.maximum(a[..., :2], b[..., :2])
  meet = np.maximum(np.minimum(a[..., 2:], b[..., 2:]) - low + 1, 0)
  shared = meet[..., 0] * meet[..., 1]
  union = _area(a) + _area(b) - shared
  return np.where(union > 0, shared / np.where(union > 0, union, 1), 0)


def _area(boxes: np.ndarray) -> np.ndarray:
  """Area in pixels of boxes [..., 4]: [...]."""
  size = np.maximum(boxes[..., 2:] - boxes[..., :2] + 1, 0)
  return size[..., 0] * size[..., 1]


def overlapped(
  boxes: np.ndarray, annotated: np.ndarray, least: float = _OVERLAP
) -> int:
  """How many of `annotated` [m, 4] any of `boxes` [n, 4] overlaps; n > 0."""
  return int((iou(boxes, annotated).max(axis=0) >= least).sum())
