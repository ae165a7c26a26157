"""One run of an ablation: train to the last step, score, write the result.

No checkpoints, no dev curves, no pictures: a run is seconds on the small
world, and one that was killed is done again. The last step is scored, so
nothing is selected.
"""

import json
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from input_pipeline import atomic
from input_pipeline.small_world import draw_world, oracle
from mipd_jax.ablations import figures, programs
from mipd_jax.ablations.plan import Run
from mipd_jax.ablations.world_data import Data, WorldData, first_batch
from mipd_jax.config import Config
from mipd_jax.evaluation import evaluate as eval_lib
from mipd_jax.evaluation.evaluate import Evaluation
from mipd_jax.report.files import jsonable
from mipd_jax.stages import train as train_stage
from mipd_jax.tasks.task import ZERO_SHOT
from mipd_jax.training import loop
from mipd_jax.training.divergence import DivergedError, check_finite

# Last steps whose losses are averaged for the result.
_LAST = 50
Result = dict[str, Any]


def finished(run: Run, hash_: str) -> Result | None:
  """The result of a run that was done with this hash, if there is one."""
  try:
    found = json.loads(run.path.read_text())
  except (OSError, ValueError):
    return None
  return found if found.get("hash") == hash_ else None


def do(
  run: Run, world: WorldData, hash_: str, bias: float | None = None
) -> Result:
  """Trains, scores and writes one run.

  A student whose loss is no number is a result too: without figures, with
  `diverged` saying where.

  Args:
    run: of the grid. Held out: it is scored on what may choose, and on
      nothing else. Otherwise on the split that is reported.
    world: of the run, open.
    hash_: of the run, kept with the result.
    bias: off the scores of trained verbs in the calibrated figures.
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

  Of a small world also those of an oracle that reads every attribute.
  """
  split = world.prepared.cache.plan.split(config.eval.split)
  result = {}
  for name, (part, key) in ZERO_SHOT.items():
    if part in split.parts:
      data = world.reported(part)
      step = programs.cached_scores(key)
      found = _evaluate(config, world, data, step, {}, {}, name)
      result[name] = figures.of_report(found, data.verbs, *_verbs(world))
  if config.dataset.world is not None:
    accuracy = oracle.verb_accuracy(draw_world(config.dataset.world))
    result["oracle"] = {"figures": figures.of_oracle(accuracy)}
  return result


def _figures(run: Run, world: WorldData, bias: float | None) -> Result:
  config = run.config
  data = world.training(
    train_stage.train_parts(config), config.train.shuffled, run.held_out
  )
  banks = world.banks(data.verbs)
  model = world.model(config)
  params, losses = _train(config, model, data, banks, world.mesh)
  step = programs.student_scores(model)

  def score(split: Data) -> Evaluation:
    return _evaluate(config, world, split, step, params, banks, run.variant)

  if run.held_out:
    split = world.selection()
    scored = figures.of_selection(
      score(split).verb_scores, split.verbs, world.held_out
    )
  else:
    split = world.reported()
    scored = figures.of_report(score(split), split.verbs, *_verbs(world), bias)
  return {"losses": losses} | scored


def _train(
  config: Config,
  model: Any,
  data: Data,
  banks: Mapping[str, Array],
  mesh: jax.sharding.Mesh,
) -> tuple[dict[str, Any], dict[str, float]]:
  """The student's parameters after the last step, and the last losses."""
  train, seed = config.train, np.int32(config.seed)
  steps = loop.total_steps(config, data.source.num_examples)
  step = programs.train_steps(model, config.objective, train, steps, mesh)
  start = programs.initial_state(model, train, steps, mesh)
  state = start(first_batch(data.source), banks, seed)
  ours = list(loop.chunks(0, steps, train.steps_per_dispatch))
  length = loop.program_length(ours)
  fetched = []
  for chunk, batches in zip(
    ours, data.feed.train(ours, seed=config.seed, length=length), strict=True
  ):
    state, metrics = step(state, batches, np.int32(chunk.count), banks, seed)
    fetched.append((chunk.count, metrics))
    if len(fetched) > 2:  # or batches pile up on the devices
      jax.block_until_ready(fetched[-3])
  losses = _losses(config, data, jax.device_get(fetched))
  return {"student": state.params["student"]}, losses


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


def _evaluate(config, world, data, step, params, banks, what) -> Evaluation:
  evaluator = eval_lib.Evaluator(
    step, params, banks, world.mesh, config.eval.batch_size
  )
  return eval_lib.evaluate(evaluator, data.source, what, data.feed)


def _verbs(world: WorldData) -> tuple[np.ndarray, np.ndarray]:
  """Group of each verb, and whether it has training images."""
  return world.prepared.groups, world.prepared.train_images > 0
