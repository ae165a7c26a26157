"""Stage 3: scores the best checkpoint; writes tables, plots and pictures.

The tables can show students of other finished runs too (`read`).
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
from absl import logging

from input_pipeline import schema
from input_pipeline.io import atomic, json_files, paths
from input_pipeline.io.errors import InputError
from mipd_jax import tasks
from mipd_jax.config import Config
from mipd_jax.devices import distributed, sharding
from mipd_jax.evaluation import predictions
from mipd_jax.evaluation import situations as eval_lib
from mipd_jax.report import files
from mipd_jax.stages import train as train_stage
from mipd_jax.stages.prepare import Prepared
from mipd_jax.tasks.task import STUDENT, ZERO_SHOT
from mipd_jax.training import programs
from mipd_jax.training import state as state_lib
from mipd_jax.training.checkpoints import Best, check_identity, read_best


@dataclasses.dataclass(frozen=True, eq=False)
class BestStudent:
  """The best student of a run, by the dev split.

  Attributes:
    predict: predicts with the parameters of `best`.
    best: its checkpoint.
    banks: text embeddings, on all devices of the mesh.
    mesh: of all processes.
    batch_size: images per step over all devices.
  """

  predict: eval_lib.Predict
  best: Best
  banks: Mapping[str, jax.Array]
  mesh: jax.sharding.Mesh
  batch_size: int

  def evaluator(self, step: Callable) -> eval_lib.Evaluator:
    """Runs a step with the student's parameters."""
    return eval_lib.Evaluator(
      step, self.best.params, self.banks, self.mesh, self.batch_size
    )


def open_student(config: Config, prepared: Prepared) -> BestStudent:
  """Reads the best checkpoint of a run, which is checked already."""
  mesh = train_stage.make_mesh(config)
  whole = sharding.replicated(mesh)
  model = tasks.of(config).model(prepared)
  banks = jax.device_put(dict(prepared.banks), whole)
  parts = train_stage.student_parts(config)
  source = prepared.cache.split(config.eval.split, parts)
  like = state_lib.student_shapes(
    model, programs.example_batch(source), banks, whole
  )
  return BestStudent(
    train_stage.student_predict(model),
    read_best(config.workdir, like),
    banks,
    mesh,
    config.eval.batch_size,
  )


def evaluate(config: Config, prepared: Prepared) -> dict:
  """Scores student and teacher on the chosen split and writes the results.

  Returns:
    The content of results.json.
  """
  task, split = tasks.of(config), config.eval.split
  bias = config.eval.trained_bias
  check(config)
  others = read(config)
  identity = train_stage.identity(config, prepared)
  distributed.agreed(lambda: check_identity(config.workdir, identity))
  student = open_student(config, prepared)
  best = student.best

  def run(predict, parts, what):
    source = train_stage.stored(prepared, split, parts)
    evaluator = student.evaluator(task.eval_step(predict))
    return task.evaluate(evaluator, source, f"{split}, {what}")

  parts = train_stage.student_parts(config)
  scored = run(student.predict, parts, STUDENT)
  models = {STUDENT: task.summary(prepared, split, scored)}
  if bias:
    name = f"{STUDENT}, trained verbs {-bias:+g}"
    less = eval_lib.less_trained(student.predict, bias)
    evaluation = run(less, parts, name)
    models[name] = task.summary(prepared, split, evaluation)
  models |= others
  there = prepared.cache.plan.split(split).parts
  for name, (part, key) in ZERO_SHOT.items():
    if part in there:
      evaluation = run(task.cached(key), (part,), name)
      models[name] = task.summary(prepared, split, evaluation)
  results = {
    "dataset": prepared.dataset.name,
    "split": split,
    "preset": config.preset,
    "step": best.step,
    "seed": config.seed,
    "config_hash": config.hash(),
    **({"damaged": list(best.damaged)} if best.damaged else {}),
    "models": models,
    **task.details(prepared, scored),
  }
  if distributed.is_first():
    written = task.write(prepared, results, scored)
    logging.info("%s are in %s.", ", ".join(written), config.workdir)
  if config.eval.predictions:
    _write_predictions(config, prepared, student, scored)
  return results


def check(config: Config) -> None:
  """Raises for files that `evaluate` could not write, before long work."""
  if config.eval.predictions:
    atomic.check_target(config.eval.predictions, "--config.eval.predictions")


def _write_predictions(
  config: Config,
  prepared: Prepared,
  student: BestStudent,
  scored: eval_lib.Evaluation,
) -> None:
  """Writes the scored frames and those of the other listed verbs."""
  words = prepared.dataset.vocabulary
  source = train_stage.stored(
    prepared, config.eval.split, train_stage.student_parts(config)
  )
  verbs = predictions.listed_verbs(scored.verb_scores)
  listed = predictions.listed_frames(
    student.evaluator(predictions.compile_frames_step(student.predict)),
    source,
    verbs=verbs,
    frames=words.frame_array,
  )
  if not distributed.is_first():
    return
  split = prepared.cache.split(config.eval.split, ())
  entries = predictions.entries(
    words, split.annotations[schema.VERB], scored.frames, verbs, listed
  )
  path = config.eval.predictions
  predictions.write(path, zip(split.names, entries, strict=True))
  logging.info(
    "Predictions of %s are in %s; python -m mipd_jax.metrics.swig scores them.",
    config.eval.split,
    path,
  )


# Config fields that two runs in one table must share.
_SHARED = ("task", "dataset", "interactions")
_RERUN = (
  "finish that run with the same data, or leave --config.eval.beside empty"
)


def read(config: Config) -> dict[str, Mapping[str, Any]]:
  """Scores of the students of `config.eval.beside`.

  They are named by their preset, or by their folder if that name is taken.

  Raises:
    InputError: a run has not been evaluated, or used other data.
  """
  scores_of: dict[str, Mapping[str, Any]] = {}
  for folder in filter(None, map(str.strip, config.eval.beside.split(","))):
    results = _results(folder, config)
    name = results["preset"]
    if name in scores_of:
      name = pathlib.PurePath(folder).name
    for model, scores in results["models"].items():
      if model.startswith(STUDENT):
        scores_of[model.replace(STUDENT, name, 1)] = scores
  return scores_of


def _results(folder: str, config: Config) -> Mapping[str, Any]:
  place = paths.path(folder)
  try:
    results = files.read_results(place, config.eval.split, _RERUN)
    other = json_files.read(place / "config.json", dict, _RERUN)
  except InputError as error:
    raise InputError(
      f"--config.eval.beside: {error.problem}", error.remedy
    ) from None
  mine = config.to_dict()
  for field in _SHARED:
    if other.get(field) != mine.get(field):
      raise InputError(
        f"--config.eval.beside: {field} of {place / 'config.json'} is not "
        "this run's",
        _RERUN,
      )
  return results
