"""What the boxes of a pair are to each other, as numbers.

The features are those of Zhang et al. 2021, "Spatially conditioned graphs for
detecting human-object interactions" (section 3.3), without their logarithms
of all: areas and ratios only. Boxes are shares of the canvas side.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mipd_jax.models import visual_prompts

FEATURES = 19
_SMALL = 1e-4
_FAR = 5.0  # offsets and log ratios are cut there: a pair may be any two boxes


def corners(boxes_cxcywh: Float[Array, "*b 4"]) -> Float[Array, "*b 4"]:
  """cx cy w h -> x1 y1 x2 y2."""
  centre, half = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:] / 2
  return jnp.concatenate([centre - half, centre + half], axis=-1)


def features(pairs: Float[Array, "*b 8"]) -> Float[Array, "*b 19"]:
  """Geometry of pairs, float32 of about one.

  Args:
    pairs: cx cy w h of the person, then of the object.

  Returns:
    The eight numbers; cx cy w h of the box around both; the object's centre
    less the person's, in widths and heights of the person; log of the ratios
    of widths and of heights, object to person; both areas, square roots; IoU.
  """
  pairs = pairs.astype(jnp.float32)
  person, thing = pairs[..., :4], pairs[..., 4:]
  a, b = corners(person), corners(thing)
  low = jnp.minimum(a[..., :2], b[..., :2])
  high = jnp.maximum(a[..., 2:], b[..., 2:])
  around = jnp.concatenate([(low + high) / 2, high - low], axis=-1)
  size = jnp.maximum(person[..., 2:], _SMALL)
  offset = (thing[..., :2] - person[..., :2]) / size
  ratio = jnp.log(jnp.maximum(thing[..., 2:], _SMALL) / size)
  areas = jnp.stack([_area(person), _area(thing)], axis=-1)
  meet = jnp.maximum(
    jnp.minimum(a[..., 2:], b[..., 2:]) - jnp.maximum(a[..., :2], b[..., :2]), 0
  )
  shared = meet[..., 0] * meet[..., 1]
  union = areas.sum(axis=-1) - shared
  iou = shared / jnp.maximum(union, _SMALL**2)
  return jnp.concatenate(
    [
      *(pairs, around),
      *(jnp.clip(x, -_FAR, _FAR) for x in (offset, ratio)),
      *(jnp.sqrt(areas), iou[..., None]),
    ],
    axis=-1,
  )


def _area(boxes: Float[Array, "*b 4"]) -> Float[Array, "*b"]:
  return jnp.maximum(boxes[..., 2] * boxes[..., 3], 0)


def inside(
  pairs: Float[Array, "b p 8"], grid: int
) -> tuple[Bool[Array, "b p g*g"], Bool[Array, "b p g*g"]]:
  """Cells of a square grid that lie in the person's and the object's box.

  Every box has one at least.
  """

  def cells(boxes: Array) -> Int[Array, "b p 4"]:
    return visual_prompts.box_cells(corners(boxes), grid)

  def flat(boxes: Array) -> Bool[Array, "b p g*g"]:
    mask = visual_prompts.box_cell_mask(cells(boxes), grid)
    return mask.reshape(*mask.shape[:-2], grid * grid)

  return flat(pairs[..., :4]), flat(pairs[..., 4:])
