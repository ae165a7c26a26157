"""Ways to show a frozen model one instance of an image.

This is the instance-perception prompt where the model's layers still compute:
in pixels (Shtedritski et al. 2023, "What does CLIP know about a red circle?";
Gu et al. 2022, ViLD's crops), or by reading only the tokens in the box.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

TOKENS, CROP, BLUR, OUTLINE = "tokens", "crop", "blur", "outline"
# `tokens` costs no further pass of the image tower.
WAYS = (TOKENS, CROP, BLUR, OUTLINE)
_RED = (230, 30, 30)
_THICKNESS = 0.012  # of the outline, as a share of the side
_BLUR = 0.03  # standard deviation, as a share of the side
# Crops are taken of a larger canvas: a small box has more pixels there.
CROP_CANVAS = 2

Show = Callable[[UInt8[Array, "i s s 3"], Float[Array, "i 4"]], Array]


def canvas_side(way: str, side: int) -> int:
  """Side of the square image that a way needs, pixels.

  Args:
    way: of `WAYS`.
    side: of the model's input.
  """
  return CROP_CANVAS * side if way == CROP else side


def shower(way: str, side: int, margin: float) -> Show:
  """A pure function of images [i, s, s, 3] and boxes [i, 4] in `way`.

  Args:
    way: of `WAYS`, but not "tokens", which shows no other pixels.
    side: of the model's input; s is `canvas_side(way, side)`.
    margin: the box grows by this share of its longer side on each side.

  Returns:
    A function that gives uint8 [i, side, side, 3]. Boxes are corners as
    shares of the side.
  """

  def show(pixels, boxes):
    grown = grow(boxes, margin)
    one = {CROP: _crop, BLUR: _blur, OUTLINE: _outline}[way]
    shown = jax.vmap(lambda image, box: one(image, box, side))(pixels, grown)
    return jnp.clip(jnp.round(shown), 0, 255).astype(jnp.uint8)

  return show


def grow(
  boxes_xyxy: Float[Array, "*b 4"], margin: float
) -> Float[Array, "*b 4"]:
  """Boxes with a margin of a share of their longer side, within the image."""
  low, high = boxes_xyxy[..., :2], boxes_xyxy[..., 2:]
  more = margin * jnp.max(high - low, axis=-1, keepdims=True)
  return jnp.clip(jnp.concatenate([low - more, high + more], axis=-1), 0, 1)


def _crop(image: Array, box: Array, side: int) -> Array:
  """The square around the box, resized to `side`.

  A square keeps the proportions; beyond the image it shows the border.
  """
  canvas = image.shape[0]
  centre = (box[:2] + box[2:]) / 2
  extent = jnp.maximum(jnp.max(box[2:] - box[:2]), 1 / canvas)
  low = jnp.clip(centre - extent / 2, 0, jnp.maximum(1 - extent, 0))
  scale = side / (extent * canvas)
  # Rows are y, columns x.
  move = -low[::-1] * canvas * scale
  return jax.image.scale_and_translate(
    image.astype(jnp.float32),
    (side, side, 3),
    (0, 1),
    jnp.stack([scale, scale]),
    move,
    "linear",
    antialias=True,
  )


def _inside(box: Array, side: int) -> Array:
  """Bool [side, side, 1]: pixels whose centre is in the box."""
  place = (jnp.arange(side) + 0.5) / side
  column = (place >= box[0]) & (place <= box[2])
  row = (place >= box[1]) & (place <= box[3])
  return (row[:, None] & column[None, :])[..., None]


def _blur(image: Array, box: Array, side: int) -> Array:
  """The image, blurred outside the box."""
  pixels = image.astype(jnp.float32)
  radius = max(1, round(3 * _BLUR * side))
  offsets = jnp.arange(-radius, radius + 1)
  kernel = jnp.exp(-0.5 * (offsets / (_BLUR * side)) ** 2)
  kernel = kernel / kernel.sum()
  room = [(radius, radius), (0, 0), (0, 0)]
  blurred = pixels
  for _ in range(2):  # along rows, then, transposed, along columns
    padded = jnp.pad(blurred, room, mode="edge")
    rows = [
      kernel[k] * padded[k : k + image.shape[0]] for k in range(len(offsets))
    ]
    blurred = sum(rows).swapaxes(0, 1)
  return jnp.where(_inside(box, side), pixels, blurred)


def _outline(image: Array, box: Array, side: int) -> Array:
  """The image with a red rectangle around the box."""
  thick = max(1 / side, _THICKNESS)
  outer = box + jnp.array([-thick, -thick, thick, thick])
  rim = _inside(outer, side) & ~_inside(box, side)
  return jnp.where(rim, jnp.array(_RED, jnp.float32), image.astype(jnp.float32))
