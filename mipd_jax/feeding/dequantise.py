"""Features as the cache stores them to the batch contract's, on the device.

int8 tokens stay int8 on their way and in device memory; this is done inside
the step, to one batch.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array

from input_pipeline.feature_cache import int8


def dequantise(batch: Mapping[str, Array]) -> dict[str, Array]:
  """Puts bfloat16 tokens for every int8 field and its scales.

  Bit for bit what `input_pipeline.feature_cache.int8.dequantise` makes on
  the host; a batch without int8 fields stays as it is.
  """
  scales = {int8.scale_name(key) for key in batch}
  found = {}
  for key, value in batch.items():
    scale = batch.get(int8.scale_name(key))
    if scale is not None:
      tokens = value.astype(jnp.float32) * scale[..., None]
      # Rounded by an operation that compilers keep; the mere conversion to
      # bfloat16 and on to the model's dtype may be left out as a round trip.
      tokens = jax.lax.reduce_precision(tokens, 8, 7)
      found[key] = tokens.astype(jnp.bfloat16)
    elif key not in scales:
      found[key] = value
  return found
