"""Stage 2: trains the student on the cache."""

import functools
import json
from typing import Any

import flax.linen as nn
import jax
from absl import logging

from input_pipeline import feature_cache, order, schema
from input_pipeline.io import atomic, paths
from mipd_jax import tasks
from mipd_jax.config import Config
from mipd_jax.devices import compilation, distributed, sharding
from mipd_jax.evaluation import situations as eval_lib
from mipd_jax.feeding import feeds, resident, shuffled
from mipd_jax.models import eyes
from mipd_jax.stages.prepare import Prepared
from mipd_jax.training import loop
from mipd_jax.training.checkpoints import Checkpoints

# Training settings that must stay the same when a run continues; the others
# (steps, how often to log) may change.
_TRAIN_IDENTITY = (
  "batch_size",
  "learning_rate",
  "weight_decay",
  "clip_norm",
  "schedule",
  "warmup_steps",
  "dtype",
  "shuffled",
)


def train(config: Config, prepared: Prepared) -> bool:
  """Trains to the end; True unless a signal stopped the run."""
  mesh = make_mesh(config)
  model = tasks.of(config).model(prepared)
  workdir = paths.path(config.workdir)
  checkpoints = Checkpoints(
    workdir, identity(config, prepared), config.train.keep
  )
  if distributed.is_first():
    with atomic.replacing(workdir / "config.json") as path:
      path.write_text(json.dumps(config.to_dict(), indent=2) + "\n")
  source = stored(prepared, "train", train_parts(config))
  inputs = loop.TrainInputs(
    source=shuffled.control(source, config.train.shuffled),
    names=source.names,
    banks=prepared.training_banks(
      config.model, compilation.compute_dtype(config.train.dtype)
    ),
    dev=_dev_scores(config, prepared, model, mesh),
  )
  logging.info(
    "Training %s: %d images, %d steps of %d, on %d x %s.",
    config.name,
    source.num_examples,
    loop.total_steps(config, source.num_examples),
    config.train.batch_size,
    jax.device_count(),
    jax.devices()[0].device_kind,
  )
  try:
    _, complete = loop.train(config, model, inputs, mesh, checkpoints)
  finally:
    checkpoints.close()
  return complete


def make_mesh(config: Config) -> jax.sharding.Mesh:
  mesh = sharding.make_mesh(config.mesh.data, config.mesh.model)
  for size in (config.train.batch_size, config.eval.batch_size):
    sharding.check_batch_size(mesh, size)
  return mesh


def train_parts(config: Config) -> tuple[str, ...]:
  """The parts of the cache that training reads: only what it uses."""
  read = config.objective.batch_keys.union(
    eyes.of(config.model).keys, config.model.teacher_features
  )
  return feature_cache.parts_of(read & schema.FEATURES.keys())


def student_parts(config: Config) -> tuple[str, ...]:
  """The parts of the cache that the student's eyes read."""
  return feature_cache.parts_of(eyes.of(config.model).keys)


def identity(config: Config, prepared: Prepared) -> dict[str, Any]:
  """What a run must share with its checkpoints."""
  values = config.to_dict()
  train_values = {name: values["train"][name] for name in _TRAIN_IDENTITY}
  return {
    "preset": config.preset,
    "seed": config.seed,
    "model": values["model"],
    "loss": values["loss"],
    "train": train_values,
    "cache": prepared.cache.plan.plan_hash,
    "data_order": order.NAME,
    **tasks.of(config).identity(),
  }


def stored(
  prepared: Prepared, split: str, parts: tuple[str, ...]
) -> feature_cache.StoredSplit:
  """A split whose int8 features stay int8 until the step."""
  return feature_cache.StoredSplit(prepared.cache.split(split, parts))


def _dev_scores(config, prepared, model, mesh):
  """Function of a state: dev curves, and the score that chooses."""
  task = tasks.of(config)
  source = stored(prepared, "dev", student_parts(config))
  step = task.eval_step(student_predict(model))
  banks = jax.device_put(dict(prepared.banks), sharding.replicated(mesh))
  size = config.eval.batch_size

  @functools.cache
  def feed():
    """Made when dev is due, to fit the memory that training features left."""
    layout = resident.layout(source, size, mesh)
    train = config.train
    with feeds.opening(
      source, layout, _dev_residence(config), train.resident_gib, "dev"
    ) as ready:
      return ready()

  def dev(state):
    evaluator = eval_lib.Evaluator(step, state.params, banks, mesh, size)
    evaluation = task.evaluate(evaluator, source, "dev", feed())
    return task.dev_report(task.summary(prepared, "dev", evaluation))

  return dev


def _dev_residence(config: Config) -> str:
  """The dev split's setting: training features come first in memory."""
  return "off" if config.train.resident == "off" else "auto"


def student_predict(model: nn.Module) -> eval_lib.Predict:
  """The student as a named predict function."""

  def predict(params, batch, banks):
    return model.apply({"params": params}, batch, banks, method=model.predict)

  return predict
