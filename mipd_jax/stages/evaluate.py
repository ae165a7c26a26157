"""Stage 3: scores the best checkpoint, writes tables, plots and pictures."""

import jax
from absl import logging

from input_pipeline import atomic, feature_cache, schema
from mipd_jax import distributed, sharding, tasks
from mipd_jax.config import Config
from mipd_jax.evaluation import evaluate as eval_lib
from mipd_jax.evaluation import predictions
from mipd_jax.stages import beside
from mipd_jax.stages import train as train_stage
from mipd_jax.stages.prepare import Prepared
from mipd_jax.tasks.task import STUDENT, ZERO_SHOT
from mipd_jax.training import program
from mipd_jax.training import state as state_lib
from mipd_jax.training.checkpoints import Best, check_identity, read_best

__all__ = ["STUDENT", "ZERO_SHOT", "evaluate"]


def evaluate(config: Config, prepared: Prepared) -> dict:
  """Scores student and teacher on the chosen split and writes the results.

  Returns:
    The content of results.json.
  """
  task, split = tasks.of(config), config.eval.split
  bias = config.eval.trained_bias
  check(config)
  others = beside.read(config)
  mesh = train_stage.make_mesh(config)
  model = train_stage.make_model(config, prepared)
  banks = jax.device_put(dict(prepared.banks), sharding.replicated(mesh))
  best = _best(config, prepared, model, banks, mesh)
  params = best.params

  def run(predict, part, what):
    return task.evaluate(
      *(config, prepared, split, task.eval_step(config, prepared, predict)),
      *(params, train_stage.stored(prepared, split, (part,)), banks, mesh),
      what=f"{split}, {what}",
    )

  predict = train_stage.student_predict(model)
  student = run(predict, feature_cache.STUDENT, STUDENT)
  models = {STUDENT: task.summary(config, prepared, split, student)}
  if bias:
    name = f"{STUDENT}, trained verbs {-bias:+g}"
    found = run(
      eval_lib.less_trained(predict, bias), feature_cache.STUDENT, name
    )
    models[name] = task.summary(config, prepared, split, found)
  models |= others
  there = prepared.cache.plan.split(split).parts
  for name, (part, key) in ZERO_SHOT.items():
    if part in there:
      found = run(task.cached(key), part, name)
      models[name] = task.summary(config, prepared, split, found)
  results = {
    "dataset": prepared.dataset.name,
    "split": split,
    "preset": config.preset,
    "step": best.step,
    "seed": config.seed,
    "config_hash": config.hash(),
    **({"damaged": list(best.damaged)} if best.damaged else {}),
    "models": models,
    **task.details(config, prepared, student),
  }
  if distributed.is_first():
    host_params = jax.device_get(params)
    written = task.write(
      config, prepared, results, student, predict, host_params
    )
    logging.info("%s are in %s.", ", ".join(written), config.workdir)
  if config.eval.predictions:
    _write_predictions(
      *(config, prepared, student, predict, params, banks, mesh)
    )
  return results


def check(config: Config) -> None:
  """Complains of what `evaluate` could not write; ask before long work."""
  if config.eval.predictions:
    atomic.check_target(config.eval.predictions, "--config.eval.predictions")


def _write_predictions(
  config, prepared, student, predict, params, banks, mesh
) -> None:
  """Writes what was scored, and the frames of the other listed verbs."""
  words = prepared.dataset.vocabulary
  source = train_stage.stored(
    prepared, config.eval.split, (feature_cache.STUDENT,)
  )
  verbs = predictions.listed_verbs(student.verb_scores)
  listed = predictions.listed_frames(
    *(predict, params, source, banks, mesh),
    verbs=verbs,
    frames=words.frame_array,
    batch_size=config.eval.batch_size,
  )
  if not distributed.is_first():
    return
  split = prepared.cache.split(config.eval.split, ())
  found = predictions.entries(
    *(words, split.annotations[schema.VERB], student.frames, verbs, listed)
  )
  path = config.eval.predictions
  predictions.write(path, zip(split.names, found, strict=True))
  logging.info(
    "Predictions of %s are in %s; python -m mipd_jax.metrics.swig scores them.",
    *(config.eval.split, path),
  )


def _best(config, prepared, model, banks, mesh) -> Best:
  """The student's parameters, best by the dev split, unseen classes aside."""
  identity = train_stage.identity(config, prepared)
  distributed.agreed(lambda: check_identity(config.workdir, identity))
  source = prepared.cache.split(config.eval.split, (feature_cache.STUDENT,))
  like = state_lib.student_shapes(
    model, program.example_batch(source), banks, sharding.replicated(mesh)
  )
  return read_best(config.workdir, like)
