"""The rules for boxes: how absence is written, clipping, correctness.

The evaluator of files, the evaluation of training, the report and the
predictor's files all use them. They are those of CoFormer's released
evaluation (Cho et al., CVPR 2022, `accuracy_swig_bbox`): a predicted box is cut
to its image, and is correct if its IoU with the annotated box is at least 0.5,
with corners as real numbers.

Boxes are x1, y1, x2, y2 in pixels of the original image.
"""

import math
from typing import Any

import numpy as np

ABSENT = (-1.0, -1.0, -1.0, -1.0)
IOU_THRESHOLD = 0.5
# float32 canvas coordinates give whole pixels back within this share of a side.
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
  """Whether an annotated box marks the absence of a box.

  That is null, or four numbers of which the first is -1: every published
  reader of SWiG checks only the first.
  """
  return value is None or (is_box(value) and value[0] == ABSENT[0])


def is_flipped(box: Any) -> bool:
  """Whether x2 < x1 or y2 < y1, for a box that `is_box` accepts."""
  return box[2] < box[0] or box[3] < box[1]


def cut(corners: np.ndarray, sizes: np.ndarray) -> np.ndarray:
  """Clips boxes to their image; a box outside it gets an area of zero.

  Args:
    corners: [..., 4], NaN stays NaN.
    sizes: height and width [..., 2]; if NaN (unknown), boxes are clipped at 0
      only.

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
  # Without a division, since the area of both boxes may be zero.
  return (intersection >= IOU_THRESHOLD * union) & (union > 0)


def area(corners: np.ndarray) -> np.ndarray:
  """Area of corners [..., 4]; 0 if they are flipped."""
  return np.prod(np.maximum(corners[..., 2:] - corners[..., :2], 0), axis=-1)


def to_canvas(corners: np.ndarray, sizes: np.ndarray) -> np.ndarray:
  """`geometry.Letterbox.boxes_to_canvas` for images of many sizes.

  Args:
    corners: [..., 4] in pixels, all there.
    sizes: height and width [..., 2].

  Returns:
    float32 cx cy w h [..., 4], bitwise equal to those of `Letterbox`.
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
    float64 [..., 4]. The caller handles absent boxes (-1).
  """
  canvas, sizes = np.float64(canvas), np.float64(sizes)[..., ::-1]
  side = sizes.max(axis=-1, keepdims=True)
  margin = (1 - sizes / side) / 2
  centre, half = canvas[..., :2] - margin, canvas[..., 2:] / 2
  return np.concatenate([centre - half, centre + half], axis=-1) * side


def annotated_from_canvas(canvas: np.ndarray, sizes: np.ndarray) -> np.ndarray:
  """`from_canvas` for annotated boxes: whole pixels are restored exactly.

  The dataset keeps boxes as float32 canvas coordinates. A corner within
  rounding error of a whole pixel was one.
  """
  corners = from_canvas(canvas, sizes)
  side = np.float64(sizes).max(axis=-1, keepdims=True)
  whole = np.rint(corners)
  return np.where(np.abs(corners - whole) <= _WHOLE * side, whole, corners)


def as_kept(corners: np.ndarray, sizes: np.ndarray) -> np.ndarray:
  """Annotated corners as an evaluation reads them from the dataset.

  Equal to the last bit, so that both evaluations agree: float32 pixels in the
  records, float32 canvas coordinates in a batch, pixels again.

  Args:
    corners: [..., 4], clipped to the image.
    sizes: height and width [..., 2].
  """
  return annotated_from_canvas(to_canvas(np.float32(corners), sizes), sizes)


def _is_finite(number: float) -> bool:
  try:
    return math.isfinite(number)
  except OverflowError:  # an integer too large for float64
    return False
