"""Visual prompts: learned vectors added to the teacher's patch grid.

The scene-aware prompt lies on the border of the grid, the
instance-perception prompt is a learned map stretched into each annotated box
(paper, section on visual prompting; reference `EdgePrompter`, `boxprompter`).

Both are functions of the grid alone, so that they can be added before or
after a linear projection of the tokens: `project(tokens + prompt)` equals
`project(tokens) + prompt @ kernel`.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

MAP_SIDE = 32  # the reference's base prompt is 32 x 32


def scene_prompt(
  top: Float[Array, "d"],
  bottom: Float[Array, "d"],
  left: Float[Array, "d"],
  right: Float[Array, "d"],
  grid: int,
) -> Float[Array, "g g d"]:
  """Border vectors on a grid of zeros; a corner gets the sum of two."""
  cell = jnp.arange(grid)
  first, last = (cell == 0)[:, None], (cell == grid - 1)[:, None]
  rows = jnp.where(first, top, 0) + jnp.where(last, bottom, 0)
  columns = jnp.where(first, left, 0) + jnp.where(last, right, 0)
  return rows[:, None, :] + columns[None, :, :]


def corners(boxes_cxcywh: Float[Array, "*b 4"]) -> Float[Array, "*b 4"]:
  """cx cy w h -> x1 y1 x2 y2."""
  centre, half = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:] / 2
  return jnp.concatenate([centre - half, centre + half], axis=-1)


def box_cells(
  boxes_xyxy: Float[Array, "*b 4"], grid: int
) -> Int[Array, "*b 4"]:
  """Cells (x first, y first, x last, y last) that boxes cover, inclusive.

  Corners may come in any order, as in the reference.

  Args:
    boxes_xyxy: corners as shares of the side that the grid spans.
    grid: cells per side.
  """
  cells = jnp.floor(boxes_xyxy.astype(jnp.float32) * grid)
  cells = jnp.clip(cells, 0, grid - 1).astype(jnp.int32)
  a, b = cells[..., :2], cells[..., 2:]
  return jnp.concatenate([jnp.minimum(a, b), jnp.maximum(a, b)], axis=-1)


def box_cell_mask(
  cells: Int[Array, "*b 4"], grid: int
) -> Bool[Array, "*b g g"]:
  """True for the cells [row, column] inside each box."""
  index = jnp.arange(grid)
  x_low, y_low, x_high, y_high = jnp.split(cells, 4, axis=-1)
  column = (index >= x_low) & (index <= x_high)
  row = (index >= y_low) & (index <= y_high)
  return row[..., :, None] & column[..., None, :]


def _resize_weights(
  low: Int[Array, "*b"], high: Int[Array, "*b"], grid: int, side: int
) -> Float[Array, "*b g s"]:
  """Bilinear weights of a map of `side` stretched over cells low..high.

  Half-pixel centres, clamped edges, no antialiasing (`jax.image.resize`
  antialiases unless told not to).
  """
  length = (high - low + 1).astype(jnp.float32)[..., None]
  cell = jnp.arange(grid) - low[..., None]
  source = (side / length) * (cell + 0.5) - 0.5  # rounds as PyTorch's
  source = jnp.clip(source, 0, side - 1)
  distance = jnp.abs(source[..., None] - jnp.arange(side))
  return jnp.maximum(1 - distance, 0)


def instance_weights(
  boxes_xyxy: Float[Array, "b r 4"],
  box_mask: Bool[Array, "b r"],
  grid: int,
  side: int,
) -> Float[Array, "b g*g s*s"]:
  """Each cell's weights on a map of `side`; earlier boxes win overlaps.

  Args:
    boxes_xyxy: corners as shares of the side that the grid spans.
    box_mask: False for boxes to skip.
    grid: cells per side.
    side: cells per side of the map.
  """
  cells = box_cells(boxes_xyxy, grid)
  inside = box_cell_mask(cells, grid) & box_mask[..., None, None]
  earlier = jnp.cumsum(inside, axis=1) - inside
  wins = (inside & (earlier == 0)).astype(jnp.float32)
  x_low, y_low, x_high, y_high = jnp.moveaxis(cells, -1, 0)
  rows = _resize_weights(y_low, y_high, grid, side)
  columns = _resize_weights(x_low, x_high, grid, side)
  weights = jnp.einsum("brij,brik,brjl->bijkl", wins, rows, columns)
  return weights.reshape(-1, grid * grid, side * side)


def instance_prompt(
  base: Float[Array, "s s d"],
  boxes_xyxy: Float[Array, "b r 4"],
  box_mask: Bool[Array, "b r"],
  grid: int,
) -> Float[Array, "b g g d"]:
  """The base map stretched into every box; earlier boxes win overlaps.

  Args:
    base: learned map.
    boxes_xyxy: corners as shares of the side that the grid spans.
    box_mask: False for boxes to skip.
    grid: cells per side.
  """
  side, _, width = base.shape
  weights = instance_weights(boxes_xyxy, box_mask, grid, side)
  prompt = weights.astype(base.dtype) @ base.reshape(side * side, width)
  return prompt.reshape(-1, grid, grid, width)
