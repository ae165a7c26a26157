"""What teaches the student's eyes; training only.

Role queries find their boxes and tell their nouns at once. In `BoxNouns` the
box is given, so that what is learnt is seeing alone; in `Foretelling` the
student's patches foretell the teacher's, which needs no label. With eyes that
are trained both change the tokens that the roles of unseen verbs read, too.
"""

import math
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from input_pipeline import schema
from mipd_jax.models import layers, outputs, visual_prompts
from mipd_jax.models.config import ModelConfig


class BoxNouns(nn.Module):
  """The mean of the tokens in each role's box, compared with noun texts."""

  config: ModelConfig
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self,
    tokens: Float[Array, "b n s"],
    batch: Mapping[str, Array],
    banks: Mapping[str, Array],
  ) -> dict[str, Array]:
    """Returns BOX_NOUN_SCORES of `models.outputs`; 0 for roles without a box.

    Args:
      tokens: of the student's eyes, class token first.
      batch: BOXES, BOX_MASK of the batch contract.
      banks: text embeddings of the vocabulary.
    """
    grid = math.isqrt(tokens.shape[1] - 1)
    corners = visual_prompts.corners(batch[schema.BOXES])
    cells = visual_prompts.box_cells(corners, grid)
    inside = visual_prompts.box_cell_mask(cells, grid)
    inside = inside.reshape(*inside.shape[:2], grid * grid)
    inside = inside & batch[schema.BOX_MASK][..., None]
    share = inside / jnp.maximum(inside.sum(axis=-1, keepdims=True), 1)
    pooled = jnp.einsum(
      "brn,bns->brs",
      share.astype(self.dtype),
      tokens[:, 1:].astype(self.dtype),
    )
    pooled = layers.layer_norm("norm", self.dtype)(pooled)
    text = layers.unit(banks["noun_text"])
    embedding = layers.Linear(text.shape[-1], self.dtype, name="out")(pooled)
    scores = layers.learned_scale(self, "scale") * (
      layers.unit(embedding) @ text.T
    )
    return {
      outputs.BOX_NOUN_SCORES: jnp.where(
        batch[schema.BOX_MASK][..., None], scores, 0
      )
    }


class Foretelling(nn.Module):
  """The student's grid at the teacher's places, through one linear map.

  Both see one canvas, so a patch of the teacher lies where some of the
  student's do (FitNets, Romero et al. 2015, arXiv 1412.6550).
  """

  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self, tokens: Float[Array, "b n s"], batch: Mapping[str, Array]
  ) -> dict[str, Array]:
    """Returns FORETOLD of `models.outputs`.

    Args:
      tokens: of the student's eyes, class token first.
      batch: TEACHER_TOKENS gives the shape alone.
    """
    patches, width = batch[schema.TEACHER_TOKENS].shape[1:]
    mine, theirs = (math.isqrt(n - 1) for n in (tokens.shape[1], patches))
    grid = tokens[:, 1:].astype(self.dtype)
    grid = grid.reshape(len(grid), mine, mine, -1)
    shape = (len(grid), theirs, theirs, grid.shape[-1])
    grid = jax.image.resize(grid, shape, "linear")
    grid = layers.layer_norm("norm", self.dtype)(grid)
    told = layers.Linear(width, self.dtype, name="out")(grid)
    return {outputs.FORETOLD: told.reshape(len(told), theirs * theirs, width)}
