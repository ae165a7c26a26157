"""Box operations on jax arrays; boxes are matched row by row."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def to_corners(boxes: Float[Array, "*b 4"]) -> Float[Array, "*b 4"]:
  """cx cy w h -> x1 y1 x2 y2."""
  centre, half = boxes[..., :2], boxes[..., 2:] / 2
  return jnp.concatenate([centre - half, centre + half], axis=-1)


def to_centres(boxes: Float[Array, "*b 4"]) -> Float[Array, "*b 4"]:
  """x1 y1 x2 y2 -> cx cy w h."""
  low, high = boxes[..., :2], boxes[..., 2:]
  return jnp.concatenate([(low + high) / 2, high - low], axis=-1)


def area(corners: Float[Array, "*b 4"]) -> Float[Array, "*b"]:
  size = corners[..., 2:] - corners[..., :2]
  return size[..., 0] * size[..., 1]


def iou_and_union(
  a: Float[Array, "*b 4"], b: Float[Array, "*b 4"]
) -> tuple[Float[Array, "*b"], Float[Array, "*b"]]:
  """Intersection over union of corner boxes, and the union's area.

  Two boxes without area have IoU 0.
  """
  low = jnp.maximum(a[..., :2], b[..., :2])
  high = jnp.minimum(a[..., 2:], b[..., 2:])
  size = jnp.maximum(high - low, 0)
  intersection = size[..., 0] * size[..., 1]
  union = area(a) + area(b) - intersection
  return _ratio(intersection, union), union


def giou(
  a: Float[Array, "*b 4"], b: Float[Array, "*b 4"]
) -> Float[Array, "*b"]:
  """Generalised IoU (Rezatofighi et al. 2019) of corner boxes."""
  iou, union = iou_and_union(a, b)
  low = jnp.minimum(a[..., :2], b[..., :2])
  high = jnp.maximum(a[..., 2:], b[..., 2:])
  size = jnp.maximum(high - low, 0)
  hull = size[..., 0] * size[..., 1]
  return iou - _ratio(hull - union, hull)


def _ratio(part: Array, whole: Array) -> Array:
  """part / whole, 0 where whole is 0, with a finite gradient there."""
  positive = whole > 0
  return jnp.where(positive, part / jnp.where(positive, whole, 1), 0)
