"""OPT as BLIP-2's language model: one decoder over image, prompt and answer.

Zhang et al. 2022 (arXiv 2205.01068). Submodules are those of transformers'
FlaxOPTForCausalLMModule; see `language` for the letters and for why attention
is done here. Positions count only real tokens, so a padded prompt scores as
one without padding, on whichever side.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from input_pipeline.io.errors import InputError
from mipd_jax.teachers.blip2 import layers
from mipd_jax.teachers.blip2.decoders.candidates import CandidateTree
from mipd_jax.teachers.blip2.decoders.language import (
  IGNORED,
  Attend,
  Cache,
  Context,
  Language,
  Params,
  attend_tree,
)


class Opt(Language):
  """See `Language`."""

  def context(
    self, params: Params, image: jax.Array, ids: jax.Array, mask: jax.Array
  ) -> Context:
    seen = jnp.ones(image.shape[:2], bool)
    mask = jnp.concatenate([seen, mask.astype(bool)], axis=1)
    self._check_length(mask.shape[1])

    def run(model):
      text = model.model.decoder.embed_tokens(ids)
      x = jnp.concatenate([image.astype(text.dtype), text], axis=1)
      keys, values = [], []

      def attend(_, query, key, value):
        keys.append(key)
        values.append(value)
        seen = mask[:, None, None]
        return layers.attend(query, key, value, mask=seen, is_causal=True)

      hidden = _decode(model, x, _positions(mask), attend)
      return hidden, (tuple(keys), tuple(values))

    hidden, cache = self.apply(params, run)
    # Right padding hides the last token; left padding does not.
    last = jnp.max(jnp.where(mask, jnp.arange(mask.shape[1]), 0), axis=1)
    rows = jnp.arange(mask.shape[0])
    return Context(cache, mask, hidden[rows, last])

  def hidden(
    self, params: Params, context: Context, targets: jax.Array
  ) -> jax.Array:
    first = context.last[:, None]
    if targets.shape[1] == 1:
      return first
    self._check_length(context.mask.shape[1] + targets.shape[1] - 1)
    given = targets[:, :-1]
    real = given != IGNORED
    mask = jnp.concatenate([context.mask, real], axis=1)
    ids = jnp.where(real, given, self.module.config.text_config.pad_token_id)
    positions = _positions(mask)[:, context.mask.shape[1] :]
    # Row: a target token; it sees the context and targets up to itself.
    length = given.shape[1]
    order = jnp.tri(length, mask.shape[1], context.mask.shape[1], dtype=bool)
    seen = mask[:, None, None] & order

    def run(model):
      def attend(layer, query, key, value):
        keys = jnp.concatenate([context.cache[0][layer], key], axis=1)
        values = jnp.concatenate([context.cache[1][layer], value], axis=1)
        return layers.attend(query, keys, values, mask=seen)

      x = model.model.decoder.embed_tokens(ids)
      return _decode(model, x, positions, attend)

    rest = self.apply(params, run)
    return jnp.concatenate([first.astype(rest.dtype), rest], axis=1)

  def tree_hidden(
    self, params: Params, context: Context, tree: CandidateTree
  ) -> jax.Array:
    # The root is the last token of the prompt, which is in the context.
    ancestors = jnp.asarray(tree.ancestors)[:, 1:]
    seen = jnp.asarray(tree.seen)[:, 1:]
    self._check_length(context.mask.shape[1] + ancestors.shape[1])
    batch, nodes = context.mask.shape[0], len(tree.tokens)
    ids = jnp.broadcast_to(
      jnp.asarray(tree.tokens).at[0].set(0), (batch, nodes)
    )
    count = context.mask.sum(axis=1, keepdims=True)
    positions = count + jnp.asarray(tree.depth) - 1
    width = self.module.config.text_config.hidden_size
    heads = self.module.config.text_config.num_attention_heads

    def run(model):
      def attend(layer, query, key, value):
        keys, values = (part[layer] for part in context.cache)
        return attend_tree(
          query,
          key,
          value,
          ancestors,
          seen,
          scale=(width // heads) ** -0.5,
          context=(keys, values, context.mask),
        )

      x = model.model.decoder.embed_tokens(ids)
      return _decode(model, x, positions, attend)

    hidden = self.apply(params, run)
    return hidden.at[:, 0].set(context.last.astype(hidden.dtype))

  def start(
    self, params: Params, context: Context, length: int
  ) -> tuple[jax.Array, Cache]:
    self._check_length(context.mask.shape[1] + length - 1)
    room = ((0, 0), (0, length), (0, 0), (0, 0))
    return context.last, jax.tree.map(lambda x: jnp.pad(x, room), context.cache)

  def step(
    self,
    params: Params,
    context: Context,
    cache: Cache,
    ids: jax.Array,
    index: jax.Array,
  ) -> tuple[jax.Array, Cache]:
    begin = context.mask.shape[1]
    place = begin + index - 1
    room = cache[0][0].shape[1] - begin
    new = jnp.broadcast_to(jnp.arange(room) < index, (len(ids), room))
    mask = jnp.concatenate([context.mask, new], axis=1)[:, None, None]
    positions = context.mask.sum(axis=1, keepdims=True) + index - 1

    def run(model):
      new_keys, new_values = [], []

      def attend(layer, query, key, value):
        keys = cache[0][layer].at[:, place].set(key[:, 0])
        values = cache[1][layer].at[:, place].set(value[:, 0])
        new_keys.append(keys)
        new_values.append(values)
        return layers.attend(query, keys, values, mask=mask)

      x = model.model.decoder.embed_tokens(ids[:, None])
      hidden = _decode(model, x, positions, attend)
      return hidden[:, 0], (tuple(new_keys), tuple(new_values))

    return self.apply(params, run)

  def output_kernel(self, params: Params) -> jax.Array:
    own = params["language_model"]
    if self.module.config.text_config.tie_word_embeddings:
      kernel = own["model"]["decoder"]["embed_tokens"]["embedding"].T
    else:
      kernel = own["lm_head"]["kernel"]
    return kernel.astype(self.module.dtype)

  def _check_length(self, tokens: int) -> None:
    most = self.module.config.text_config.max_position_embeddings
    if tokens > most:
      raise InputError(
        f"image, prompt and answer take {tokens} positions, OPT has {most}",
        "shorten the prompt or the answers, or generate fewer tokens",
      )


def _positions(mask: jax.Array) -> jax.Array:
  """bool [B, S] -> [B, S]: 0, 1, ... over real tokens; -1 for filler."""
  mask = mask.astype(jnp.int32)
  return jnp.cumsum(mask, axis=1) * mask - 1


def _decode(
  model: nn.Module, x: jax.Array, positions: jax.Array, attend: Attend
) -> jax.Array:
  """Embeddings [B, n, D], positions [B, n] -> [B, n, D]."""
  decoder = model.model.decoder
  x = x + decoder.embed_positions(positions)
  for index, layer in enumerate(decoder.layers.layers):
    # OPT-350m normalises after each part, all others before.
    before = layer.do_layer_norm_before
    attention = layer.self_attn
    source = layer.self_attn_layer_norm(x) if before else x
    query, key, value = (
      layers.split_heads(project(source), attention.num_heads)
      for project in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    out = layers.merge_heads(attend(index, query, key, value))
    x = x + attention.out_proj(out)
    x = x if before else layer.self_attn_layer_norm(x)
    source = layer.final_layer_norm(x) if before else x
    x = x + layer.fc2(layer.activation_fn(layer.fc1(source)))
    x = x if before else layer.final_layer_norm(x)
  return x if decoder.final_layer_norm is None else decoder.final_layer_norm(x)
