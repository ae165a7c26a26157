"""Random keys by name and step; no key is carried, so resume is exact."""

import zlib

import jax
from jaxtyping import Array


def key(seed: int, name: str, step: int | Array = 0) -> jax.Array:
  """A key that depends only on these three."""
  root = jax.random.key(seed)
  named = jax.random.fold_in(root, zlib.crc32(name.encode()))
  return jax.random.fold_in(named, step)
