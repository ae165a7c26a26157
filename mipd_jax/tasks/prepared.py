"""Everything that training and evaluation read."""

import dataclasses
import functools
from typing import Any

import jax.numpy as jnp
import numpy as np

from input_pipeline import feature_cache, schema
from input_pipeline.dataset import Dataset
from mipd_jax.losses import banks
from mipd_jax.models.config import ModelConfig, Sizes
from mipd_jax.models.teaching import open_layers
from mipd_jax.models.teaching.open_layers import OpenLayers
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
  def _labels(self) -> dict[str, np.ndarray]:
    return {k: x for k, x in self._all_labels.items() if "/" not in k}

  @functools.cached_property
  def _all_labels(self) -> dict[str, np.ndarray]:
    return self.cache.labels()

  def open_layers(self, config: ModelConfig) -> OpenLayers | None:
    """The teacher's layers that prompts pass through, if the config has any."""
    if not config.teacher_branch or not config.open_layers:
      return None
    return open_layers.from_text(
      dict(self.cache.plan.options)["teacher_open_layers"]
    )

  def training_banks(
    self, config: ModelConfig, dtype: jnp.dtype
  ) -> dict[str, Any]:
    """`banks`, with the weights of open layers if the config has any."""
    if self.open_layers(config) is None:
      return self.banks
    return self.banks | open_layers.from_bank(self._all_labels, dtype)

  @functools.cached_property
  def banks(self) -> dict[str, np.ndarray]:
    """Text embeddings, and what the losses know about the training verbs."""
    return {
      **self._labels,
      **banks.of_verbs(self.train_images),
      banks.ROLE_CANDIDATES: role_candidates(
        self.cache.split("train", ()).annotations, self.dataset.vocabulary
      ),
    }
