"""Teachers: whose image tokens and verb logits are distilled.

A teacher looks at a batch of letterboxed pixels once (`see`); what the cache
keeps of it are its tokens, a class token and then a square grid, and its
logits over the verbs (`scorer`). Add another teacher here.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from input_pipeline.vocabulary import Vocabulary
from mipd_jax import sharding
from mipd_jax.teachers import labels
from mipd_jax.teachers.encoding import Encoder, zero_shot_logits

# The verbs in a CLIP teacher's own text space.
TEACHER_VERB_TEXT = "teacher_verb_text"

Params = Any
Seen = Mapping[str, jax.Array]  # "tokens" [B, M, T], and what a scorer needs
Scorer = Callable[[Params, Seen], jax.Array]


class ImageTeacher(Protocol):
  """What a cache needs of a teacher.

  Attributes:
    name, revision: of the checkpoint; part of the cache's plan.
    image_size: side of the square input, pixels.
    params: nested dict of arrays.
    options: whatever else its features depend on, name -> value.
  """

  name: str
  revision: str
  image_size: int
  params: Params
  options: Mapping[str, str]

  def shardings(self, mesh: Mesh) -> Any:
    """Where the parameters lie: a tree, or one sharding for all."""
    ...

  def see(self, params: Params, pixels: jax.Array) -> Seen:
    """uint8 [B, H, W, 3] -> {"tokens" [B, M, T], ...}; pure."""
    ...

  def verb_bank(
    self, vocabulary: Vocabulary, mesh: Mesh
  ) -> dict[str, np.ndarray]:
    """What `scorer` needs of the verbs; kept in the cache's labels."""
    ...

  def scorer(self, bank: Mapping[str, np.ndarray]) -> Scorer:
    """(params, seen) -> verb logits float32 [B, V]; pure."""
    ...


class ClipTeacher:
  """A CLIP as teacher; its logits are scaled cosines of image and label.

  Radford et al. 2021, figure 3.
  """

  options: Mapping[str, str] = {"verb_logits": "zero-shot"}

  def __init__(self, clip: Encoder):
    self._clip = clip
    self.name, self.revision = clip.name, clip.revision
    self.image_size, self.params = clip.image_size, clip.params

  def shardings(self, mesh: Mesh) -> Any:
    return sharding.replicated(mesh)

  def see(self, params: Params, pixels: jax.Array) -> Seen:
    tokens, image = self._clip.image_features(params, pixels)
    return {"tokens": tokens, "image": image}

  def verb_bank(
    self, vocabulary: Vocabulary, mesh: Mesh
  ) -> dict[str, np.ndarray]:
    prompts = labels.verb_prompts(vocabulary)
    return {TEACHER_VERB_TEXT: labels.text_bank(self._clip, prompts, mesh)}

  def scorer(self, bank: Mapping[str, np.ndarray]) -> Scorer:
    text, scale = bank[TEACHER_VERB_TEXT], self._clip.logit_scale

    def score(params: Params, seen: Seen) -> jax.Array:
      del params
      return zero_shot_logits(seen["image"], text, scale)

    return score
