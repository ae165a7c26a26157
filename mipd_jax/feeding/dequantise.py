"""Turns features as the cache stores them into those of the batch contract.

int8 tokens stay int8 in transfer and in device memory; the step dequantises
one batch on the device.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array

from input_pipeline.feature_cache import int8


def dequantise(batch: Mapping[str, Array]) -> dict[str, Array]:
  """Replaces every int8 field and its scales by bfloat16 tokens.

  Bit for bit as `input_pipeline.feature_cache.int8.dequantise` on the host; a
  batch without int8 fields stays as it is.
  """
  scales = {int8.scale_name(key) for key in batch}
  fields = {}
  for key, value in batch.items():
    scale = batch.get(int8.scale_name(key))
    if scale is not None:
      tokens = value.astype(jnp.float32) * scale[..., None]
      # Rounds by an operation that compilers keep: they may drop a conversion
      # to bfloat16 and on to the model's dtype as a round trip.
      tokens = jax.lax.reduce_precision(tokens, 8, 7)
      fields[key] = tokens.astype(jnp.bfloat16)
    elif key not in scales:
      fields[key] = value
  return fields
