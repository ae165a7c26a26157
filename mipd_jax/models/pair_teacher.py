"""The teacher branch of interactions: each pair reads inside its two boxes."""

import math
from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool

from input_pipeline import schema
from mipd_jax.models import layers, outputs, pair_geometry
from mipd_jax.models.pair_student import of_the_object
from mipd_jax.models.teacher_branch import TeacherBranch

_FIRST_BIAS = -4.0  # as the student's


class PairTeacherBranch(TeacherBranch):
  """`TeacherBranch` with pairs in the place of roles.

  The instance prompt is stretched into every person's and every object's
  box; a pair, asking by its object's text and what the gaze rationale tells
  it, reads the tokens inside its two boxes.
  """

  def _slot_text(self, batch, banks):
    objects = jnp.maximum(batch[schema.PAIR_OBJECT], 0)
    return layers.unit(banks["noun_text"])[objects]

  def _prompted_boxes(self, batch):
    boxes, mask = batch[schema.PAIR_BOXES], batch[schema.PAIR_MASK]
    both = jnp.concatenate([boxes[..., :4], boxes[..., 4:]], axis=1)
    return pair_geometry.corners(both), jnp.concatenate([mask, mask], axis=1)

  def _inside(self, batch: Mapping[str, Array]) -> Bool[Array, "b p m"]:
    """Tokens that a pair may read: those in either box, all for filler."""
    grid = math.isqrt(batch[schema.TEACHER_TOKENS].shape[1] - 1)
    person, thing = pair_geometry.inside(batch[schema.PAIR_BOXES], grid)
    filler = ~batch[schema.PAIR_MASK][..., None]
    return jnp.concatenate([filler, person | thing | filler], axis=-1)

  def _gaze_scores(self, target, batch, banks):
    bias = self.param("gaze_bias", nn.initializers.constant(_FIRST_BIAS), ())
    text = layers.unit(banks["verb_text"])
    scores = layers.learned_scale(self, "gaze_scale") * (
      layers.unit(target) @ text.T
    )
    return {
      outputs.TEACHER_PAIR_SCORES: of_the_object(scores + bias, batch, banks)
    }
