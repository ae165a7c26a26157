"""Random batches of pairs, their banks, and a small model."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from input_pipeline import schema
from mipd_jax.losses import interactions
from mipd_jax.losses.banks import VERB_TRAINED
from mipd_jax.losses.interactions import PairLosses
from mipd_jax.losses.objective import Objective
from mipd_jax.models.config import Sizes
from mipd_jax.models.pairs import VERB_OBJECT, PairMipd
from tests import models

OBJECT_OF = np.array([0, 0, 0, 1, 1, 1, 2, 2, 3], np.int32)
SIZES = Sizes(num_verbs=len(OBJECT_OF), num_roles=2, num_nouns=4)
TRAINED = np.array([1, 1, 0, 1, 1, 0, 1, 0, 1], bool)
PAIRS, LABELS = 5, 2
TEXT_WIDTH, GRID_TOKENS, TEXT_LENGTH = 32, 17, 6


def batch(size: int = 4, seed: int = 0) -> dict[str, np.ndarray]:
  """2 to PAIRS pairs an image; the first has one label or two, trained."""
  rng = np.random.default_rng(seed)
  mask = np.arange(PAIRS) < rng.integers(2, PAIRS + 1, (size, 1))
  objects = np.where(mask, rng.integers(0, 4, mask.shape), 0)
  labels = np.full((size, PAIRS, LABELS), -1)
  for row in range(size):
    own = np.flatnonzero((objects[row, 0] == OBJECT_OF) & TRAINED)
    labels[row, 0, : len(own[:LABELS])] = own[:LABELS]
  centre = rng.uniform(0.3, 0.7, (size, PAIRS, 2, 2))
  extent = rng.uniform(0.1, 0.5, (size, PAIRS, 2, 2))
  boxes = np.concatenate([centre, extent], axis=-1).reshape(size, PAIRS, 8)

  def tokens(*axes):
    return rng.normal(size=(size, *axes)).astype(jnp.bfloat16)

  texts = len(schema.RATIONALES), TEXT_LENGTH
  told = np.arange(TEXT_LENGTH) < rng.integers(2, 7, (size, texts[0], 1))
  logits = 3 * rng.normal(size=(2, size, SIZES.num_verbs)).astype(np.float32)
  return {
    schema.EXAMPLE_MASK: np.ones(size, bool),
    schema.INDEX: np.arange(size, dtype=np.int32),
    schema.PAIR_MASK: mask,
    schema.PAIR_BOXES: np.where(mask[..., None], boxes, -1).astype(np.float32),
    schema.PAIR_OBJECT: objects.astype(np.int32),
    schema.PAIR_LABELS: labels.astype(np.int32),
    schema.PAIR_DETECTION: np.where(
      mask[..., None], rng.uniform(0.3, 1, (size, PAIRS, 2)), 0
    ).astype(np.float32),
    schema.IMAGE_SIZE: np.full((size, 2), 64, np.int32),
    schema.STUDENT_TOKENS: tokens(GRID_TOKENS, 24),
    schema.TEACHER_TOKENS: tokens(GRID_TOKENS, 40),
    schema.RATIONALE_TOKENS: tokens(*texts, 28),
    schema.RATIONALE_MASK: told,
    schema.VERB_LOGITS: logits[0],
    schema.CLIP_LOGITS: logits[1],
  }


def banks(seed: int = 0) -> dict[str, np.ndarray]:
  rng = np.random.default_rng(seed + 1000)

  def texts(count):
    return rng.normal(size=(count, TEXT_WIDTH)).astype(np.float32)

  return {
    "verb_text": texts(SIZES.num_verbs),
    "role_text": texts(SIZES.num_roles),
    "noun_text": texts(SIZES.num_nouns),
    VERB_OBJECT: OBJECT_OF,
    VERB_TRAINED: TRAINED,
  }


def objective(losses: PairLosses) -> Objective:
  """Of interactions, with these weights."""
  return Objective(interactions.TERMS, losses)


@functools.cache
def make(preset: str = "mipd"):
  """Module, its losses, and parameters with every value away from zero."""
  config, losses = models.configs(preset)
  model = PairMipd(config, SIZES)
  params = jax.jit(model.init)(jax.random.key(0), batch(), banks())["params"]
  rng = np.random.default_rng(1)
  params = jax.tree.map(
    lambda x: x + 0.02 * rng.normal(size=x.shape).astype(np.float32), params
  )
  form = {"pair": 1.0, "focal_alpha": 0.5, "focal_gamma": 0.2}
  return model, PairLosses(**vars(losses), **form), params
