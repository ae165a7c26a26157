"""Random batches of the contract, banks, and a source in memory."""

import jax.numpy as jnp
import numpy as np

from input_pipeline import schema
from mipd_jax.losses import banks as bank_lib
from mipd_jax.models.config import Sizes

SIZES = Sizes(num_verbs=12, num_roles=8, num_nouns=15)
TEXT_WIDTH = 32
GRID_TOKENS = 17  # a class token and 4 x 4 patches
UNTRAINED = 3  # the last verbs have no training image


def batch(size: int = 6, seed: int = 0) -> dict[str, np.ndarray]:
  """A batch with every key; 1 to 6 roles, boxes here and there."""
  rng = np.random.default_rng(seed)
  num_roles = rng.integers(1, schema.MAX_ROLES + 1, size)
  role_mask = np.arange(schema.MAX_ROLES) < num_roles[:, None]
  box_mask = role_mask & (rng.random(role_mask.shape) < 0.6)
  shape = role_mask.shape
  nouns = rng.integers(0, SIZES.num_nouns - 1, (*shape, schema.ANNOTATORS))
  boxes = np.concatenate(
    [rng.uniform(0.3, 0.7, (*shape, 2)), rng.uniform(0.1, 0.5, (*shape, 2))],
    axis=-1,
  )

  def tokens(*axes):
    return rng.normal(size=(size, *axes)).astype(jnp.bfloat16)

  text_length, rationales = 7, len(schema.RATIONALES)
  rationale_mask = np.arange(text_length) < rng.integers(
    2, text_length + 1, (size, rationales, 1)
  )

  def logits():
    shape = (size, SIZES.num_verbs)
    return 3 * rng.normal(size=shape).astype(np.float32)

  return {
    schema.EXAMPLE_MASK: np.ones(size, bool),
    schema.INDEX: np.arange(size, dtype=np.int32),
    schema.VERB: rng.integers(0, SIZES.num_verbs - UNTRAINED, size).astype(
      np.int32
    ),
    schema.GROUP: np.zeros(size, np.int32),
    schema.ROLES: np.where(
      role_mask, rng.integers(0, SIZES.num_roles, shape), -1
    ).astype(np.int32),
    schema.ROLE_MASK: role_mask,
    schema.NOUNS: np.where(
      role_mask[..., None], nouns, SIZES.num_nouns - 1
    ).astype(np.int32),
    schema.BOXES: np.where(box_mask[..., None], boxes, -1).astype(np.float32),
    schema.BOX_MASK: box_mask,
    schema.IMAGE_SIZE: np.full((size, 2), 64, np.int32),
    schema.STUDENT_TOKENS: tokens(GRID_TOKENS, 24),
    schema.TEACHER_TOKENS: tokens(GRID_TOKENS, 40),
    schema.RATIONALE_TOKENS: tokens(rationales, text_length, 28),
    schema.RATIONALE_MASK: rationale_mask,
    schema.VERB_LOGITS: logits(),
    schema.CLIP_LOGITS: logits(),
  }


def banks(seed: int = 0) -> dict[str, np.ndarray]:
  """Text embeddings, and which verbs have training images."""
  rng = np.random.default_rng(seed + 1000)

  def texts(count):
    return rng.normal(size=(count, TEXT_WIDTH)).astype(np.float32)

  share = rng.dirichlet(np.ones(SIZES.num_verbs))
  return {
    "verb_text": texts(SIZES.num_verbs),
    "role_text": texts(SIZES.num_roles),
    "noun_text": texts(SIZES.num_nouns),
    bank_lib.VERB_LOG_PRIOR: np.log(share).astype(np.float32),
    bank_lib.VERB_TRAINED: np.arange(SIZES.num_verbs)
    < SIZES.num_verbs - UNTRAINED,
  }


class MemorySource:
  """A source of the stream that notes what was read."""

  def __init__(self, num_examples: int = 40, seed: int = 0):
    self.num_examples = num_examples
    self.names = tuple(f"image_{i}.jpg" for i in range(num_examples))
    self.reads: list[np.ndarray] = []
    self._data = batch(num_examples, seed)
    del self._data[schema.EXAMPLE_MASK]

  def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
    self.reads.append(np.asarray(indices))
    return {name: x[indices] for name, x in self._data.items()}
