"""What T5 and OPT share as BLIP-2's language model.

Image and prompt are read once, into a `Context`; targets, trees of candidates
and generated tokens then read that. Weights and layers are those of
transformers' Flax modules. Only attention is computed here: softmax in float32
in any dtype, keys that are computed once, masks other than causal.

Letters: B images, Q image tokens, P prompt tokens, S = Q + P, T target
tokens, M nodes of a tree, H heads, d width of a head, D of the model, V words.
"""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any

import flax
import jax
import jax.numpy as jnp

from mipd_jax.teachers.blip2.decoders.candidates import CandidateTree
from mipd_jax.teachers.blip2.module import Blip2Module

IGNORED = -100  # a target id that is not counted, as in torch
Params = Any
# Per layer, keys and values [B, n, H, d].
Cache = tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]
# (layer, query, key, value) [B, n, H, d] -> [B, n, H, d].
Attend = Callable[[int, jax.Array, jax.Array, jax.Array], jax.Array]


@flax.struct.dataclass
class Context:
  """Image and prompt, read.

  Attributes:
    cache: keys and values for later tokens, [B, S, H, d].
    mask: bool [B, S], True where there is a token.
    last: [B, D], output at the last token; only for OPT.
  """

  cache: Cache
  mask: jax.Array
  last: jax.Array | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Language(abc.ABC):
  """Pure functions of the whole model's parameters.

  `hidden` values below are the output layer's inputs: position t predicts
  target t.
  """

  module: Blip2Module

  @abc.abstractmethod
  def context(
    self, params: Params, image: jax.Array, ids: jax.Array, mask: jax.Array
  ) -> Context:
    """Reads language tokens [B, Q, D] and a prompt, ids and mask [B, P]."""

  @abc.abstractmethod
  def hidden(
    self, params: Params, context: Context, targets: jax.Array
  ) -> jax.Array:
    """Teacher-forced: ids [B, T], IGNORED where none -> [B, T, D]."""

  @abc.abstractmethod
  def tree_hidden(
    self, params: Params, context: Context, tree: CandidateTree
  ) -> jax.Array:
    """Every node of the tree in one pass -> [B, M, D]."""

  @abc.abstractmethod
  def start(
    self, params: Params, context: Context, length: int
  ) -> tuple[jax.Array, Cache]:
    """Hidden value of the first token [B, D]; a cache for `length` tokens."""

  @abc.abstractmethod
  def step(
    self,
    params: Params,
    context: Context,
    cache: Cache,
    ids: jax.Array,
    index: jax.Array,
  ) -> tuple[jax.Array, Cache]:
    """Reads token `index` - 1, ids [B] -> hidden value of the next [B, D]."""

  @abc.abstractmethod
  def output_kernel(self, params: Params) -> jax.Array:
    """[D, V]."""

  def logits(self, params: Params, hidden: jax.Array) -> jax.Array:
    """[..., D] -> float32 [..., V]."""
    return output_logits(hidden, self.output_kernel(params))

  def apply(self, params: Params, function: Callable, *arrays: Any) -> Any:
    """function(language module, *arrays), with its parameters bound."""

    def run(module, *arrays):
      return function(module.language_model, *arrays)

    return self.module.apply({"params": params}, *arrays, method=run)


def output_logits(hidden: jax.Array, kernel: jax.Array) -> jax.Array:
  """[..., D], [D, V] -> float32 [..., V], accumulated in float32."""
  return jnp.einsum(
    "...d,dv->...v",
    hidden.astype(kernel.dtype),
    kernel,
    preferred_element_type=jnp.float32,
  )


def log_likelihood(logits: jax.Array, targets: jax.Array) -> jax.Array:
  """logits [B, T, V], ids [B, T] -> float32 [B]; IGNORED ids add nothing."""
  log_p = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
  counts = targets != IGNORED
  ids = jnp.where(counts, targets, 0)[..., None]
  chosen = jnp.take_along_axis(log_p, ids, axis=-1)[..., 0]
  return jnp.where(counts, chosen, 0.0).sum(axis=-1)


def attend_tree(
  query: jax.Array,
  key: jax.Array,
  value: jax.Array,
  ancestors: jax.Array,
  seen: jax.Array,
  *,
  scale: float,
  bias: jax.Array | None = None,
  context: tuple[jax.Array, jax.Array, jax.Array] | None = None,
) -> jax.Array:
  """Each node attends to its ancestors and itself, and to a context.

  Ancestors are gathered: a tree of a thousand nodes is a few tokens deep, so
  scores are [B, H, M, L] and not [B, H, M, M].

  Args:
    query, key, value: [B, M, H, d].
    ancestors, seen: int and bool [M, L], the nodes that each node sees.
    scale: factor on the scores.
    bias: [H, M, L], added to them.
    context: keys and values [B, S, H, d] and mask [B, S] that all nodes see.

  Returns:
    [B, M, H, d].
  """
  depth = ancestors.shape[1]
  near_key, near_value = key[:, ancestors], value[:, ancestors]
  scores = _scores("bmhd,bmlhd->bhml", query, near_key, scale)
  if bias is not None:
    scores += bias
  scores = jnp.where(seen, scores, -jnp.inf)
  if context is not None:
    far = _scores("bmhd,bshd->bhms", query, context[0], scale)
    far = jnp.where(context[2][:, None, None], far, -jnp.inf)
    scores = jnp.concatenate([scores, far], axis=-1)
  weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
  out = jnp.einsum("bhml,bmlhd->bmhd", weights[..., :depth], near_value)
  if context is not None:
    far = weights[..., depth:]
    out += jnp.einsum("bhms,bshd->bmhd", far, context[1])
  return out


def _scores(spec, query, key, scale):
  scores = jnp.einsum(spec, query, key, preferred_element_type=jnp.float32)
  return scores * scale
