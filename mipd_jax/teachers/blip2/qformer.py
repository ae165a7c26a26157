"""BLIP-2's Q-Former in Flax: learned queries that read the image.

Li et al. 2023 (arXiv 2301.12597), section 3.1; names of parameters follow
transformers' `Blip2QFormerModel`. Post-norm, as in BERT; every
`cross_attention_frequency`-th layer, from the first on, attends to the image.
Letters: B images, Q queries, D width, N image tokens, S their width.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mipd_jax.teachers.blip2 import layers


class QFormer(nn.Module):
  """Queries [B, Q, D] and image tokens [B, N, S] -> [B, Q, D].

  Attributes:
    config: transformers' Blip2QFormerConfig.
    dtype: of the arithmetic.
  """

  config: Any
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    queries: jax.Array,
    image: jax.Array,
    coverage: jax.Array | None = None,
  ) -> jax.Array:
    """Args as above; `coverage` float [B, N] multiplies attention to tokens.

    A token of coverage 0 is not read; BLIP-2 itself reads all alike.
    """
    bias = None
    if coverage is not None:
      # Finite, so that a row without any is even instead of NaN.
      bias = jnp.log(jnp.maximum(coverage, 1e-30))[:, None, None, :]
    x = layers.layer_norm(self.config, self.dtype, "layernorm")(queries)
    return _Encoder(self.config, self.dtype, name="encoder")(x, image, bias)


class _Encoder(nn.Module):
  config: Any
  dtype: Any

  @nn.compact
  def __call__(self, x, image, bias):
    return _Layers(self.config, self.dtype, name="layer")(x, image, bias)


class _Layers(nn.Module):
  config: Any
  dtype: Any

  @nn.compact
  def __call__(self, x, image, bias):
    for index in range(self.config.num_hidden_layers):
      reads = index % self.config.cross_attention_frequency == 0
      layer = _Layer(self.config, self.dtype, name=str(index))
      x = layer(x, image if reads else None, bias)
    return x


class _Layer(nn.Module):
  config: Any
  dtype: Any

  @nn.compact
  def __call__(self, x, image, bias):
    x = _Attention(self.config, self.dtype, name="attention")(x, x)
    if image is not None:
      cross = _Attention(self.config, self.dtype, name="crossattention")
      x = cross(x, image, bias)
    inner = _Intermediate(self.config, self.dtype, name="intermediate_query")
    return _Output(self.config, self.dtype, name="output_query")(inner(x), x)


class _Attention(nn.Module):
  config: Any
  dtype: Any

  @nn.compact
  def __call__(self, x, seen, bias=None):
    out = _Heads(self.config, self.dtype, name="attention")(x, seen, bias)
    return _Output(self.config, self.dtype, name="output")(out, x)


class _Heads(nn.Module):
  config: Any
  dtype: Any

  @nn.compact
  def __call__(self, x, seen, bias):
    query, key, value = (
      layers.split_heads(
        nn.Dense(self.config.hidden_size, dtype=self.dtype, name=name)(source),
        self.config.num_attention_heads,
      )
      for name, source in (("query", x), ("key", seen), ("value", seen))
    )
    return layers.merge_heads(layers.attend(query, key, value, bias=bias))


class _Intermediate(nn.Module):
  config: Any
  dtype: Any

  @nn.compact
  def __call__(self, x):
    inner = self.config.intermediate_size
    x = nn.Dense(inner, dtype=self.dtype, name="dense")(x)
    return layers.activation(self.config.hidden_act)(x)


class _Output(nn.Module):
  config: Any
  dtype: Any

  @nn.compact
  def __call__(self, x, residual):
    width = self.config.hidden_size
    x = nn.Dense(width, dtype=self.dtype, name="dense")(x)
    return layers.layer_norm(self.config, self.dtype, "LayerNorm")(x + residual)
