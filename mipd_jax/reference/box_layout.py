"""The reference's image geometry: 246 to 336 pixels on a 336 canvas.

The shorter side becomes 246 pixels, unless the longer one would exceed 336;
then that becomes 336. The image is centred on a square of 336. It is used for
boxes only: the CLIP and BLIP features have geometries of their own (fault
table, row 4). Ours is `input_pipeline.geometry`.
"""

import dataclasses

import numpy as np

CANVAS = 336  # side, pixels
SHORTER_SIDE = 246
ABSENT = -1.0


@dataclasses.dataclass(frozen=True)
class Placement:
  """Where an image lies on the canvas, in pixels.

  Attributes:
    width, height: of the resized image.
    shift_0, shift_1: rows above it and columns left of it.
    scale: canvas pixels per original pixel.
  """

  width: int
  height: int
  shift_0: int
  shift_1: int
  scale: float


def place(width: int, height: int) -> Placement:
  """Placement of an image of `width` x `height` pixels."""
  scale = min(SHORTER_SIDE / min(width, height), CANVAS / max(width, height))
  # Python rounds half to even, as the reference does.
  resized = round(width * scale), round(height * scale)
  left, top = ((CANVAS - side) // 2 for side in resized)
  return Placement(*resized, shift_0=top, shift_1=left, scale=scale)


def mirror(boxes_xyxy: np.ndarray, width: int) -> np.ndarray:
  """Mirrors corners [..., 4] of an image of `width` pixels, x -> width - x.

  Absent boxes, those with a first coordinate of -1, stay.
  """
  boxes = np.asarray(boxes_xyxy, np.float32)
  mirrored = boxes.copy()
  mirrored[..., 0] = width - boxes[..., 2]
  mirrored[..., 2] = width - boxes[..., 0]
  return np.where(boxes[..., :1] == ABSENT, boxes, mirrored)


def to_canvas(boxes_xyxy: np.ndarray, placement: Placement) -> np.ndarray:
  """Corners [..., 4] in original pixels -> in canvas pixels, float32.

  Coordinates of -1 are missing and stay -1.
  """
  boxes = np.asarray(boxes_xyxy, np.float32)
  shift = np.array([placement.shift_1, placement.shift_0] * 2, np.float32)
  moved = boxes * np.float32(placement.scale) + shift
  return np.where(boxes == ABSENT, boxes, moved)


def normalise(boxes_xyxy_px: np.ndarray, *, truth: bool) -> np.ndarray:
  """Canvas pixels, corners -> shares of the canvas, cx cy w h, float32.

  Args:
    boxes_xyxy_px: [..., 4].
    truth: rows whose centre is at x = -1 are absent and become -1. The rule
      is the reference's, for annotations; predictions are only divided.
  """
  boxes = np.asarray(boxes_xyxy_px, np.float32)
  low, high = boxes[..., :2], boxes[..., 2:]
  centred = np.concatenate([(low + high) / 2, high - low], axis=-1)
  shares = centred / np.float32(CANVAS)
  return np.where(truth & (centred[..., :1] == ABSENT), ABSENT, shares)


def to_pixels(boxes_cxcywh: np.ndarray, *, truth: bool) -> np.ndarray:
  """The inverse of `normalise`, float32 corners.

  Args:
    boxes_cxcywh: [..., 4] shares of the canvas.
    truth: rows whose left edge is negative become -1, as in the reference.
  """
  boxes = np.asarray(boxes_cxcywh, np.float32)
  centre, half = boxes[..., :2], boxes[..., 2:] / 2
  corners = np.concatenate([centre - half, centre + half], axis=-1)
  corners *= np.float32(CANVAS)
  return np.where(truth & (corners[..., :1] < 0), ABSENT, corners)
