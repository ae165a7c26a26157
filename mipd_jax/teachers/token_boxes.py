"""Boxes on an image encoder's grid of tokens."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def coverage(
  boxes_xyxy: Float[Array, "*b 4"], grid: int
) -> Float[Array, "*b g*g"]:
  """The share of each cell of a grid that a box covers, row by row.

  Args:
    boxes_xyxy: corners as shares of the side that the grid spans.
    grid: cells per side.
  """
  edges = jnp.arange(grid + 1) / grid

  def covered(low: Float[Array, "*b"], high: Float[Array, "*b"]):
    upper = jnp.minimum(high[..., None], edges[1:])
    return jnp.maximum(upper - jnp.maximum(low[..., None], edges[:-1]), 0)

  x1, y1, x2, y2 = jnp.moveaxis(boxes_xyxy, -1, 0)
  area = covered(y1, y2)[..., :, None] * covered(x1, x2)[..., None, :]
  return area.reshape(*area.shape[:-2], grid * grid) * grid**2


def token_coverage(
  boxes_xyxy: Float[Array, "*b 4"], num_tokens: int
) -> Float[Array, "*b n"]:
  """`coverage` with a leading 0 for the token of the whole image."""
  covered = coverage(boxes_xyxy, round((num_tokens - 1) ** 0.5))
  return jnp.concatenate([jnp.zeros_like(covered[..., :1]), covered], axis=-1)


def pooled(
  tokens_BxNxS: Float[Array, "b n s"], boxes_BxKx4: Float[Array, "b k 4"]
) -> Float[Array, "b k s"]:
  """Mean of the tokens in each box, by covered area; 0 without area.

  Args:
    tokens_BxNxS: token 0 for the whole image, then a square grid.
    boxes_BxKx4: corners as shares of the image's side.
  """
  grid = round((tokens_BxNxS.shape[1] - 1) ** 0.5)
  covered = coverage(boxes_BxKx4, grid)
  whole = jnp.sum(covered, axis=-1, keepdims=True)
  share = (covered / jnp.where(whole > 0, whole, 1)).astype(tokens_BxNxS.dtype)
  return jnp.einsum("bkn,bns->bks", share, tokens_BxNxS[:, 1:])
