"""The tokens that attention reads, kept as products and not computed.

Few queries read many tokens: at most 6 roles x 8 heads against 257 or 577
tokens. Where the tokens are products of inputs and weights, it costs less to
apply the weights to the queries than to every token:

  queries . (x kernel)  =  (queries kernel^T) . x
  weights @ (x kernel)  =  (weights @ x) kernel

A layer norm is such a product too: (x - mean) / deviation is x times one
factor per token, minus one number per token; its scale is a diagonal kernel.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


class Part(NamedTuple):
  """Tokens `factor * (x @ kernel)`, in the dtype of compute.

  Attributes:
    x: [b n i], or [n i] where all images share it.
    kernel: [i d], or the diagonal [i] of a diagonal kernel, or None for the
      identity.
    factor: float32 [b n], or None for 1.
  """

  x: Array
  kernel: Array | None = None
  factor: Array | None = None

  def apply(self, rows: Float[Array, "*b i"]) -> Float[Array, "*b d"]:
    """Rows @ kernel."""
    if self.kernel is None:
      return rows
    return rows * self.kernel if self.kernel.ndim == 1 else rows @ self.kernel

  def absorb(self, rows: Float[Array, "*b d"]) -> Float[Array, "*b i"]:
    """Rows @ kernel^T."""
    if self.kernel is None:
      return rows
    return rows * self.kernel if self.kernel.ndim == 1 else rows @ self.kernel.T

  def weigh(self, weights: Float[Array, "b h q n"]) -> Float[Array, "b h q n"]:
    """The weights with which x is summed."""
    if self.factor is None:
      return weights
    return (weights * self.factor[:, None, None]).astype(self.x.dtype)

  def einsum(self, letters: str, other: Array) -> Array:
    """Einsum of `other` and x, whose letters are `bni` or `ni`; float32."""
    return jnp.einsum(
      letters.replace("x", "bni" if self.x.ndim == 3 else "ni"),
      other,
      self.x,
      preferred_element_type=jnp.float32,
    )


@dataclasses.dataclass(frozen=True)
class Memory:
  """Tokens [b n d]: the sum of `parts` and of a bias [d]."""

  parts: tuple[Part, ...]
  bias: Float[Array, "d"] | None = None

  @classmethod
  def of(cls, tokens: Float[Array, "b n d"]) -> "Memory":
    return cls((Part(tokens),))

  def plus(self, x: Array, kernel: Array | None = None) -> "Memory":
    """With one more part."""
    return dataclasses.replace(self, parts=(*self.parts, Part(x, kernel)))

  @property
  def dtype(self) -> jnp.dtype:
    return self.parts[0].x.dtype

  def tokens(self) -> Float[Array, "b n d"]:
    """The plain form: every token computed."""

    def every(part):
      factor = 1 if part.factor is None else part.factor[..., None]
      return part.apply(part.x) * factor

    return self._sum(every, 1)

  def token(self, index: int) -> Float[Array, "b d"]:
    """One token of every image."""
    only = [
      Part(
        part.x[..., index, None, :],
        part.kernel,
        None if part.factor is None else part.factor[:, index, None],
      )
      for part in self.parts
    ]
    return Memory(tuple(only), self.bias).tokens()[:, 0]

  def scores(self, queries: Float[Array, "b h q d"]) -> Float[Array, "b h q n"]:
    """Dot products with every token, float32, up to a constant per query.

    The bias adds the same to every token, which a softmax ignores.
    """
    total_BxHxQxN = 0
    for part in self.parts:
      scores = part.einsum("bhqi,x->bhqn", part.absorb(queries))
      if part.factor is not None:
        scores *= part.factor[:, None, None]
      total_BxHxQxN += scores
    return total_BxHxQxN

  def pooled(self, weights: Float[Array, "b h q n"]) -> Float[Array, "b h q d"]:
    """Sums of tokens; the weights need not add up to one."""

    def pool(part):
      rows = part.einsum("bhqn,x->bhqi", part.weigh(weights))
      return part.apply(rows.astype(self.dtype))

    return self._sum(pool, jnp.sum(weights, axis=-1, keepdims=True))

  def mean(self, mask: Bool[Array, "b n"]) -> Float[Array, "b d"]:
    """Mean over the tokens of the mask; zero where there is none."""
    count_Bx1 = jnp.sum(mask, axis=-1, keepdims=True, dtype=jnp.float32)
    share_BxN = mask / jnp.maximum(count_Bx1, 1)

    def pool(part):
      share = share_BxN if part.factor is None else share_BxN * part.factor
      # A sum of many tokens stays in float32 to its end.
      x = part.x.astype(jnp.float32)
      rows = part._replace(x=x).einsum("bn,x->bi", share)
      return part.apply(rows.astype(self.dtype))

    return self._sum(pool, jnp.minimum(count_Bx1, 1))

  def _sum(
    self, of: Callable[[Part], Array], weight: Float[Array, "*b 1"] | int
  ) -> Array:
    """Sum of `of(part)` [..., d] over the parts, plus `weight` * bias."""
    total = sum(of(part).astype(jnp.float32) for part in self.parts)
    if self.bias is not None:
      total += weight * self.bias
    return total.astype(self.dtype)


def normed(
  x: Float[Array, "b n d"],
  scale: Float[Array, "d"],
  bias: Float[Array, "d"],
  epsilon: float,
) -> Memory:
  """Tokens after a layer norm; mean and deviation in float32."""
  x32 = x.astype(jnp.float32)
  mean = jnp.mean(x32, axis=-1)
  variance = jnp.mean(x32 * x32, axis=-1) - mean * mean
  factor = jax.lax.rsqrt(jnp.maximum(variance, 0) + epsilon)
  shift = (-mean * factor).astype(x.dtype)
  parts = Part(x, scale, factor), Part(shift[..., None], scale[None])
  return Memory(parts, bias)
