"""Collects the results of all runs of a plan, for tables and plots."""

import json
from typing import Any

from mipd_jax.ablations import runs, statistics
from mipd_jax.ablations.plan import Plan, Run, Variant, World
from mipd_jax.ablations.runs import Result
from mipd_jax.ablations.statistics import Estimate, Values
from mipd_jax.metrics import calibration

# Of a world, beside its runs.
ZERO_SHOT = "zero_shot.json"


def summary(plan: Plan) -> dict[str, Any]:
  """The whole study as plain data.

  Returns:
    method, worlds, seeds; "variants" {name: its description, its figures as
    estimates, its mean curve}; "differences" [variant, against, figures];
    "zero_shot" {model: figures}. Missing runs are left out and counted.
  """
  reported = {
    variant.name: _results(plan, variant, held_out=False)
    for variant in plan.variants
  }
  selected = {
    variant.name: _results(plan, variant, held_out=True)
    for variant in plan.variants
  }
  both = {name: (reported[name], selected[name]) for name in reported}
  return {
    "method": statistics.METHOD,
    "worlds": [world.name for world in plan.worlds],
    "seeds": plan.seeds,
    "held_out_seeds": plan.held_out_seeds,
    "variants": {
      variant.name: _variant(plan, variant, *both[variant.name])
      for variant in plan.variants
    },
    "differences": [
      {
        "variant": name,
        "against": other,
        "figures": _differences(both[name], both[other]),
      }
      for name, other in plan.pairs()
    ],
    "zero_shot": _zero_shot(plan),
  }


def by_model(plan: Plan) -> dict[str, dict[str, Values]]:
  """Figures of all reported students and of the frozen models, run by run.

  Returns:
    {variant or frozen model: {figure: {(world, seed): value}}}; a frozen model
    has seed 0. Figures without a value are left out.
  """
  students = {
    variant.name: _by_figure(_results(plan, variant, held_out=False))
    for variant in plan.variants
  }
  return students | _frozen(plan)


def frozen(plan: Plan, world: World) -> dict[str, Result] | None:
  """Results of the frozen models in a world, by name.

  None if there are none, or if they are of other data; those of the first
  studies do not name their data.
  """
  wanted = plan.frozen_hash(world)
  try:
    results = json.loads((plan.folder / world.name / ZERO_SHOT).read_text())
    same = all(x.get("hash", wanted) == wanted for x in results.values())
  except (OSError, ValueError, AttributeError):  # absent, or damaged
    return None
  return results if same else None


def _results(plan: Plan, variant: Variant, *, held_out: bool) -> list[Result]:
  results = []
  for world in plan.worlds:
    wanted = plan.held_out_runs if held_out else plan.reported_runs
    for run in wanted(variant, world):
      results.append(runs.finished(run, run.hash(plan.held_out_verbs)))
  return [result for result in results if result is not None]


def _variant(
  plan: Plan, variant: Variant, reported: list[Result], selected: list[Result]
) -> dict[str, Any]:
  run: Run = plan.run(variant, plan.worlds[0], 0)
  curves = [r["curve"] for r in reported if "curve" in r]
  return {
    "preset": variant.preset,
    "changes": dict(variant.changes),
    "asks": variant.asks,
    "uses_unseen_names": run.uses_unseen_names,
    "runs": len(reported),
    "missing": len(plan.worlds) * plan.seeds - len(reported),
    "diverged": sum("diverged" in r for r in (*reported, *selected)),
    "seconds": sum(r["seconds"] for r in (*reported, *selected)),
    "figures": {
      name: _plain(statistics.estimate(values))
      for results in (reported, selected)
      for name, values in _by_figure(results).items()
    },
    "curve": calibration.mean_curve(curves) if curves else None,
  }


def _differences(mine: tuple, theirs: tuple) -> dict[str, dict | None]:
  result = {}
  for ours, others in zip(mine, theirs, strict=True):
    against = _by_figure(others)
    for name, values in _by_figure(ours).items():
      estimate = statistics.difference(values, against.get(name, {}))
      if estimate is not None:
        result[name] = _plain(estimate)
  return result


def _by_figure(results: list[Result]) -> dict[str, Values]:
  by_figure: dict[str, dict[tuple[str, int], float]] = {}
  for result in results:
    for name, value in result["figures"].items():
      if value is not None:
        key = (result["world"], result["seed"])
        by_figure.setdefault(name, {})[key] = value
  return by_figure


def _plain(estimate: Estimate | None) -> dict[str, Any] | None:
  if estimate is None:
    return None
  return vars(estimate) | {"excludes_zero": estimate.excludes_zero}


def _zero_shot(plan: Plan) -> dict[str, dict[str, Any]]:
  """Means over worlds of the scores of the frozen models' logits."""
  return {
    model: {n: _plain(statistics.estimate(v)) for n, v in figures.items()}
    for model, figures in _frozen(plan).items()
  }


def _frozen(plan: Plan) -> dict[str, dict[str, Values]]:
  values: dict[str, dict[str, dict]] = {}
  for world in plan.worlds:
    for model, result in (frozen(plan, world) or {}).items():
      for name, value in result["figures"].items():
        if value is not None:
          figures = values.setdefault(model, {})
          figures.setdefault(name, {})[world.name, 0] = value
  return values
