"""Random keys by name and step; nothing carried, so resume is exact."""

import zlib

import jax
from jaxtyping import Array


def key(seed: int, name: str, step: int | Array = 0) -> jax.Array:
  """A key that depends on the three alone."""
  root = jax.random.key(seed)
  named = jax.random.fold_in(root, zlib.crc32(name.encode()))
  return jax.random.fold_in(named, step)
