"""How the student sees an image: what it is given, and the tokens it reads.

A student's eyes are used in two places. Before the model, `features` gives
what is kept of an image: the cache holds it, a prediction computes it and an
export carries it; nothing there is trained. Within the model, a call turns
that into tokens; eyes with parameters are an `nn.Module` and are trained. All
else follows from `keys`: which parts of the cache are loaded and what a batch
for the student holds.

To add eyes: a class here and a choice in `of`; a new key also needs a place
in `schema.FEATURES` and in `feature_cache.plan.PARTS`.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, Protocol

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from input_pipeline import schema
from mipd_jax.models import layers
from mipd_jax.models.attention import Attention
from mipd_jax.models.config import ModelConfig


class Eyes(Protocol):
  """From pixels, by way of the cache, to the student's tokens.

  Attributes:
    keys: keys of `schema.FEATURES` that a call reads.
    uses_encoder: whether `features` needs the frozen encoder; without it no
      encoder runs at inference, and an export has none.
    trained: whether a call has parameters. Without any, the tokens get no
      gradient, and asking for one is an error (`layers.Linear`).
  """

  keys: ClassVar[tuple[str, ...]]
  uses_encoder: ClassVar[bool]
  trained: ClassVar[bool]

  def features(
    self,
    pixels: UInt8[Array, "b h w 3"],
    tokens: Float[Array, "b n s"] | None,
  ) -> dict[str, Array]:
    """The features kept of letterboxed images, by key; frozen and pure.

    Args:
      pixels: of the encoder's image size.
      tokens: the frozen encoder's (`teachers.interfaces.Encoder`); None where
        `uses_encoder` is False.

    Returns:
      Arrays [B, ...] for all of `keys`. Floats are rounded to the cache's
      dtype by the caller; others are kept as they are.
    """
    ...

  def __call__(
    self, batch: Mapping[str, Array], *, train: bool = False
  ) -> Float[Array, "b n s"]:
    """Tokens: one for the whole image, then a square grid, row by row.

    Args:
      batch: has `keys`, in the dtypes of the contract.
      train: whether dropout is on (RNG stream "dropout").
    """
    ...


@dataclasses.dataclass(frozen=True)
class EncoderTokens:
  """Passes on the frozen encoder's image tokens; nothing here is trained."""

  keys: ClassVar[tuple[str, ...]] = (schema.STUDENT_TOKENS,)
  uses_encoder: ClassVar[bool] = True
  trained: ClassVar[bool] = False

  def features(
    self,
    pixels: UInt8[Array, "b h w 3"],
    tokens: Float[Array, "b n s"] | None,
  ) -> dict[str, Array]:
    del pixels
    return {schema.STUDENT_TOKENS: tokens}

  def __call__(
    self, batch: Mapping[str, Array], *, train: bool = False
  ) -> Float[Array, "b n s"]:
    del train
    return batch[schema.STUDENT_TOKENS]


class AdaptedTokens(nn.Module):
  """The frozen encoder's tokens, changed by one narrow trained layer.

  A pre-norm transformer layer of `width`, between two linear maps; what it
  makes is added to the tokens, at first nothing (adapters, Houlsby et al. 2019,
  arXiv 1902.00751).
  """

  width: int
  heads: int
  dtype: jnp.dtype = jnp.float32
  keys: ClassVar[tuple[str, ...]] = (schema.STUDENT_TOKENS,)
  uses_encoder: ClassVar[bool] = True
  trained: ClassVar[bool] = True

  def features(
    self,
    pixels: UInt8[Array, "b h w 3"],
    tokens: Float[Array, "b n s"] | None,
  ) -> dict[str, Array]:
    return ENCODER_TOKENS.features(pixels, tokens)

  @nn.compact
  def __call__(
    self, batch: Mapping[str, Array], *, train: bool = False
  ) -> Float[Array, "b n s"]:
    del train
    tokens = batch[schema.STUDENT_TOKENS].astype(self.dtype)
    x = layers.layer_norm("norm_in", self.dtype)(tokens)
    x = layers.Linear(self.width, self.dtype, frozen=False, name="down")(x)
    y = layers.layer_norm("norm_attention", self.dtype)(x)
    x += Attention(self.width, self.heads, dtype=self.dtype, name="attention")(
      y, y
    )
    y = layers.layer_norm("norm_mlp", self.dtype)(x)
    x += layers.Mlp((4 * self.width, self.width), dtype=self.dtype, name="mlp")(
      y
    )
    up = nn.Dense(
      tokens.shape[-1],
      dtype=self.dtype,
      kernel_init=nn.initializers.zeros,
      name="up",
    )
    return tokens + up(layers.layer_norm("norm_out", self.dtype)(x))


ENCODER_TOKENS = EncoderTokens()


def of(config: ModelConfig, dtype: jnp.dtype = jnp.float32) -> Eyes:
  """The eyes of a student; `dtype` of compute, where they are trained."""
  if config.eyes == "adapter":
    return AdaptedTokens(config.eyes_width, config.heads, dtype)
  return ENCODER_TOKENS
