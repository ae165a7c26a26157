"""T5 as BLIP-2's language model: encoder over image and prompt, decoder.

Raffel et al. 2020 (arXiv 1910.10683), section 2.1. Submodules are those of
transformers' FlaxT5ForConditionalGenerationModule; see `language` for the
letters and for why attention is done here.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

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
from mipd_jax.teachers.checkpoints import hf_fields


class T5(Language):
  """See `Language`."""

  @property
  def _start_token(self) -> int:
    """The first token of decoding; padding if the config names none."""
    config = self.module.config.text_config
    start = config.decoder_start_token_id
    return config.pad_token_id if start is None else start

  def context(
    self, params: Params, image: jax.Array, ids: jax.Array, mask: jax.Array
  ) -> Context:
    seen = jnp.ones(image.shape[:2], bool)
    mask = jnp.concatenate([seen, mask.astype(bool)], axis=1)
    return Context(self.apply(params, _encode, image, ids, mask), mask)

  def hidden(
    self, params: Params, context: Context, targets: jax.Array
  ) -> jax.Array:
    pad = self.module.config.text_config.pad_token_id
    first = jnp.full_like(targets[:, :1], self._start_token)
    ids = jnp.where(targets == IGNORED, pad, targets)
    ids = jnp.concatenate([first, ids[:, :-1]], axis=1)

    def run(model):
      length = ids.shape[1]
      distance = jnp.arange(length)[:, None] - jnp.arange(length)
      bias = _past_bias(model, length, distance)[None]

      def attend(_, query, key, value):
        return layers.attend(
          query, key, value, bias=bias, is_causal=True, scale=1.0
        )

      return _decode(model, ids, context, attend)

    return self.apply(params, run)

  def tree_hidden(
    self, params: Params, context: Context, tree: CandidateTree
  ) -> jax.Array:
    batch = context.mask.shape[0]
    ids = jnp.asarray(tree.tokens).at[0].set(self._start_token)
    ids = jnp.broadcast_to(ids, (batch, len(ids)))
    ancestors, seen = jnp.asarray(tree.ancestors), jnp.asarray(tree.seen)

    def run(model):
      length = ancestors.shape[1]
      distance = jnp.asarray(tree.depth)[:, None] - jnp.arange(length)
      bias = _past_bias(model, length, distance)

      def attend(_, query, key, value):
        return attend_tree(
          query, key, value, ancestors, seen, scale=1.0, bias=bias
        )

      return _decode(model, ids, context, attend)

    return self.apply(params, run)

  def start(
    self, params: Params, context: Context, length: int
  ) -> tuple[jax.Array, Cache]:
    config = self.module.config.text_config
    batch = context.mask.shape[0]
    shape = (batch, length, config.num_heads, config.d_kv)
    empty = jnp.zeros(shape, self.module.dtype)
    room = (empty,) * config.num_decoder_layers
    first = jnp.full((batch,), self._start_token, jnp.int32)
    return self.step(params, context, (room, room), first, jnp.int32(0))

  def step(
    self,
    params: Params,
    context: Context,
    cache: Cache,
    ids: jax.Array,
    index: jax.Array,
  ) -> tuple[jax.Array, Cache]:
    def run(model):
      new_keys, new_values = [], []
      length = cache[0][0].shape[1]
      distance = (index - jnp.arange(length))[None]
      bias = _past_bias(model, length, distance)[None]
      mask = (distance >= 0)[None, None]

      def attend(layer, query, key, value):
        keys = cache[0][layer].at[:, index].set(key[:, 0])
        values = cache[1][layer].at[:, index].set(value[:, 0])
        new_keys.append(keys)
        new_values.append(values)
        return layers.attend(
          query, keys, values, bias=bias, mask=mask, scale=1.0
        )

      hidden = _decode(model, ids[:, None], context, attend)
      return hidden[:, 0], (tuple(new_keys), tuple(new_values))

    return self.apply(params, run)

  def output_kernel(self, params: Params) -> jax.Array:
    own, text = params["language_model"], self.module.config.text_config
    if text.tie_word_embeddings:
      kernel = own["shared"]["embedding"].T
    else:
      kernel = own["lm_head"]["kernel"]
    kernel = kernel.astype(self.module.dtype)
    # Tied weights are scaled, in Mesh TensorFlow and in transformers 4;
    # transformers 5 has a field of its own for it.
    if hf_fields.scales_outputs(text):
      kernel = kernel * text.d_model**-0.5
    return kernel


def buckets(
  relative: np.ndarray, *, both_ways: bool, count: int, furthest: int
) -> np.ndarray:
  """Bucket of each relative position, key minus query.

  Half of the buckets are for exact distances, the others grow with the
  logarithm up to `furthest`; if `both_ways`, each sign has half of all. On
  the host, for accelerators round logarithms to the wrong bucket.
  """
  after = 0
  if both_ways:
    count //= 2
    after = np.where(relative > 0, count, 0)
    distance = np.abs(relative)
  else:
    distance = np.maximum(-relative, 0)
  exact = count // 2
  ratio = np.log(np.maximum(distance, 1) / exact) / np.log(furthest / exact)
  far = exact + (ratio * (count - exact)).astype(np.int32)
  near = distance < exact
  return after + np.where(near, distance, np.minimum(far, count - 1))


def _past_bias(model: nn.Module, length: int, distance: jax.Array) -> jax.Array:
  """The decoder's bias by distance back, [n, m] -> float32 [H, n, m].

  Distances outside 0 to `length` - 1 belong to masked keys and may get any
  value.
  """
  table = _bias_table(model.decoder, -np.arange(length), both_ways=False)
  return table[jnp.clip(distance, 0, length - 1)].transpose(2, 0, 1)


def _bias_table(stack, relative: np.ndarray, *, both_ways: bool) -> jax.Array:
  """[n] -> float32 [n, H]; the first layer's bias, which all layers share."""
  attention = _layers(stack)[0][0].SelfAttention
  places = buckets(
    relative,
    both_ways=both_ways,
    count=attention.relative_attention_num_buckets,
    furthest=attention.relative_attention_max_distance,
  )
  table = attention.relative_attention_bias(jnp.asarray(places))
  return table.astype(jnp.float32)


def _layers(stack: nn.Module) -> list[tuple[nn.Module, ...]]:
  """The parts of each layer: attentions, feed-forward."""
  return [block.layer.layer for block in stack.block.blocks]


def _heads(attention: nn.Module, x: jax.Array, names: str) -> list[jax.Array]:
  return [
    layers.split_heads(getattr(attention, name)(x), attention.n_heads)
    for name in names
  ]


def _encode(
  model: nn.Module, image: jax.Array, ids: jax.Array, mask: jax.Array
) -> Cache:
  """Image tokens, then the prompt -> keys and values of cross-attention."""
  text = model.shared(ids)
  x = jnp.concatenate([image.astype(text.dtype), text], axis=1)
  length = x.shape[1]
  # Relative positions -(length - 1) to length - 1; row i, column j: j - i.
  table = _bias_table(
    model.encoder, np.arange(1 - length, length), both_ways=True
  )
  place = np.arange(length) - np.arange(length)[:, None] + length - 1
  bias = table[place].transpose(2, 0, 1)[None]
  for self_layer, feed_forward in _layers(model.encoder):
    attention = self_layer.SelfAttention
    query, key, value = _heads(attention, self_layer.layer_norm(x), "qkv")
    seen = layers.attend(
      query, key, value, bias=bias, mask=mask[:, None, None], scale=1.0
    )
    x = feed_forward(x + attention.o(layers.merge_heads(seen)))
  x = model.encoder.final_layer_norm(x)
  pairs = [
    _heads(cross.EncDecAttention, x, "kv")
    for _, cross, _ in _layers(model.decoder)
  ]
  keys, values = zip(*pairs, strict=True)
  return keys, values


def _decode(
  model: Any, ids: jax.Array, context: Context, attend: Attend
) -> jax.Array:
  """ids [B, n] -> [B, n, D]; `attend` is the self-attention's."""
  x = model.shared(ids)
  mask = context.mask[:, None, None]
  for index, parts in enumerate(_layers(model.decoder)):
    self_layer, cross_layer, feed_forward = parts
    attention = self_layer.SelfAttention
    heads = _heads(attention, self_layer.layer_norm(x), "qkv")
    x = x + attention.o(layers.merge_heads(attend(index, *heads)))
    attention = cross_layer.EncDecAttention
    (query,) = _heads(attention, cross_layer.layer_norm(x), "q")
    keys, values = context.cache[0][index], context.cache[1][index]
    read = layers.attend(query, keys, values, mask=mask, scale=1.0)
    x = feed_forward(x + attention.o(layers.merge_heads(read)))
  return model.decoder.final_layer_norm(x)
