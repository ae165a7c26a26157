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

from jaxtyping import Array, Float, UInt8

from input_pipeline import schema
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


ENCODER_TOKENS = EncoderTokens()


def of(config: ModelConfig) -> Eyes:
  """The eyes of a student; so far all have the same."""
  del config
  return ENCODER_TOKENS
