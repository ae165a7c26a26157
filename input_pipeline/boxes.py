"""One rule for boxes: what stands for none, what is cut, what is right.

The evaluator of files, the evaluation of training, the report and the
predictor's files all use it. It is that of CoFormer's released evaluation
(Cho et al., CVPR 2022, `accuracy_swig_bbox`): a predicted box is cut to its
image, and is right where its IoU with the annotated one, both taken as
real-valued corners, is at least 0.5.

Boxes are x1, y1, x2, y2 in pixels of the original image.
"""

import math
from typing import Any

import numpy as np

ABSENT = (-1.0, -1.0, -1.0, -1.0)
IOU_THRESHOLD = 0.5
# float32 shares of a canvas give back whole pixels to this share of its side.
_WHOLE = 2.0**-22


def is_box(value: Any) -> bool:
  """Whether parsed JSON is a list of four finite numbers."""
  return (
    isinstance(value, (list, tuple))
    and len(value) == 4
    and all(
      isinstance(x, (int, float)) and not isinstance(x, bool) for x in value
    )
    and all(_is_finite(x) for x in value)
  )


def is_absent(value: Any) -> bool:
  """Whether an annotated box says that there is none.

  That is null, or four numbers of which the first is -1: every published
  reader of SWiG looks at the first alone.
  """
  return value is None or (is_box(value) and value[0] == ABSENT[0])


def is_flipped(box: Any) -> bool:
  """Whether x2 < x1 or y2 < y1, for a box as `is_box` takes it."""
  return box[2] < box[0] or box[3] < box[1]


def cut(corners: np.ndarray, sizes: np.ndarray) -> np.ndarray:
  """Cuts boxes to their image; what lies outside becomes a box without area.

  Args:
    corners: [..., 4], NaN stays NaN.
    sizes: height and width [..., 2], NaN where unknown: then a box is cut at
      0 alone.

  Returns:
    float64 [..., 4].
  """
  corners = np.asarray(corners, np.float64)
  high = np.asarray(sizes, np.float64)[..., [1, 0, 1, 0]]
  inside = np.fmin(np.maximum(corners, 0), high)  # fmin skips an unknown size
  return np.where(np.isnan(corners), np.nan, inside)


def right(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
  """Whether each grounding is right: bool [...].

  Args:
    predicted, true: corners [..., 4]; NaN where there is no box.

  Returns:
    True where both are there and overlap enough, or where neither is there.
  """
  exists, given = ~np.isnan(true[..., 0]), ~np.isnan(predicted[..., 0])
  return np.where(exists, given & overlaps(predicted, true), ~given)


def overlaps(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
  """Whether IoU reaches the threshold: bool [...]; False for NaN."""
  low = np.maximum(predicted[..., :2], true[..., :2])
  high = np.minimum(predicted[..., 2:], true[..., 2:])
  intersection = np.prod(np.maximum(high - low, 0), axis=-1)
  union = area(predicted) + area(true) - intersection
  # Not a division, which a pair without area could not take.
  return (intersection >= IOU_THRESHOLD * union) & (union > 0)


def area(corners: np.ndarray) -> np.ndarray:
  """Area of [..., 4] corners; 0 where they are the wrong way round."""
  return np.prod(np.maximum(corners[..., 2:] - corners[..., :2], 0), axis=-1)


def to_canvas(corners: np.ndarray, sizes: np.ndarray) -> np.ndarray:
  """`geometry.Letterbox.boxes_to_canvas` for images of many sizes.

  Args:
    corners: [..., 4] in pixels, all there.
    sizes: height and width [..., 2].

  Returns:
    float32 cx cy w h [..., 4], the same bits.
  """
  corners, sizes = np.float64(corners), np.float64(sizes)[..., ::-1]
  scale = 1 / sizes.max(axis=-1, keepdims=True)
  margin = (1 - sizes * scale) / 2
  low = corners[..., :2] * scale + margin
  high = corners[..., 2:] * scale + margin
  canvas = np.concatenate([(low + high) / 2, high - low], axis=-1)
  return canvas.astype(np.float32)


def from_canvas(canvas: np.ndarray, sizes: np.ndarray) -> np.ndarray:
  """cx cy w h on the canvas of `geometry.Letterbox` -> corners in pixels.

  Args:
    canvas: [..., 4] shares of the canvas side.
    sizes: height and width [..., 2] of the originals, pixels.

  Returns:
    float64 [..., 4]. Absent boxes (-1) are the caller's to take out.
  """
  canvas, sizes = np.float64(canvas), np.float64(sizes)[..., ::-1]
  side = sizes.max(axis=-1, keepdims=True)
  margin = (1 - sizes / side) / 2
  centre, half = canvas[..., :2] - margin, canvas[..., 2:] / 2
  return np.concatenate([centre - half, centre + half], axis=-1) * side


def annotated_from_canvas(canvas: np.ndarray, sizes: np.ndarray) -> np.ndarray:
  """`from_canvas` for annotated boxes: whole pixels come back whole.

  The dataset keeps boxes as float32 shares of the canvas. What is within
  rounding of a whole pixel was one.
  """
  corners = from_canvas(canvas, sizes)
  side = np.float64(sizes).max(axis=-1, keepdims=True)
  whole = np.rint(corners)
  return np.where(np.abs(corners - whole) <= _WHOLE * side, whole, corners)


def as_kept(corners: np.ndarray, sizes: np.ndarray) -> np.ndarray:
  """Annotated corners as an evaluation has them from the dataset.

  The same numbers to the last bit, so that both judge alike: float32 pixels
  in the records, float32 shares of the canvas in a batch, pixels again.

  Args:
    corners: [..., 4], cut to the image.
    sizes: height and width [..., 2].
  """
  return annotated_from_canvas(to_canvas(np.float32(corners), sizes), sizes)


def _is_finite(number: float) -> bool:
  try:
    return math.isfinite(number)
  except OverflowError:  # a whole number beyond float64
    return False
