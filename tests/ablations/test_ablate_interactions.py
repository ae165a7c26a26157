"""A study of interactions: the same driver, what main trains and scores."""

import dataclasses
import itertools
import json

import pytest

from benchmarks import hico_small_world
from configs import hico_det
from input_pipeline.io.errors import InputError
from mipd_jax.ablations import collect, runs, study
from mipd_jax.ablations import plan as plan_lib
from mipd_jax.ablations.plan import Plan, Variant, World
from mipd_jax.config import unpack
from mipd_jax.metrics.hico_det_scores import NAMES
from mipd_jax.stages import evaluate, prepare
from mipd_jax.stages import train as train_stage
from mipd_jax.tasks.interactions import Interactions
from mipd_jax.tasks.task import STUDENT
from tests.fakes import ablation_fakes as fakes
from tests.fixtures import pair_world_fixture as pairs

VARIANTS = (Variant("plain", "no_distillation"), Variant("mipd"))


def _plan(folder_, score=plan_lib.BEST, **changes) -> Plan:
  values = hico_det.get_config("debug")
  values.interactions.slots = pairs.SLOTS
  values.train.eval_every = 3
  given = {"seeds": 1, "held_out_seeds": 0, "held_out_verbs": 0} | changes
  return Plan(
      values.to_dict(), VARIANTS, (World("w", {}),), folder=folder_,
      score=score, **given,
    )  # fmt: skip


@pytest.mark.parametrize("row", hico_small_world.ROWS)
@pytest.mark.parametrize("number", [0, 1])
def test_the_benchmark_runs_what_the_config_file_says(row, number):
  plan = hico_small_world.make_plan([row], "UC", worlds=2, seeds=1)
  config = plan.config(plan.variants[0], plan.worlds[number], 0)
  preset, changes = hico_small_world.ROWS[row]
  wanted = unpack(hico_det.get_config(f"small_world,{preset}"))
  assert config.train == wanted.train and config.model == wanted.model
  loss = dataclasses.replace(wanted.loss, **changes)
  if not loss.verb_kl:  # then nobody reads them
    loss = dataclasses.replace(loss, verb_kl_names=config.loss.verb_kl_names)
  assert config.loss == loss
  told = json.dumps(config.to_dict())
  assert ("small_world-1" in told) == bool(number)
  data = wanted.to_dict()
  if number:
    data = json.loads(
      json.dumps(data).replace("hico_small_world/", "hico_small_world-1/")
    )
  data["teacher"]["cache"] += "-UC"
  data["interactions"] |= {"split": "UC"}
  data["interactions"]["world"] |= {"seed": number}
  for part in ("dataset", "teacher", "interactions"):
    assert config.to_dict()[part] == data[part]


def test_what_is_scored_is_part_of_a_hash_and_the_last_step_has_no_name(
  tmp_path,
):
  last, best = (_plan(tmp_path, score) for score in plan_lib.SCORED)
  first, second = (
    p.run(VARIANTS[0], p.worlds[0], 0).hash(0) for p in (last, best)
  )
  assert first != second
  # As it was before a plan could say it.
  assert fakes.plan(tmp_path).score == plan_lib.LAST


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"held_out_seeds": 1}, "have no verbs held out"),
    ({"score": "mean"}, "'mean' is not one of"),
  ],
)
def test_a_plan_that_asks_for_what_there_is_not(tmp_path, changes, message):
  with pytest.raises(InputError, match=message):
    _plan(tmp_path, **changes)


def test_the_best_step_is_not_chosen_with_verbs_held_out(tmp_path):
  plan = fakes.plan(tmp_path)
  with pytest.raises(InputError, match="score='best' have no verbs held out"):
    dataclasses.replace(plan, score=plan_lib.BEST)
  with pytest.raises(InputError, match="give at least one"):
    dataclasses.replace(plan, held_out_seeds=0)
  dataclasses.replace(plan, held_out_seeds=0, score=plan_lib.BEST)


def test_the_best_step_is_kept_and_of_equals_the_latest():
  scores = {"a": 1.0, "b": 3.0, "c": 3.0, "d": 2.0}
  best = runs._Best(lambda params: scores[params["student"]])
  for step, name in enumerate(scores, 1):
    best.look(step, {"student": name})
  assert (best.step, best.params) == (3, {"student": "c"})


@pytest.mark.slow
def test_a_study_of_interactions_scores_what_main_scores(
  tmp_path,
  prepared,
  monkeypatch,
):
  """Both rows to the last digit, and frozen models; then nothing is due."""
  fakes.one_device(monkeypatch)
  monkeypatch.setattr(prepare, "prepare", lambda config: prepared)
  real, looks = Interactions.dev_report, itertools.count()

  def first_is_best(task, summary):
    """Dev scores of so few images tie, and the last step would be taken."""
    return real(task, summary)[0], -float(next(looks))

  monkeypatch.setattr(Interactions, "dev_report", first_is_best)
  plan = _plan(tmp_path / "study")
  told = []
  study.run(plan, report=True, told=lambda run, found: told.append(run.variant))
  assert told == ["plain", "mipd"]
  found, steps = collect.by_model(plan), []
  for variant in VARIANTS:
    config = plan.config(variant, plan.worlds[0], 0)
    config = dataclasses.replace(
      config, workdir=str(tmp_path / variant.name), name=variant.name
    )
    assert train_stage.train(config, prepared)
    results = evaluate.evaluate(config, prepared)
    run = plan.run(variant, plan.worlds[0], 0)
    result = runs.finished(run, run.hash(0))
    assert result["step"] == results["step"]
    steps.append(result["step"])
    assert result["detector"] == results["detector"]
    models = results["models"]
    assert result["figures"] == {x: models[STUDENT][x] for x in NAMES}
    assert result["figures"]["full"] > 0
    for name in ("teacher zero-shot", "CLIP zero-shot"):
      scores = {x: models[name][x] for x in NAMES}
      wanted = {x: value for x, value in scores.items() if value is not None}
      assert {x: v["w", 0] for x, v in found[name].items()} == wanted
  assert steps == [3, 3]
  table = hico_small_world.table(
    {"no_distillation": found["plain"], "mipd": found["mipd"]}
  )
  assert table["mipd"]["unseen"]["gain"]["students"] == 1

  def again(*_):
    raise AssertionError("a finished run was done again")

  monkeypatch.setattr(runs, "do", again)
  monkeypatch.setattr(runs, "zero_shot", again)
  study.run(plan, report=True)
