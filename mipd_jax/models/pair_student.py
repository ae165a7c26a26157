"""The student of interactions: pairs of boxes as the decoder's queries."""

import math
from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from input_pipeline import schema
from mipd_jax.models import layers, outputs, pair_geometry
from mipd_jax.models.student import Student

# What of an embedding bank says which object an interaction is with.
VERB_OBJECT = "verb_object"  # int32 [V]
# The first share of hits among (pair, interaction): one of about 50.
_FIRST_BIAS = -4.0


class PairStudent(Student):
  """Image tokens, pairs of boxes and text banks to interactions of each pair.

  The encoder's projection, the image's own embedding and the decoder are
  `Student`'s; a query is what a pair of boxes shows rather than what a role
  is called. `banks` holds `verb_text` [V, E] (the interactions' texts),
  `verb_object` [V] and `noun_text` [O, E] (the objects'): any lists.
  """

  @nn.compact
  def __call__(
    self,
    tokens_BxNxS: Float[Array, "b n s"],
    pairs: Mapping[str, Array],
    banks: Mapping[str, Array],
    *,
    train: bool = False,
  ) -> dict[str, Array]:
    """Returns the student half of `models.outputs` for interactions.

    Args:
      tokens_BxNxS: image tokens, class token first.
      pairs: PAIR_BOXES, PAIR_OBJECT, PAIR_MASK of the batch contract.
      banks: text embeddings of the vocabulary.
      train: whether dropout is on (RNG stream "dropout").
    """
    tokens, memory = self._read(tokens_BxNxS, train)
    result = self._verb(tokens, memory, banks["verb_text"], train)
    queries = self._pair_queries(tokens, pairs, banks["noun_text"], train)
    decoded = self._decode(queries, memory, pairs[schema.PAIR_MASK], train)
    scene = result[outputs.VERB_SCORES]
    return result | self._interactions(decoded, scene, pairs, banks)

  def _pair_queries(self, tokens, pairs, noun_text, train):
    """One query a pair: where its boxes are, what they show, what the object
    is called. The mean of the image tokens inside each box shows it."""
    grid = math.isqrt(tokens.shape[1] - 1)
    boxes = pairs[schema.PAIR_BOXES]
    person, thing = pair_geometry.inside(boxes, grid)
    patches = tokens[:, 1:]

    def pooled(mask):
      share = mask / jnp.maximum(mask.sum(axis=-1, keepdims=True), 1)
      return jnp.einsum("bpn,bnd->bpd", share.astype(self.dtype), patches)

    text = layers.unit(noun_text)[jnp.maximum(pairs[schema.PAIR_OBJECT], 0)]
    # Unit vectors have entries of about 1/sqrt(E); bring them to about one.
    gain = jnp.sqrt(text.shape[-1]).astype(jnp.float32)
    shown = jnp.concatenate(
      [
        *(pooled(person), pooled(thing)),
        (gain * text).astype(self.dtype),
        pair_geometry.features(boxes).astype(self.dtype),
      ],
      axis=-1,
    )
    return layers.Mlp(
      (2 * self.config.hidden, self.config.hidden),
      self.config.dropout.decoder,
      self.dtype,
      name="pair_query",
    )(shown, train=train)

  def _interactions(self, decoded, scene, pairs, banks):
    """Similarity with the texts of the interactions of each pair's object.

    The image's own scores join in with one learned weight, zero at first.
    """
    width = banks["verb_text"].shape[-1]
    embedding = layers.Linear(width, self.dtype, name="pair_out")(decoded)
    embedding = embedding.astype(jnp.float32)
    text = layers.unit(banks["verb_text"])
    bias = self.param("pair_bias", nn.initializers.constant(_FIRST_BIAS), ())
    share = self.param("scene_share", nn.initializers.zeros, ())
    scores = layers.learned_scale(self, "pair_scale") * (
      layers.unit(embedding) @ text.T
    )
    scores = scores + bias + share * scene.astype(jnp.float32)[:, None]
    return {
      outputs.PAIR_EMBEDDING: embedding,
      outputs.PAIR_SCORES: of_the_object(scores, pairs, banks),
    }


def of_the_object(
  scores: Float[Array, "b #p v"],
  pairs: Mapping[str, Array],
  banks: Mapping[str, Array],
) -> Float[Array, "b p v"]:
  """Scores of interactions with a pair's own object; NEVER for all others."""
  own = pairs[schema.PAIR_OBJECT][..., None] == banks[VERB_OBJECT]
  own = own & pairs[schema.PAIR_MASK][..., None]
  return jnp.where(own, scores, outputs.NEVER)
