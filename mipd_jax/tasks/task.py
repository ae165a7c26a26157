"""What a task defines; everything else is the same for all tasks."""

import pathlib
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, Protocol

import flax.linen as nn

from input_pipeline import feature_cache, stream
from input_pipeline.dataset import Dataset
from mipd_jax.config import Config
from mipd_jax.evaluation.situations import Evaluator, Predict
from mipd_jax.feeding.feeds import Feed
from mipd_jax.rationales.judging import Writer
from mipd_jax.rationales.source import RationaleSource
from mipd_jax.tasks.prepared import Prepared
from mipd_jax.teachers.interfaces import InstanceSource

# The result of evaluating a split; opaque to the stages.
Found = Any
STUDENT = "student"
# What else is scored, where the cache has it: name -> part and key.
ZERO_SHOT = {
  "teacher zero-shot": (feature_cache.VERB_LOGITS, "verb_logits"),
  "CLIP zero-shot": (feature_cache.CLIP_LOGITS, "clip_logits"),
}


def rationales_file(config: Config) -> pathlib.Path:
  """Where a language model's rationales are kept, beside the cache."""
  return pathlib.Path(f"{config.teacher.cache}-rationales") / "train.json"


class Task(Protocol):
  """One way of annotating images, and what a run learns from it.

  A run minimises `config.objective`.

  Attributes:
    config: of the run.
    has_report: whether `--mode=report` can show it.
  """

  config: Config
  has_report: bool

  # What the cache is made of.

  def check_folder(self) -> None:
    """Raises InputError, with the way to get them, if data are missing."""
    ...

  def dataset(self) -> Dataset:
    """The dataset of config.dataset.folder; a small world is drawn first."""
    ...

  def rationales(
    self, dataset: Dataset, writer: Writer | None
  ) -> RationaleSource:
    """Writes the rationales of `self.dataset()`.

    Args:
      dataset: that dataset.
      writer: a language model, or None.
    """
    ...

  def instances(self, dataset: Dataset) -> InstanceSource:
    """About which instances a teacher is asked."""
    ...

  def prepared(self, dataset: Dataset, cache: feature_cache.Cache) -> Prepared:
    """Dataset and cache, with the banks that model and losses read."""
    ...

  # Training.

  def model(self, prepared: Prepared) -> nn.Module:
    """(batch, banks) -> outputs; its `predict` is the student alone.

    Raises:
      InputError: the config's model does not fit the data.
    """
    ...

  def identity(self) -> Mapping[str, Any]:
    """What else a run must share with its checkpoints."""
    ...

  # Scores.

  def cached(self, key: str) -> Predict:
    """Predicts from an image's logits in the cache."""
    ...

  def eval_settings(self) -> Hashable:
    """What `eval_step` reads of the config; equal values, equal programs."""
    ...

  def eval_step(self, predict: Predict) -> Callable:
    """Jits (params, batch, banks) -> arrays that `evaluate` reads."""
    ...

  def evaluate(
    self,
    evaluator: Evaluator,
    source: stream.Source,
    what: str,
    feed: Feed | None = None,
  ) -> Found:
    """Runs a step of `eval_step` over a split, each image once.

    Args:
      evaluator: with that step.
      source, what, feed: of `Evaluator.results`.
    """
    ...

  def summary(self, prepared: Prepared, split: str, evaluation: Found) -> dict:
    """The scores, for results.json."""
    ...

  def dev_report(self, summary: dict) -> tuple[dict[str, float], float]:
    """Curves by name, and the score that chooses checkpoints.

    Unseen classes have no part in that score.
    """
    ...

  def details(self, prepared: Prepared, evaluation: Found) -> Mapping[str, Any]:
    """What else results.json says, of the student."""
    ...

  def write(
    self, prepared: Prepared, results: Mapping[str, Any], evaluation: Found
  ) -> Iterable[str]:
    """Writes tables and pictures into the work directory; says which."""
    ...
