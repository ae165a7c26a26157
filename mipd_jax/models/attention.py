"""Multi-head attention in two forms that give the same result."""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mipd_jax.models import layers
from mipd_jax.models.memory import Memory

# torch stacks query, key and value in one [3d, d] matrix before it draws
# xavier-uniform: the same bound for each third is fan_avg with scale 1/2.
_XAVIER_STACKED = nn.initializers.variance_scaling(0.5, "fan_avg", "uniform")
# Kernel [d, h, w] and bias [h, w] of a projection to heads.
Weights = tuple[Float[Array, "d h w"], Float[Array, "h w"]]


class Attention(nn.Module):
  """Multi-head attention with float32 softmax and masked keys.

  A query whose keys are all masked attends evenly, so that filler stays
  finite; the reader of its result masks it.

  Attributes:
    features: width of the result and of all heads together.
    heads: number of heads.
    dropout: rate of dropout on the attention weights.
    dtype: of compute.
    absorbed: take the key and value projections to the queries instead of to
      every key. Pays where there are many keys and fewer queries x heads than
      `features`; the result is the same.
  """

  features: int
  heads: int
  dropout: float = 0.0
  dtype: jnp.dtype = jnp.float32
  absorbed: bool = False

  @nn.compact
  def __call__(
    self,
    queries: Float[Array, "b q d"],
    keys: Float[Array, "b k d"] | Memory,
    mask: Bool[Array, "b #q k"] | None = None,
    *,
    train: bool = False,
  ) -> Float[Array, "b q d"]:
    width = self.features // self.heads

    def weights(name):
      return layers.Weights(
        (self.heads, width), _XAVIER_STACKED, dtype=self.dtype, name=name
      )(queries.shape[-1])

    queries = queries.astype(self.dtype)
    query_BxHxQxW = project(queries, *weights("query")) / math.sqrt(width)
    memory = keys if isinstance(keys, Memory) else Memory.of(keys)
    read = absorbed if self.absorbed else plain
    logits, pool = read(query_BxHxQxW, memory, weights("key"), weights("value"))
    if mask is not None:
      logits = jnp.where(mask[:, None], logits, jnp.finfo(jnp.float32).min)
    share = jax.nn.softmax(logits, axis=-1).astype(self.dtype)
    share = nn.Dropout(self.dropout, deterministic=not train)(share)
    kernel, bias = layers.Weights(
      (self.features,), layers.TORCH_KERNEL, dtype=self.dtype, name="out"
    )(self.heads, width)
    return jnp.einsum("bhqw,hwd->bqd", pool(share), kernel) + bias


Pool = Callable[[Float[Array, "b h q k"]], Float[Array, "b h q w"]]


def project(
  x: Float[Array, "b n d"],
  kernel: Float[Array, "d h w"],
  bias: Float[Array, "h w"],
) -> Float[Array, "b h n w"]:
  """A linear map to heads."""
  return jnp.einsum("bnd,dhw->bhnw", x, kernel) + bias[:, None]


def plain(
  query_BxHxQxW: Array, memory: Memory, key: Weights, value: Weights
) -> tuple[Float[Array, "b h q k"], Pool]:
  """Logits, and a function that pools values; computes all keys and values."""
  tokens = memory.tokens()
  key_BxHxKxW = project(tokens, *key)
  value_BxHxKxW = project(tokens, *value)
  logits = jnp.einsum(
    "bhqw,bhkw->bhqk",
    query_BxHxQxW,
    key_BxHxKxW,
    preferred_element_type=jnp.float32,
  )
  return logits, lambda share: share @ value_BxHxKxW


def absorbed(
  query_BxHxQxW: Array, memory: Memory, key: Weights, value: Weights
) -> tuple[Float[Array, "b h q k"], Pool]:
  """The same with no key or value computed; logits up to a constant per query.

  That constant comes from the key's bias. After dropout the weights do not add
  up to one, so the value's bias is multiplied by their sum.
  """
  kernel, _ = key
  logits = memory.scores(jnp.einsum("bhqw,dhw->bhqd", query_BxHxQxW, kernel))

  def pool(share):
    kernel, bias = value
    pooled = jnp.einsum("bhqd,dhw->bhqw", memory.pooled(share), kernel)
    total_BxHxQx1 = jnp.sum(share, axis=-1, keepdims=True)
    return pooled + total_BxHxQx1 * bias[:, None]

  return logits, pool
