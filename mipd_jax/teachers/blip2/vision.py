"""BLIP-2's vision tower in Flax: EVA's ViT-g with pre-norm layers.

Li et al. 2023 (arXiv 2301.12597), section 4; names of parameters follow
transformers' `Blip2VisionModel`, so that `hf_weights` can map them.
Letters: B images, N tokens (class token, then the grid row by row), D width.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mipd_jax.teachers.blip2 import layers

_SMALL = nn.initializers.normal(0.02)


class VisionTower(nn.Module):
  """Pixels, normalised, [B, H, W, 3] -> tokens [B, N, D] after the last norm.

  Attributes:
    config: transformers' Blip2VisionConfig.
    dtype: of the arithmetic.
  """

  config: Any
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, pixels: jax.Array, above: int = 0
  ) -> tuple[jax.Array, jax.Array]:
    """The tokens, and those before the last `above` layers [B, N, D]."""
    x = _Embeddings(self.config, self.dtype, name="embeddings")(pixels)
    x, below = _Encoder(self.config, self.dtype, name="encoder")(x, above)
    x = layers.layer_norm(self.config, self.dtype, "post_layernorm")(x)
    return x, below


class _Embeddings(nn.Module):
  config: Any
  dtype: Any

  @nn.compact
  def __call__(self, pixels):
    width, patch = self.config.hidden_size, self.config.patch_size
    grid = nn.Conv(
      width,
      (patch, patch),
      strides=(patch, patch),
      padding="VALID",
      dtype=self.dtype,
      name="patch_embedding",
    )(pixels)
    patches = grid.reshape(grid.shape[0], -1, width)
    first = self.param("class_embedding", _SMALL, (1, 1, width))
    shape = (1, patches.shape[1] + 1, width)
    positions = self.param("position_embedding", _SMALL, shape)
    first = jnp.broadcast_to(first, (grid.shape[0], 1, width))
    tokens = jnp.concatenate([first.astype(self.dtype), patches], axis=1)
    return tokens + positions.astype(self.dtype)


class _Encoder(nn.Module):
  config: Any
  dtype: Any

  @nn.compact
  def __call__(self, x, above):
    return _Layers(self.config, self.dtype, name="layers")(x, above)


class _Layers(nn.Module):
  config: Any
  dtype: Any

  @nn.compact
  def __call__(self, x, above):
    below = x
    for index in range(self.config.num_hidden_layers):
      x = _Layer(self.config, self.dtype, name=str(index))(x)
      if index + 1 == self.config.num_hidden_layers - above:
        below = x
    return x, below


class _Layer(nn.Module):
  config: Any
  dtype: Any

  @nn.compact
  def __call__(self, x):
    normal = layers.layer_norm(self.config, self.dtype, "layer_norm1")(x)
    x = x + _SelfAttention(self.config, self.dtype, name="self_attn")(normal)
    normal = layers.layer_norm(self.config, self.dtype, "layer_norm2")(x)
    return x + layers.Mlp(self.config, self.dtype, name="mlp")(normal)


class _SelfAttention(nn.Module):
  config: Any
  dtype: Any

  @nn.compact
  def __call__(self, x):
    width = self.config.hidden_size
    # One matrix for all three; of its bias, the keys' third is zero in
    # published weights.
    bias = self.config.qkv_bias
    qkv = nn.Dense(3 * width, use_bias=bias, dtype=self.dtype, name="qkv")(x)
    query, key, value = (
      layers.split_heads(part, self.config.num_attention_heads)
      for part in jnp.split(qkv, 3, axis=-1)
    )
    out = layers.merge_heads(layers.attend(query, key, value))
    return nn.Dense(width, dtype=self.dtype, name="projection")(out)
