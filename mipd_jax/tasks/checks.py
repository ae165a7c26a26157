"""Fields of a config that do not go together, whatever the task."""

from typing import Any

from input_pipeline import schema
from mipd_jax.models import outputs
from mipd_jax.models.teaching import open_layers


def check(config: Any) -> None:
  """Refuses what contradicts itself.

  Args:
    config: a `mipd_jax.config.Config`.

  Raises:
    ValueError: names the fields, and what to set.
  """
  _check_terms(config)
  _check_sentences(config)
  _check_open_layers(config)


def _check_terms(config: Any) -> None:
  """Terms need the outputs and the parts of the cache that they read."""
  needed = config.objective.teacher_terms
  if needed and not config.model.teacher_branch:
    raise ValueError(
      f"model.teacher_branch is off but loss.{needed[0]} is not 0"
    )
  for term in config.objective.used:
    asks = schema.ANSWER_CLASSES in term.batch
    if asks and not config.teacher.instances.show:
      raise ValueError(
        f"loss.{term.name} is not 0, but teacher.instances.show, how the "
        "teacher is shown instances, is empty"
      )
    foretells = outputs.FORETOLD in term.outputs
    if foretells and not config.model.foretell:
      raise ValueError("loss.foretell is not 0: set model.foretell=True too")
    by_box = outputs.BOX_NOUN_SCORES in term.outputs
    if by_box and not config.model.box_nouns:
      raise ValueError(
        f"loss.{term.name} is not 0: set model.box_nouns=True too"
      )


def _check_sentences(config: Any) -> None:
  """Gaze targets in a frozen space are compared with sentences."""
  frozen = config.model.teacher_branch and config.model.frozen_gaze
  if frozen and not config.teacher.instances.sentences:
    raise ValueError(
      "model.rationale_space='frozen' with model.gaze compares gaze targets "
      "with the sentences about each instance: set "
      "teacher.instances.sentences=True, or model.gaze=False"
    )
  if config.loss.gaze_align and not frozen:
    raise ValueError(
      "loss.gaze_align is not 0, but there are no sentences about instances "
      "to compare with: set model.rationale_space='frozen' and model.gaze"
    )


def _check_open_layers(config: Any) -> None:
  """The cache must hold the layers that prompts pass, and their tokens."""
  opened, model = config.teacher.open_layers, config.model
  passes = model.teacher_branch and model.open_layers
  if passes and not opened:
    raise ValueError(
      "model.open_layers lets prompts pass through layers that the cache "
      "does not hold: set teacher.open_layers"
    )
  if not model.teacher_branch or not opened:
    return
  kind, _ = open_layers.parse(opened)
  if kind == open_layers.TOWER and not passes:
    raise ValueError(
      f"teacher.open_layers={opened!r} keeps tokens of a lower depth: set "
      "model.open_layers=True"
    )
  queries = model.teacher_pooling == "learned_query"
  if kind == open_layers.QFORMER and passes and not queries:
    raise ValueError(
      f"teacher.open_layers={opened!r} reads learned queries: set "
      "model.teacher_pooling='learned_query'"
    )
