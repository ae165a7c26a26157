"""Layers that student and teacher branch share.

Parameters are float32, compute is `dtype`; softmax and normalisation are
float32 whatever `dtype` is. Initialisations are those of the reference
(PyTorch's), so that both presets start alike.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

TORCH_KERNEL = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
_XAVIER = nn.initializers.xavier_uniform()
# torch stacks query, key and value in one [3d, d] matrix before it draws
# xavier-uniform: the same bound for each third is fan_avg with scale 1/2.
_XAVIER_STACKED = nn.initializers.variance_scaling(0.5, "fan_avg", "uniform")
LAYER_NORM_EPSILON = 1e-5
# CLIP starts its logit scale at 1 / 0.07; log domain keeps it positive.
_INITIAL_LOG_SCALE = 2.66
_MAX_LOG_SCALE = 4.61  # 100, as CLIP


def torch_bias(fan_in: int) -> nn.initializers.Initializer:
  """PyTorch's default for the bias of a linear layer."""
  bound = 1 / math.sqrt(fan_in)

  def init(key, shape, dtype=jnp.float32):
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return init


def unit(
  x: Float[Array, "*b d"], epsilon: float = 1e-12
) -> Float[Array, "*b d"]:
  """x / |x| in float32; a zero vector stays zero, with a zero gradient."""
  x = x.astype(jnp.float32)
  square = jnp.sum(x * x, axis=-1, keepdims=True)
  return x * jax.lax.rsqrt(jnp.maximum(square, epsilon**2))


def masked_mean(
  x: Float[Array, "b n d"], mask: Bool[Array, "b n"]
) -> Float[Array, "b d"]:
  """Mean over the tokens that are there; zero where none is."""
  weight = mask.astype(jnp.float32)[..., None]
  total = jnp.sum(x.astype(jnp.float32) * weight, axis=-2)
  return total / jnp.maximum(jnp.sum(weight, axis=-2), 1.0)


def gelu(x: Array) -> Array:
  """The exact (erf) form, as PyTorch's default."""
  return jax.nn.gelu(x, approximate=False)


def layer_norm(name: str, dtype: jnp.dtype) -> nn.LayerNorm:
  return nn.LayerNorm(epsilon=LAYER_NORM_EPSILON, dtype=dtype, name=name)


def learned_scale(module: nn.Module, name: str) -> Float[Array, ""]:
  """The scale of cosine similarities, a parameter `name` of `module`."""
  value = module.param(name, nn.initializers.constant(_INITIAL_LOG_SCALE), ())
  return jnp.exp(jnp.minimum(value, _MAX_LOG_SCALE))


class Linear(nn.Module):
  """Dense layer with PyTorch's default initialisation of both parameters."""

  features: int
  dtype: jnp.dtype = jnp.float32
  kernel_init: nn.initializers.Initializer = TORCH_KERNEL

  @nn.compact
  def __call__(self, x: Float[Array, "*b i"]) -> Float[Array, "*b o"]:
    return nn.Dense(
      self.features,
      dtype=self.dtype,
      kernel_init=self.kernel_init,
      bias_init=torch_bias(x.shape[-1]),
      name="dense",
    )(x)


def xavier_linear(features: int, dtype: jnp.dtype, name: str) -> Linear:
  return Linear(features, dtype, kernel_init=_XAVIER, name=name)


class Attention(nn.Module):
  """Multi-head attention with float32 softmax and masked keys.

  A query whose keys are all masked attends evenly, so that filler stays
  finite; whoever reads its result masks it.
  """

  features: int
  heads: int
  dropout: float = 0.0
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self,
    queries: Float[Array, "b q d"],
    keys: Float[Array, "b k e"],
    mask: Bool[Array, "b #q k"] | None = None,
    *,
    train: bool = False,
  ) -> Float[Array, "b q d"]:
    width = self.features // self.heads

    def project(name, x):
      return nn.DenseGeneral(
        (self.heads, width),
        dtype=self.dtype,
        kernel_init=_XAVIER_STACKED,
        name=name,
      )(x)

    query_BxQxHxW = project("query", queries) / math.sqrt(width)
    key_BxKxHxW = project("key", keys)
    value_BxKxHxW = project("value", keys)
    logits = jnp.einsum(
      "bqhw,bkhw->bhqk",
      query_BxQxHxW,
      key_BxKxHxW,
      preferred_element_type=jnp.float32,
    )
    if mask is not None:
      logits = jnp.where(mask[:, None], logits, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(logits, axis=-1).astype(self.dtype)
    weights = nn.Dropout(self.dropout, deterministic=not train)(weights)
    pooled = jnp.einsum("bhqk,bkhw->bqhw", weights, value_BxKxHxW)
    return nn.DenseGeneral(
      self.features,
      axis=(-2, -1),
      dtype=self.dtype,
      kernel_init=TORCH_KERNEL,
      name="out",
    )(pooled)


class Mlp(nn.Module):
  """Linear layers with GELU and dropout after each but the last."""

  widths: tuple[int, ...]
  dropout: float = 0.0
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "*b i"], *, train: bool = False
  ) -> Float[Array, "*b o"]:
    for i, width in enumerate(self.widths[:-1]):
      x = gelu(Linear(width, self.dtype, name=f"layer_{i}")(x))
      x = nn.Dropout(self.dropout, deterministic=not train)(x)
    last = len(self.widths) - 1
    return Linear(self.widths[-1], self.dtype, name=f"layer_{last}")(x)
