"""SigLIP's two towers in Flax: pre-norm layers, no class token, no mask.

Names of parameters follow transformers' `SiglipModel`, so that `hf_weights` can
map them. Letters: B images, P patches of the grid, row by row, D vision width,
n texts, T positions, X width of the joint space, which is D.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mipd_jax.teachers.blip2 import layers

_SMALL = nn.initializers.normal(0.02)


class VisionTower(nn.Module):
  """Normalised pixels [B, H, W, 3] -> patches [B, P, D], image [B, D].

  Patches are after the last norm; the image is what the attention-pooling head
  makes of them, SigLIP's embedding.

  Attributes:
    config: transformers' SiglipVisionConfig.
    dtype: of the arithmetic.
  """

  config: Any
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, pixels: jax.Array) -> tuple[jax.Array, jax.Array]:
    config, dtype = self.config, self.dtype
    x = _VisionEmbeddings(config, dtype, name="embeddings")(pixels)
    x = _Encoder(config, dtype, name="encoder")(x)
    x = layers.layer_norm(config, dtype, "post_layernorm")(x)
    return x, _PoolingHead(config, dtype, name="head")(x)


class TextTower(nn.Module):
  """Ids [n, T] -> embeddings: of the texts, or of all their positions.

  Every position sees every other: a text's filler counts. The last position's
  embedding is the text's.

  Attributes:
    config: transformers' SiglipTextConfig.
    dtype: of the arithmetic.
  """

  config: Any
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, ids: jax.Array, *, every: bool = False) -> jax.Array:
    """[n, X], or with `every` position [n, T, X]."""
    config, dtype = self.config, self.dtype
    x = _TextEmbeddings(config, dtype, name="embeddings")(ids)
    x = _Encoder(config, dtype, name="encoder")(x)
    if not every:
      x = x[:, -1]
    x = layers.layer_norm(config, dtype, "final_layer_norm")(x)
    return nn.Dense(config.projection_size, dtype=dtype, name="head")(x)


class _VisionEmbeddings(nn.Module):
  config: Any
  dtype: Any

  @nn.compact
  def __call__(self, pixels):
    width, patch = self.config.hidden_size, self.config.patch_size
    # Pixels beyond the last whole patch are not read, as in torch.
    grid = nn.Conv(
      width,
      (patch, patch),
      strides=(patch, patch),
      padding="VALID",
      dtype=self.dtype,
      name="patch_embedding",
    )(pixels)
    patches = grid.reshape(grid.shape[0], -1, width)
    return patches + _positions(patches.shape[1], width, self.dtype)


class _TextEmbeddings(nn.Module):
  config: Any
  dtype: Any

  @nn.compact
  def __call__(self, ids):
    config, width = self.config, self.config.hidden_size
    table = nn.Embed(
      config.vocab_size, width, dtype=self.dtype, name="token_embedding"
    )
    count = config.max_position_embeddings
    return table(ids) + _positions(count, width, self.dtype)


def _positions(count, width, dtype):
  table = nn.Embed(count, width, dtype=dtype, name="position_embedding")
  return table(jnp.arange(count))


class _Encoder(nn.Module):
  config: Any
  dtype: Any

  @nn.compact
  def __call__(self, x):
    return _Layers(self.config, self.dtype, name="layers")(x)


class _Layers(nn.Module):
  config: Any
  dtype: Any

  @nn.compact
  def __call__(self, x):
    for index in range(self.config.num_hidden_layers):
      x = _Layer(self.config, self.dtype, name=str(index))(x)
    return x


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
    width, heads = self.config.hidden_size, self.config.num_attention_heads
    query, key, value = (
      layers.split_heads(nn.Dense(width, dtype=self.dtype, name=name)(x), heads)
      for name in ("q_proj", "k_proj", "v_proj")
    )
    out = layers.merge_heads(layers.attend(query, key, value))
    return nn.Dense(width, dtype=self.dtype, name="out_proj")(out)


class _PoolingHead(nn.Module):
  """A learned query reads the patches [B, P, D] -> [B, D]."""

  config: Any
  dtype: Any

  @nn.compact
  def __call__(self, patches):
    width = self.config.hidden_size
    probe = self.param("probe", _SMALL, (1, 1, width)).astype(self.dtype)
    query = jnp.broadcast_to(probe, (patches.shape[0], 1, width))
    read = _PackedAttention(self.config, self.dtype, name="attention")
    x = read(query, patches)
    normal = layers.layer_norm(self.config, self.dtype, "layernorm")(x)
    x = x + layers.Mlp(self.config, self.dtype, name="mlp")(normal)
    return x[:, 0]


class _PackedAttention(nn.Module):
  """torch's MultiheadAttention: three matrices in one, in torch's layout."""

  config: Any
  dtype: Any

  @nn.compact
  def __call__(self, query, seen):
    width, heads = self.config.hidden_size, self.config.num_attention_heads
    packed = self.param("in_proj_weight", _SMALL, (3 * width, width))
    biases = self.param("in_proj_bias", nn.initializers.zeros, (3 * width,))
    query, key, value = (
      layers.split_heads(source @ matrix.T + bias, heads)
      for source, matrix, bias in zip(
        (query, seen, seen),
        jnp.split(packed.astype(self.dtype), 3),
        jnp.split(biases.astype(self.dtype), 3),
        strict=True,
      )
    )
    out = layers.merge_heads(layers.attend(query, key, value))
    return nn.Dense(width, dtype=self.dtype, name="out_proj")(out)
