"""The dtype of compute; parameters, softmax and losses are float32 always."""

import jax
import jax.numpy as jnp


def compute_dtype(name: str) -> jnp.dtype:
  """float32 or bfloat16; "auto" is bfloat16 where hardware has it.

  CPUs only emulate bfloat16, several times slower than float32.
  """
  if name == "auto":
    name = "float32" if jax.default_backend() == "cpu" else "bfloat16"
  return jnp.dtype(name)
