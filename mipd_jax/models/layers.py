"""Layers that student and teacher branch share.

Parameters are float32, compute is `dtype`; softmax and normalisation are
float32 whatever `dtype` is. Initialisations are those of the reference
(PyTorch's), so that both presets start alike.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mipd_jax.models.memory import Memory, Part, normed

TORCH_KERNEL = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
_XAVIER = nn.initializers.xavier_uniform()
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


def gelu(x: Array) -> Array:
  """The exact (erf) form, as PyTorch's default."""
  return jax.nn.gelu(x, approximate=False)


def layer_norm(name: str, dtype: jnp.dtype) -> nn.LayerNorm:
  return nn.LayerNorm(epsilon=LAYER_NORM_EPSILON, dtype=dtype, name=name)


def learned_scale(module: nn.Module, name: str) -> Float[Array, ""]:
  """The scale of cosine similarities, a parameter `name` of `module`."""
  value = module.param(name, nn.initializers.constant(_INITIAL_LOG_SCALE), ())
  return jnp.exp(jnp.minimum(value, _MAX_LOG_SCALE))


class Weights(nn.Module):
  """Kernel and bias of a linear map, for callers that multiply themselves.

  The same parameters, by name, shape and initialisation, as those of
  `nn.DenseGeneral`.
  """

  features: tuple[int, ...]
  kernel_init: nn.initializers.Initializer
  bias_init: nn.initializers.Initializer = nn.initializers.zeros
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, *inputs: int) -> tuple[Array, Array]:
    """Kernel [*inputs, *features] and bias [*features], in `dtype`."""
    flat = math.prod(inputs), math.prod(self.features)

    def init(key, shape):
      return self.kernel_init(key, flat, jnp.float32).reshape(shape)

    kernel = self.param("kernel", init, (*inputs, *self.features))
    bias = self.param("bias", self.bias_init, self.features)
    return kernel.astype(self.dtype), bias.astype(self.dtype)


@jax.custom_vjp
def frozen_matmul(
  x: Float[Array, "*b i"], kernel: Float[Array, "i o"]
) -> Float[Array, "*b o"]:
  """x @ kernel, for frozen features x: no gradient with respect to x."""
  return x @ kernel


def _frozen_forward(x, kernel):
  return x @ kernel, x


def _frozen_backward(x, gradient):
  # As rows of one matrix: with three axes XLA makes a transposed copy on CPUs,
  # which takes a third of the step.
  rows = gradient.reshape(-1, gradient.shape[-1])
  by_output = rows.T @ x.reshape(-1, x.shape[-1])
  return None, by_output.T


frozen_matmul.defvjp(_frozen_forward, _frozen_backward)


@jax.custom_vjp
def frozen_features(x: Array) -> Array:
  """Returns x unchanged, and refuses to pass a gradient to it.

  Raises:
    ValueError: at tracing, if a gradient is asked for with respect to
      something that x depends on: a trainable layer before it would silently
      learn nothing.
  """
  return x


def _features_forward(x):
  if x.perturbed:
    raise ValueError(
      "a gradient is asked for of tokens that are taken for frozen features: "
      "what made them would never learn. Where a trainable layer comes before "
      "Linear(frozen=True), give frozen=False, or cut the gradient on purpose "
      "by jax.lax.stop_gradient(tokens)"
    )
  return x.value, None


def _features_backward(_, gradient):
  del gradient
  return (None,)


# With symbolic zeros the forward pass knows whether a gradient is wanted.
frozen_features.defvjp(
  _features_forward, _features_backward, symbolic_zeros=True
)


class Linear(nn.Module):
  """Dense layer with PyTorch's default initialisation of both parameters.

  `frozen`: the inputs are features, which get no gradient; asking for one is
  an error.
  """

  features: int
  dtype: jnp.dtype = jnp.float32
  kernel_init: nn.initializers.Initializer = TORCH_KERNEL
  frozen: bool = False

  @nn.compact
  def weights(self, fan_in: int) -> tuple[Array, Array]:
    """Kernel [fan_in, features] and bias [features], in `dtype`."""
    return Weights(
      (self.features,),
      self.kernel_init,
      torch_bias(fan_in),
      self.dtype,
      name="dense",
    )(fan_in)

  def __call__(self, x: Float[Array, "*b i"]) -> Float[Array, "*b o"]:
    kernel, bias = self.weights(x.shape[-1])
    if self.frozen:
      x = frozen_features(x).astype(self.dtype)
      return frozen_matmul(x, kernel) + bias
    return x.astype(self.dtype) @ kernel + bias

  def memory(self, x: Float[Array, "b n i"]) -> Memory:
    """The same as a `Memory`, not computed yet."""
    kernel, bias = self.weights(x.shape[-1])
    return Memory((Part(x.astype(self.dtype), kernel),), bias)


class NormedMemory(nn.Module):
  """Layer norm of tokens that attention reads, as a `Memory`, not computed.

  Its parameters are those of `layer_norm`.
  """

  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b n d"]) -> Memory:
    scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
    bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
    scale, bias = scale.astype(self.dtype), bias.astype(self.dtype)
    return normed(x.astype(self.dtype), scale, bias, LAYER_NORM_EPSILON)


def xavier_linear(features: int, dtype: jnp.dtype, name: str) -> Linear:
  return Linear(features, dtype, kernel_init=_XAVIER, name=name)


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
