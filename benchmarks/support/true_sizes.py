"""Batches and banks at the paper's sizes: shapes, or random values."""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

from input_pipeline import schema
from mipd_jax.losses import banks
from mipd_jax.models.config import Sizes

SIZES = Sizes(num_verbs=504, num_roles=190, num_nouns=9929)
TEXT_WIDTH = 512
# CLIP ViT-L/14 at 336 pixels, EVA ViT-g/14 at 224, CLIP's text tower.
_AXES = {
  **{"R": schema.MAX_ROLES, "A": schema.ANNOTATORS, "V": SIZES.num_verbs},
  **{"N": 577, "S": 1024, "M": 257, "T": 1408},
  **{"K": len(schema.RATIONALES), "L": 77, "X": TEXT_WIDTH},
}
_GROUNDED = 0.7  # share of roles with a box
_UNTRAINED = 54  # verbs

Shapes = dict[str, jax.ShapeDtypeStruct]


def batch_shapes(
  size: int,
  keys: Iterable[str] = schema.TRAIN_KEYS,
  tokens: jnp.dtype = jnp.bfloat16,
) -> Shapes:
  """A batch of the contract, as shapes.

  Args:
    size: number of examples.
    keys: keys of the contract.
    tokens: dtype of the encoders' tokens.
  """
  result = {}
  for name in keys:
    key = schema.CONTRACT[name]
    axes = [
      size if axis == "B" else _AXES.get(axis) or int(axis)
      for axis in key.axes.split()
    ]
    dtype = tokens if key.dtype == "bfloat16" else key.dtype
    result[name] = jax.ShapeDtypeStruct(tuple(axes), jnp.dtype(dtype))
  return result


def bank_shapes() -> Shapes:
  """The content of `banks`, as shapes."""
  return {
    "verb_text": jax.ShapeDtypeStruct((SIZES.num_verbs, TEXT_WIDTH), "float32"),
    "role_text": jax.ShapeDtypeStruct((SIZES.num_roles, TEXT_WIDTH), "float32"),
    "noun_text": jax.ShapeDtypeStruct((SIZES.num_nouns, TEXT_WIDTH), "float32"),
    banks.VERB_LOG_PRIOR: jax.ShapeDtypeStruct((SIZES.num_verbs,), "float32"),
    banks.VERB_TRAINED: jax.ShapeDtypeStruct((SIZES.num_verbs,), "bool"),
  }


def random_batch(
  size: int, tokens: jnp.dtype, seed: int = 0
) -> dict[str, np.ndarray]:
  """A batch with every key and 1 to 6 roles per image, as in SWiG."""
  rng = np.random.default_rng(seed)
  result = {}
  for name, shape in batch_shapes(size, tokens=tokens).items():
    if jnp.issubdtype(shape.dtype, jnp.floating):
      values = rng.standard_normal(shape.shape, np.float32)
      result[name] = values.astype(shape.dtype)
    else:
      result[name] = np.zeros(shape.shape, shape.dtype)
  slot = np.arange(schema.MAX_ROLES)
  roles = slot < rng.integers(1, schema.MAX_ROLES + 1, (size, 1))
  boxed = roles & (rng.random(roles.shape) < _GROUNDED)
  length = rng.integers(8, 78, (size, len(schema.RATIONALES), 1))
  nouns = rng.integers(0, SIZES.num_nouns - 1, (*roles.shape, 3))
  boxes = rng.uniform(0.2, 0.6, (*roles.shape, 4))
  return result | {
    schema.EXAMPLE_MASK: np.ones(size, bool),
    schema.INDEX: np.arange(size, dtype=np.int32),
    schema.VERB: _ids(rng, SIZES.num_verbs - _UNTRAINED, size),
    schema.ROLES: np.where(roles, _ids(rng, SIZES.num_roles, roles.shape), -1),
    schema.ROLE_MASK: roles,
    schema.NOUNS: np.where(roles[..., None], nouns, SIZES.num_nouns - 1).astype(
      np.int32
    ),
    schema.BOXES: np.where(boxed[..., None], boxes, -1).astype(np.float32),
    schema.BOX_MASK: boxed,
    schema.IMAGE_SIZE: np.full((size, 2), 512, np.int32),
    schema.RATIONALE_MASK: np.arange(77) < length,
  }


def random_banks(seed: int = 0) -> dict[str, np.ndarray]:
  """Text embeddings, log prior and trained verbs."""
  rng = np.random.default_rng(seed)
  texts = {
    name: rng.standard_normal(shape.shape, np.float32)
    for name, shape in bank_shapes().items()
    if name.endswith("_text")
  }
  share = rng.dirichlet(np.ones(SIZES.num_verbs))
  return texts | {
    banks.VERB_LOG_PRIOR: np.log(share).astype(np.float32),
    banks.VERB_TRAINED: np.arange(SIZES.num_verbs)
    < SIZES.num_verbs - _UNTRAINED,
  }


def _ids(rng, count, shape):
  return rng.integers(0, count, shape).astype(np.int32)
