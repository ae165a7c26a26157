"""One run of an ablation: train to the last step, score, write the result.

No checkpoints, no dev curves, no pictures: a run takes seconds on the small
world, and a killed one is repeated. The last step is scored, without
selection; or, if the plan says so, the best one by the dev split, as in a
run's evaluation.
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Array

from input_pipeline.io import atomic
from mipd_jax.ablations import programs
from mipd_jax.ablations.plan import BEST, Run
from mipd_jax.ablations.studied_tasks import StudiedTask
from mipd_jax.ablations.world_data import Data, WorldData, first_batch
from mipd_jax.config import Config
from mipd_jax.devices import sharding
from mipd_jax.evaluation.situations import Evaluator
from mipd_jax.models.mipd import of_prediction
from mipd_jax.report.files import jsonable
from mipd_jax.stages import train as train_stage
from mipd_jax.tasks.task import ZERO_SHOT, Found
from mipd_jax.training import loop
from mipd_jax.training.divergence import DivergedError, check_finite

# Last steps whose losses are averaged for the result.
_LAST = 50
Result = dict[str, Any]


def finished(run: Run, hash_: str) -> Result | None:
  """The result of a run with this hash, if there is one."""
  try:
    result = json.loads(run.path.read_text())
    return result if result.get("hash") == hash_ else None
  except (OSError, ValueError, AttributeError):  # absent, or damaged
    return None


def do(
  run: Run, world: WorldData, hash_: str, bias: float | None = None
) -> Result:
  """Trains, scores and writes one run.

  A student with a non-finite loss is a result too: without figures, with the
  place in `diverged`.

  Args:
    run: of the grid. With verbs held out it is scored only on the dev images
      for choices, otherwise on the reported split.
    world: of the run, open.
    hash_: of the run, kept with the result.
    bias: subtracted from trained verbs' scores in the calibrated figures.
  """
  started = time.monotonic()
  result = {
    "variant": run.variant,
    "world": run.world,
    "seed": run.seed,
    "held_out": run.held_out,
    "hash": hash_,
    "cache": world.prepared.cache.plan.plan_hash,
    "uses_unseen_names": run.uses_unseen_names,
    "bias": bias,
  }
  try:
    result |= _figures(run, world, bias)
  except DivergedError as error:
    result |= {"diverged": str(error).split(":")[0], "figures": {}}
  result["seconds"] = round(time.monotonic() - started, 2)
  with atomic.replacing(run.path) as path:
    path.write_text(json.dumps(jsonable(result), indent=1) + "\n")
  return result


def zero_shot(world: WorldData, config: Config) -> dict[str, Result]:
  """Figures of the frozen models' logits, by name of the model.

  With the bounds of the world, which need no model.
  """
  split, studied = config.eval.split, world.studied(config)
  parts = world.prepared.cache.plan.split(split).parts
  banks = world.banks(world.all_rows("train"), config)
  result = {}
  for name, (part, key) in ZERO_SHOT.items():
    if part in parts:
      step = programs.cached_scores(studied.task, key)
      evaluator = _evaluator(config, world, step, {}, banks)
      data = world.evaluated(split, part)
      evaluation = _evaluate(studied, evaluator, data, name)
      result[name] = studied.reported(evaluation, split, None)
  bounds = studied.bounds().items()
  return result | {name: {"figures": figures} for name, figures in bounds}


def _figures(run: Run, world: WorldData, bias: float | None) -> Result:
  config, studied = run.config, world.studied(run.config)
  data = world.training(
    train_stage.train_parts(config), config.train.shuffled, run.held_out
  )
  banks, model = world.banks(data.rows, config), studied.model()
  step = programs.student_scores(studied.task, model)

  def evaluation(params: Mapping[str, Any], split: Data) -> Found:
    evaluator = _evaluator(config, world, step, params, banks)
    return _evaluate(studied, evaluator, split, run.variant)

  best = None
  if run.score == BEST:

    def selection(params: Mapping[str, Any]) -> float:
      summary = studied.task.summary(
        world.prepared, "dev", evaluation(params, world.evaluated("dev"))
      )
      return studied.task.dev_report(summary)[1]

    best = _Best(selection)
  params, losses = _train(config, model, data, banks, world.mesh, best)
  result: Result = {"losses": losses}
  if best is not None:
    result["step"] = best.step
  if run.held_out:
    split = world.selection()
    scored = studied.selected(
      evaluation(params, split), split.rows, world.held_out
    )
  else:
    name = config.eval.split
    scored = studied.reported(
      evaluation(params, world.evaluated(name)), name, bias
    )
  return result | scored


class _Best:
  """The best parameters so far, as in `Checkpoints.save_best`.

  Attributes:
    step: their step.
    params: on the host, because the training step reuses its state's memory.
  """

  def __init__(self, selection: Callable[[Mapping[str, Any]], float]):
    """`selection`: score of a student's parameters on the dev split."""
    self._selection, self._score = selection, -math.inf
    self.step, self.params = 0, {}

  def look(self, step: int, params: Mapping[str, Any]) -> None:
    """Keeps the parameters if they are the best, the latest among equals."""
    score = self._selection(params)
    if score >= self._score:
      self._score, self.step = score, step
      self.params = jax.device_get(dict(params))


def _train(
  config: Config,
  model: nn.Module,
  data: Data,
  banks: Mapping[str, Array],
  mesh: jax.sharding.Mesh,
  best: _Best | None = None,
) -> tuple[dict[str, Any], dict[str, float]]:
  """The student's parameters, and the last losses.

  Args:
    config: of the run.
    model: of the run.
    data: its training data.
    banks: on the devices.
    mesh: of all devices.
    best: gets the parameters every `train.eval_every` steps and at the end;
      its parameters are returned, those of the last step without it.
  """
  train, seed = config.train, np.int32(config.seed)
  steps = loop.total_steps(config, data.source.num_examples)
  every = train.eval_every if best else 0
  step = programs.train_steps(model, config.objective, train, steps, mesh)
  start = programs.initial_state(model, train, steps, mesh)
  state = start(first_batch(data.source), banks, seed)
  turns = list(loop.chunks(0, steps, train.steps_per_dispatch, every))
  length = loop.program_length(turns)
  fetched = []
  for chunk, batches in zip(
    turns, data.feed.train(turns, seed=config.seed, length=length), strict=True
  ):
    state, metrics = step(state, batches, np.int32(chunk.count), banks, seed)
    fetched.append((chunk.count, metrics))
    if len(fetched) > 2:  # or batches pile up on the devices
      jax.block_until_ready(fetched[-3])
    done = chunk.first + chunk.count
    if best and (done == steps or (every and done % every == 0)):
      best.look(done, of_prediction(state.params))
  losses = _losses(config, data, jax.device_get(fetched))
  if best:
    return jax.device_put(best.params, sharding.replicated(mesh)), losses
  return of_prediction(state.params), losses


def _losses(config: Config, data: Data, fetched: list) -> dict[str, float]:
  """Means over the last steps.

  Raises:
    DivergedError: a loss of some step is not finite.
  """
  rows = [
    {name: value[i] for name, value in metrics.items()}
    for count, metrics in fetched
    for i in range(count)
  ]
  for step, row in enumerate(rows):
    check_finite(
      step,
      row,
      seed=config.seed,
      names=data.source.names,
      batch_size=config.train.batch_size,
    )
  last = rows[-_LAST:]
  return {name: float(np.mean([r[name] for r in last])) for name in rows[0]}


def _evaluator(
  config: Config,
  world: WorldData,
  step: Callable,
  params: Mapping[str, Any],
  banks: Mapping[str, Array],
) -> Evaluator:
  return Evaluator(step, params, banks, world.mesh, config.eval.batch_size)


def _evaluate(
  studied: StudiedTask, evaluator: Evaluator, data: Data, what: str
) -> Found:
  return studied.task.evaluate(evaluator, data.source, what, data.feed)
