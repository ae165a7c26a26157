"""Layers that vision tower and Q-Former share; SigLIP's towers use them too."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax


def activation(name: str) -> Callable[[jax.Array], jax.Array]:
  """The activation of Hugging Face's name; "gelu" is the exact one."""
  from transformers.modeling_flax_utils import ACT2FN

  return ACT2FN[name]


def layer_norm(config: Any, dtype: Any, name: str) -> nn.LayerNorm:
  """Statistics in float32, by torch's two-pass formula."""
  return nn.LayerNorm(
    epsilon=config.layer_norm_eps,
    dtype=dtype,
    use_fast_variance=False,
    name=name,
  )


class Mlp(nn.Module):
  """The two dense layers of a vision transformer's layer, [..., D] alike."""

  config: Any
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    width, inner = self.config.hidden_size, self.config.intermediate_size
    x = nn.Dense(inner, dtype=self.dtype, name="fc1")(x)
    x = activation(self.config.hidden_act)(x)
    return nn.Dense(width, dtype=self.dtype, name="fc2")(x)


def split_heads(x: jax.Array, heads: int) -> jax.Array:
  """[B, T, heads * d] -> [B, T, heads, d]."""
  return x.reshape(*x.shape[:-1], heads, -1)


def merge_heads(x: jax.Array) -> jax.Array:
  """[B, T, heads, d] -> [B, T, heads * d]."""
  return x.reshape(*x.shape[:-2], -1)


# Softmax in float32 whatever the dtype; query [B, T, H, d], key and value
# [B, S, H, d], bias and mask (True is seen) broadcast to [B, H, T, S].
attend = functools.partial(jax.nn.dot_product_attention, implementation="xla")
