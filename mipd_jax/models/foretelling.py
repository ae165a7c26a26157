"""The teacher's patches, foretold by the student's; training only.

Both see one canvas, so a patch of the teacher lies where some of the student's
do. Foretelling it teaches eyes that are trained what the teacher sees there,
without a label (FitNets, Romero et al. 2015, arXiv 1412.6550).
"""

import math
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from input_pipeline import schema
from mipd_jax.models import layers, outputs


class Foretelling(nn.Module):
  """The student's grid at the teacher's places, through one linear map."""

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
