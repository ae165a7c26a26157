"""The student: everything that runs at inference.

Image tokens -> verb by similarity with text; one query per role through the
decoder (one pre-norm layer over image tokens) -> noun, box, box confidence.
METHOD, "The reference, exactly", says what preset `reference` computes;
`ModelConfig` says what ours changes.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mipd_jax.models import layers, outputs
from mipd_jax.models.attention import Attention
from mipd_jax.models.config import ModelConfig, Sizes
from mipd_jax.models.memory import Memory

_NORMAL = nn.initializers.normal(1.0)


class Student(nn.Module):
  """Image tokens and text banks to verbs, nouns, boxes.

  `banks` holds `verb_text` [V, E], `role_text` [roles, E], `noun_text`
  [C, E]: the vocabulary is an input, not a part of the model (except for
  closed heads and preset `reference`'s embeddings). `absorbed` is the form of
  the attentions that read image tokens; `frozen` says that no trained layer
  made these tokens (not `eyes.Eyes.trained`).
  """

  config: ModelConfig
  sizes: Sizes
  dtype: jnp.dtype = jnp.float32
  absorbed: bool = True
  frozen: bool = True

  @nn.compact
  def __call__(
    self,
    tokens_BxNxS: Float[Array, "b n s"],
    verb_B: Int[Array, "b"],
    roles_BxR: Int[Array, "b r"],
    role_mask_BxR: Bool[Array, "b r"],
    banks: Mapping[str, Float[Array, "_ e"]],
    *,
    train: bool = False,
  ) -> dict[str, Array]:
    """Returns the student half of `models.outputs`.

    Args:
      tokens_BxNxS: image tokens, class token first.
      verb_B: the verb whose frame is filled (the true one in training and
        in scoring, a predicted one in use).
      roles_BxR: its role ids, -1 for padding.
      role_mask_BxR: True where there is a role.
      banks: text embeddings of the vocabulary.
      train: whether dropout is on (RNG stream "dropout").
    """
    text_width = banks["verb_text"].shape[-1]
    tokens, memory = self._read(tokens_BxNxS, train)
    result = self._verb(tokens, memory, banks["verb_text"], train)
    queries = self._queries(verb_B, roles_BxR, banks, train)
    roles = self._decode(queries, memory, role_mask_BxR, train)
    result |= self._nouns(roles, text_width, banks["noun_text"], train)
    result |= self._boxes(roles, train)
    return {
      name: _zero_padding(x, role_mask_BxR) if x.ndim > 2 else x
      for name, x in result.items()
    } | {
      outputs.BOX_CONFIDENCE: jnp.where(
        role_mask_BxR, result[outputs.BOX_CONFIDENCE], 0
      )
    }

  def _read(self, tokens_BxNxS, train):
    """Projected image tokens [B, N, D], and their norm as a `Memory`."""
    tokens = layers.Linear(
      self.config.hidden, self.dtype, frozen=self.frozen, name="project"
    )(tokens_BxNxS)
    tokens = nn.Dropout(self.config.dropout.student, deterministic=not train)(
      tokens
    )
    memory = layers.NormedMemory(self.dtype, name="norm_memory")(tokens)
    if not self.absorbed:
      memory = Memory.of(memory.tokens())
    return tokens, memory

  def _decode(self, queries, memory, mask, train):
    """Queries [B, R, D] after attention to one another and to the image."""
    return RoleDecoder(
      self.config.heads,
      self.config.feed_forward,
      self.config.dropout.decoder,
      self.dtype,
      self.absorbed,
      name="decoder",
    )(queries, memory, mask, train=train)

  def _verb(self, tokens, memory, verb_text, train):
    """Verb embedding [B, E] in text space; its similarity with every verb."""
    width = verb_text.shape[-1]
    summary = tokens[:, 0]
    if self.config.verb_pooling == "attention":
      summary = self._pool(tokens[:, 0], memory, train)
    proj = self.param(
      "verb_proj", _projection_init(self.config), (self.config.hidden, width)
    )
    embedding = layers.unit(summary) @ proj
    # With a scale of one and no normalisation this is the reference, whose
    # logits stay within about [-1, 1] (row 7).
    text = layers.unit(verb_text)
    if self.config.verb_temperature:
      scores = layers.learned_scale(self, "verb_scale") * (
        layers.unit(embedding) @ text.T
      )
    else:
      scores = embedding @ text.T
    return {outputs.VERB_EMBEDDING: embedding, outputs.VERB_SCORES: scores}

  def _pool(self, cls_BxD, memory, train):
    """Class token joined with one attention read-out of all tokens, [B, D]."""
    query = self.param(
      "verb_query", nn.initializers.normal(0.02), (1, self.config.hidden)
    ).astype(self.dtype)
    queries = layers.layer_norm("norm_verb_query", self.dtype)(
      query + cls_BxD[:, None]
    )
    pooled = Attention(
      self.config.hidden,
      self.config.heads,
      dtype=self.dtype,
      absorbed=self.absorbed,
      name="verb_pool",
    )(queries, memory, train=train)[:, 0]
    joined = jnp.concatenate([cls_BxD, pooled], axis=-1)
    joined = layers.layer_norm("norm_verb", self.dtype)(joined)
    return layers.Mlp(
      (2 * self.config.hidden, self.config.hidden),
      self.config.dropout.decoder,
      self.dtype,
      name="verb_mlp",
    )(joined, train=train)

  def _queries(self, verb_B, roles_BxR, banks, train):
    """One query per role, of its role and its verb, [B, R, D]."""
    hidden = self.config.hidden
    roles = jnp.maximum(roles_BxR, 0)
    if self.config.role_queries == "embedding":
      role_table = self.param(
        "role_embedding", _NORMAL, (self.sizes.num_roles, hidden)
      )
      verb_table = self.param(
        "verb_embedding", _NORMAL, (self.sizes.num_verbs, hidden)
      )
      queries = role_table[roles] + verb_table[verb_B][:, None]
      return queries.astype(self.dtype)
    role_text = layers.unit(banks["role_text"])[roles]
    verb_text = layers.unit(banks["verb_text"])[verb_B][:, None]
    # Unit vectors have entries of about 1/sqrt(E); bring them to about one.
    gain = jnp.sqrt(role_text.shape[-1]).astype(jnp.float32)
    role = layers.Linear(hidden, self.dtype, name="role_query")(
      (gain * role_text).astype(self.dtype)
    )
    verb = layers.Linear(hidden, self.dtype, name="verb_query_text")(
      (gain * verb_text).astype(self.dtype)
    )
    rate = self.config.dropout.query_verb
    if train and rate:
      key = self.make_rng("dropout")
      kept = jax.random.bernoulli(key, 1 - rate, (len(verb), 1, 1))
      verb = jnp.where(kept, verb, 0)
    return role + verb

  def _nouns(self, roles_BxRxD, text_width, noun_text, train):
    """Noun logits [B, R, C]: by a classifier, against texts, or their sum."""
    hidden, kind = self.config.hidden, self.config.noun_head
    proj = self.param(
      "noun_proj", _projection_init(self.config), (hidden, text_width)
    )
    embedding = roles_BxRxD @ proj.astype(self.dtype)
    text = layers.unit(noun_text).T.astype(self.dtype)
    if kind == "closed":
      text_scores = embedding @ text
    else:
      scale = layers.learned_scale(self, "noun_scale").astype(self.dtype)
      text_scores = scale * (layers.unit(embedding).astype(self.dtype) @ text)
    result = {
      outputs.ROLE_EMBEDDING: embedding,
      outputs.NOUN_TEXT: text_scores,
      outputs.NOUN_SCORES: text_scores,
    }
    if kind == "text":
      return result
    closed = layers.Mlp(
      (2 * hidden, self.sizes.num_nouns),
      self.config.dropout.noun,
      self.dtype,
      name="noun_classifier",
    )(roles_BxRxD, train=train)
    result[outputs.NOUN_CLOSED] = closed
    result[outputs.NOUN_SCORES] = (
      closed if kind == "closed" else closed + text_scores
    )
    return result

  def _boxes(self, roles_BxRxD, train):
    hidden, rate = self.config.hidden, self.config.dropout.box
    box = layers.Mlp((2 * hidden, 2 * hidden, 4), rate, self.dtype, name="box")(
      roles_BxRxD, train=train
    )
    confidence = layers.Mlp(
      (2 * hidden, 1), rate, self.dtype, name="box_confidence"
    )(roles_BxRxD, train=train)
    return {
      outputs.BOX: jax.nn.sigmoid(box.astype(jnp.float32)),
      outputs.BOX_CONFIDENCE: confidence[..., 0].astype(jnp.float32),
    }


def _projection_init(config: ModelConfig) -> nn.initializers.Initializer:
  """N(0, 1) as the reference, where it multiplies unit vectors unscaled.

  A learned temperature sets the size itself.
  """
  if config.verb_temperature:
    return nn.initializers.lecun_normal()
  return _NORMAL


def _zero_padding(x: Array, role_mask: Bool[Array, "b r"]) -> Array:
  """Unused role slots are zero after the heads, as in the reference."""
  return jnp.where(role_mask[..., None], x, 0)


class RoleDecoder(nn.Module):
  """Self-attention among roles, cross-attention to image tokens, FFN.

  The reference's `tr_dec` (one layer, 8 heads, pre-norm), batched: the
  reference calls it image by image with the roles that exist; here padded
  roles are masked as keys and are zero in the result.

  `absorbed` is the form of the cross-attention: few roles read many tokens.
  """

  heads: int
  feed_forward: int
  dropout: float
  dtype: jnp.dtype = jnp.float32
  absorbed: bool = True

  @nn.compact
  def __call__(
    self,
    queries: Float[Array, "b r d"],
    memory: Memory,
    role_mask: Bool[Array, "b r"],
    *,
    train: bool = False,
  ) -> Float[Array, "b r d"]:
    width = queries.shape[-1]

    def attention(name, absorbed=False):
      return Attention(
        width, self.heads, self.dropout, self.dtype, absorbed, name=name
      )

    def drop(x):
      return nn.Dropout(self.dropout, deterministic=not train)(x)

    x = queries
    y = layers.layer_norm("norm1", self.dtype)(x)
    keys_Bx1xR = role_mask[:, None, :]
    x += drop(attention("self_attention")(y, y, keys_Bx1xR, train=train))
    y = layers.layer_norm("norm2", self.dtype)(x)
    cross_attention = attention("cross_attention", self.absorbed)
    x += drop(cross_attention(y, memory, train=train))
    y = layers.layer_norm("norm3", self.dtype)(x)
    y = layers.xavier_linear(self.feed_forward, self.dtype, "linear1")(y)
    y = drop(layers.gelu(y))
    x += drop(layers.xavier_linear(width, self.dtype, "linear2")(y))
    x = layers.layer_norm("norm_out", self.dtype)(x)
    return jnp.where(role_mask[..., None], x, 0)
