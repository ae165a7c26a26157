"""What a task has to answer; everything else is the same for all."""

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

# What a split's evaluation gives; opaque to the stages.
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

  What is minimised is `config.objective`.

  Attributes:
    config: of the run.
    has_report: whether `--mode=report` can show it.
  """

  config: Config
  has_report: bool

  # What the cache is made of.

  def check_folder(self) -> None:
    """Raises InputError, with the way to get it, if data are missing."""
    ...

  def dataset(self) -> Dataset:
    """The dataset of config.dataset.folder, drawn first if it is a small
    world's."""
    ...

  def rationales(
    self, dataset: Dataset, writer: Writer | None
  ) -> RationaleSource:
    """Writes the rationales of `self.dataset()`; `writer` is a language
    model, or None."""
    ...

  def prepared(self, dataset: Dataset, cache: feature_cache.Cache) -> Prepared:
    """Both, with the banks that the model and the losses read."""
    ...

  # Training.

  def model(self, prepared: Prepared) -> nn.Module:
    """(batch, banks) -> outputs; its `predict` is the student alone.

    Raises:
      InputError: the config asks for a model that the data do not fit.
    """
    ...

  def identity(self) -> Mapping[str, Any]:
    """What else a run shares with its checkpoints."""
    ...

  # Scores.

  def cached(self, key: str) -> Predict:
    """Predicts by an image's logits in the cache."""
    ...

  def eval_settings(self) -> Hashable:
    """What `eval_step` reads of the config; equal ones, equal programs."""
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

  def summary(self, prepared: Prepared, split: str, found: Found) -> dict:
    """The scores, for results.json."""
    ...

  def dev_report(self, summary: dict) -> tuple[dict[str, float], float]:
    """Curves by name, and what checkpoints are chosen by: no unseen class."""
    ...

  def details(self, prepared: Prepared, found: Found) -> Mapping[str, Any]:
    """What else results.json says, of the student."""
    ...

  def write(
    self, prepared: Prepared, results: Mapping[str, Any], found: Found
  ) -> Iterable[str]:
    """Writes tables and pictures into the work directory; says which."""
    ...
