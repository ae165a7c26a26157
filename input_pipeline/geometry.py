"""One image geometry, shared by image tokens, boxes, prompts and drawings.

An image is scaled so that its longer side fills a square canvas, and centred
on it (letterbox). Both encoders see that square, each at its own resolution,
so a box in shares of the canvas side is valid for both. The reference has
three geometries instead (docs/method.md).
"""

import dataclasses

import numpy as np
from PIL import Image

# The mean of CLIP's normalisation, so that the border is zero to the encoder.
BORDER_RGB = (123, 117, 104)


@dataclasses.dataclass(frozen=True)
class Letterbox:
  """The place of an image of `height` x `width` pixels on the unit canvas."""

  height: int
  width: int

  @property
  def scale(self) -> float:
    """Canvas sides per original pixel."""
    return 1.0 / max(self.height, self.width)

  @property
  def offset(self) -> tuple[float, float]:
    """Left and top margin, in canvas sides."""
    return (
      (1.0 - self.width * self.scale) / 2,
      (1.0 - self.height * self.scale) / 2,
    )

  def boxes_to_canvas(self, boxes_xyxy: np.ndarray) -> np.ndarray:
    """[..., 4] pixel corners -> [..., 4] cx cy w h on the unit canvas.

    Rows with a negative first coordinate are absent and become all -1.
    """
    boxes = np.asarray(boxes_xyxy, np.float64)
    shift = np.array(self.offset)
    low = boxes[..., :2] * self.scale + shift
    high = boxes[..., 2:] * self.scale + shift
    canvas = np.concatenate([(low + high) / 2, high - low], axis=-1)
    return np.where(boxes[..., :1] < 0, -1.0, canvas).astype(np.float32)

  def boxes_to_pixels(self, boxes_cxcywh: np.ndarray) -> np.ndarray:
    """The inverse of `boxes_to_canvas`; absent boxes stay all -1."""
    boxes = np.asarray(boxes_cxcywh, np.float64)
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    shift = np.array(self.offset)
    corners = np.concatenate(
      [(centre - half - shift), (centre + half - shift)], axis=-1
    )
    pixels = corners / self.scale
    return np.where(boxes[..., 2:3] < 0, -1.0, pixels).astype(np.float32)


def letterbox_image(image: Image.Image, size: int) -> np.ndarray:
  """Draws an image on the canvas: uint8 [size, size, 3], RGB."""
  image = image.convert("RGB")
  box = Letterbox(image.height, image.width)
  width = max(1, round(image.width * box.scale * size))
  height = max(1, round(image.height * box.scale * size))
  resized = image.resize((width, height), Image.Resampling.BICUBIC)
  canvas = Image.new("RGB", (size, size), BORDER_RGB)
  canvas.paste(resized, ((size - width) // 2, (size - height) // 2))
  return np.asarray(canvas)
