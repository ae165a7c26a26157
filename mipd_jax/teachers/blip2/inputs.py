"""Checks of what callers hand to a BLIP-2: shapes always, values on the host.

An id beyond the vocabulary would turn into NaN or another word's embedding
on a device, without a message.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from input_pipeline.io.errors import InputError
from mipd_jax.teachers.blip2.decoders.language import IGNORED


def check_pixels(config: Any, pixels: Any, *, channels_last: bool) -> None:
  """Raises InputError unless it is a batch of square images of the size."""
  side = config.vision_config.image_size
  wanted = (side, side, 3) if channels_last else (3, side, side)
  shape = np.shape(pixels)
  if len(shape) != 4 or shape[1:] != wanted:
    raise InputError(
      f"images have shape {shape}, this BLIP-2 wants "
      f"[batch, {', '.join(map(str, wanted))}]",
      f"resize the images to {side} x {side} pixels of 3 channels",
    )
  if channels_last and pixels.dtype != np.uint8:
    raise InputError(
      f"images are {pixels.dtype}, not uint8",
      "give pixels of 0 to 255; they are normalised inside",
    )
  if not channels_last and not jnp.issubdtype(pixels.dtype, jnp.floating):
    raise InputError(
      f"pixel values are {pixels.dtype}, not floating and normalised",
      "normalise them by mean and std, or use image_features",
    )


def check_prompt(config: Any, images: int | None, ids: Any, mask: Any) -> None:
  """Raises InputError unless ids and mask are alike, [B, P] or, of one, [P].

  Args:
    config: transformers' Blip2Config.
    images: B, or None where one prompt serves all images.
    ids, mask: the prompt.
  """
  shape, axes = np.shape(ids), 1 if images is None else 2
  fits = len(shape) == axes and np.shape(mask) == shape
  if not fits or (images is not None and shape[0] != images):
    batch = "" if images is None else f"{images}, "
    raise InputError(
      f"prompt ids {shape} and mask {np.shape(mask)} should both be "
      f"[{batch}length]",
      "tokenize the prompts with this model's tokenize",
    )
  check_ids(config, "prompt", ids)


def check_targets(config: Any, images: int, ids: Any) -> None:
  """Raises InputError unless ids are [B, T]; -100 is ignored."""
  shape = np.shape(ids)
  if len(shape) != 2 or shape[0] != images or not shape[1]:
    raise InputError(
      f"target ids have shape {shape}, wanted [{images}, length]",
      "give one row of target ids per image, filled with -100",
    )
  if not isinstance(ids, jax.core.Tracer):
    ids = np.asarray(ids)
    check_ids(config, "target", ids[ids != IGNORED])


def check_ids(config: Any, what: str, ids: Any) -> None:
  """Raises InputError for ids that are no rows of the embedding."""
  if isinstance(ids, jax.core.Tracer):
    return
  ids, words = np.asarray(ids), config.text_config.vocab_size
  if not ids.size:
    return
  if ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() >= words:
    raise InputError(
      f"{what} ids are {ids.dtype} of {ids.min()} to {ids.max()}, the model "
      f"knows integers of 0 to {words - 1}",
      "tokenize with this model's own tokenizer",
    )
