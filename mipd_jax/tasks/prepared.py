"""Everything that training and evaluation read."""

import dataclasses
import functools

import numpy as np

from input_pipeline import feature_cache, schema
from input_pipeline.dataset import Dataset
from mipd_jax.losses import banks
from mipd_jax.models.config import Sizes
from mipd_jax.tasks.instances import role_candidates


@dataclasses.dataclass(frozen=True)
class Prepared:
  """A dataset and its cache, as training and evaluation see them.

  A task that reads more of its own dataset has a subclass, whose `dataset` is
  of that kind.

  Attributes:
    dataset: images, annotations and words.
    cache: the frozen encoders' features of it.
  """

  dataset: Dataset
  cache: feature_cache.Cache

  @property
  def sizes(self) -> Sizes:
    words = self.dataset.vocabulary
    return Sizes(len(words.verbs), len(words.roles), len(words.nouns))

  @property
  def groups(self) -> np.ndarray:
    """Group of each verb, int [V]."""
    return np.asarray(self.dataset.groups.groups)

  @functools.cached_property
  def train_images(self) -> np.ndarray:
    """Training images of each verb, int [V]."""
    verbs = self.cache.split("train", ()).annotations[schema.VERB]
    return np.bincount(verbs, minlength=self.sizes.num_verbs)

  @functools.cached_property
  def banks(self) -> dict[str, np.ndarray]:
    """Text embeddings, and what the losses know about the training verbs."""
    return {
      **self.cache.labels(),
      **banks.of_verbs(self.train_images),
      banks.ROLE_CANDIDATES: role_candidates(
        self.cache.split("train", ()).annotations, self.dataset.vocabulary
      ),
    }
