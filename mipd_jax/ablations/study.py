"""The runs of a plan, world by world; finished runs are not repeated."""

import json
import time
from collections.abc import Callable, Iterator

from absl import logging

from input_pipeline.io import atomic
from mipd_jax.ablations import collect, runs
from mipd_jax.ablations.plan import Plan, Run, Variant, World
from mipd_jax.ablations.runs import Result
from mipd_jax.ablations.world_data import WorldData
from mipd_jax.metrics import calibration
from mipd_jax.report.files import jsonable
from mipd_jax.stages import prepare
from mipd_jax.stages import train as train_stage

Told = Callable[[Run, Result], None]


def prepare_worlds(plan: Plan) -> None:
  """Makes what is missing: datasets, encoders, caches."""
  for world in plan.worlds:
    prepare.prepare(plan.config(plan.variants[0], world, 0))


def run(plan: Plan, *, report: bool, told: Told | None = None) -> None:
  """Executes every run of the plan that has no result yet.

  Args:
    plan: the study.
    report: False only trains students with verbs held out and does not open
      the reported split.
    told: called with every reported run and its result.
  """
  clock = _Clock(sum(1 for _ in _missing(plan, report=report)))
  for world in plan.worlds:
    study = _WorldStudy(plan, world, clock, told)
    for variant in plan.variants:
      bias = study.bias(variant)
      if report:
        study.reported(variant, bias)
    if report:
      study.zero_shot()


def chosen_bias(results: list[Result]) -> float | None:
  """The best bias on dev of students with verbs held out.

  One per variant and world, from the average over its students' curves; None
  if there are none, or all of them diverged.
  """
  curves = [result["curve"] for result in results if "curve" in result]
  if not curves:
    return None
  return calibration.best_bias(calibration.mean_curve(curves))[0]


def _missing(plan: Plan, *, report: bool) -> Iterator[Run]:
  """Runs without a result of their hash, whatever its bias."""
  for world in plan.worlds:
    for variant in plan.variants:
      wanted = plan.held_out_runs(variant, world)
      if report:
        wanted += plan.reported_runs(variant, world)
      for run_ in wanted:
        if runs.finished(run_, run_.hash(plan.held_out_verbs)) is None:
          yield run_


class _Clock:
  """Logs after each run how long the others will take."""

  def __init__(self, total: int):
    self._total, self._done, self._start = total, 0, time.monotonic()

  def tick(self, run_: Run, result: Result) -> None:
    self._done += 1
    spent = time.monotonic() - self._start
    left = max(0, self._total - self._done) * spent / self._done
    logging.info(
      "Run %d of %d: %s, seed %d%s, %s: %.1f s; about %.0f min left.",
      self._done,
      self._total,
      run_.variant,
      run_.seed,
      ", verbs held out" if run_.held_out else "",
      run_.world,
      result["seconds"],
      left / 60,
    )


class _WorldStudy:
  """The runs of one world, which is opened for the first of them."""

  def __init__(
    self, plan: Plan, world: World, clock: _Clock, told: Told | None
  ):
    self._plan, self._world, self._clock = plan, world, clock
    self._told = told
    self._open: WorldData | None = None

  def bias(self, variant: Variant) -> float | None:
    """Trains the missing runs that choose it."""
    wanted = self._plan.held_out_runs(variant, self._world)
    return chosen_bias([self._result(run_, None) for run_ in wanted])

  def reported(self, variant: Variant, bias: float | None) -> None:
    """Trains the missing runs that are reported."""
    for run_ in self._plan.reported_runs(variant, self._world):
      result = self._result(run_, bias)
      if self._told is not None:
        self._told(run_, result)

  def zero_shot(self) -> None:
    """Scores the frozen models, once."""
    if collect.frozen(self._plan, self._world) is not None:
      return
    hash_ = self._plan.frozen_hash(self._world)
    path = self._plan.folder / self._world.name / collect.ZERO_SHOT
    run_ = self._plan.run(self._plan.variants[0], self._world, 0)
    models = runs.zero_shot(self._opened(run_), run_.config)
    results = {
      name: result | {"hash": hash_} for name, result in models.items()
    }
    with atomic.replacing(path) as partial:
      partial.write_text(json.dumps(jsonable(results), indent=1) + "\n")

  def _result(self, run_: Run, bias: float | None) -> Result:
    hash_ = run_.hash(self._plan.held_out_verbs)
    result = runs.finished(run_, hash_)
    if result is None or result["bias"] != bias:
      result = runs.do(run_, self._opened(run_), hash_, bias)
      self._clock.tick(run_, result)
    return result

  def _opened(self, run_: Run) -> WorldData:
    if self._open is None:
      plan = self._plan
      logging.info("Opening %s.", self._world.name)
      parts = frozenset(
        part
        for variant in plan.variants
        for part in train_stage.train_parts(
          plan.config(variant, self._world, 0)
        )
      )
      prepared = prepare.prepare(run_.config)
      self._open = WorldData(run_.config, prepared, parts, plan.held_out_verbs)
    return self._open
