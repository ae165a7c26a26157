"""Runs of a study: what they train, what is kept, what is done again."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest

from configs import ablations
from input_pipeline import feature_cache, schema
from mipd_jax import tasks
from mipd_jax.ablations import collect, programs, runs, study, world_data
from mipd_jax.ablations.plan import Variant
from mipd_jax.feeding import shuffled
from mipd_jax.stages import prepare
from mipd_jax.stages import train as train_stage
from mipd_jax.training import loop
from mipd_jax.training import step as step_lib
from mipd_jax.training.checkpoints import Checkpoints
from mipd_jax.training.divergence import DivergedError
from mipd_jax.training.state import make_optimizer
from tests.fakes import ablation_fakes as fakes
from tests.fixtures import batches


@pytest.fixture(autouse=True)
def _device(monkeypatch):
  fakes.one_device(monkeypatch)


@pytest.fixture
def prepared(monkeypatch):
  found = fakes.Prepared()
  monkeypatch.setattr(prepare, "prepare", lambda config: found)
  return found


@pytest.mark.slow
def test_a_run_trains_what_the_training_loop_trains(tmp_path, prepared):
  """The seed as an argument, shared features: bit for bit the same."""
  dropped = {"model": {"dropout": {"student": 0.3}}}
  plan = fakes.plan(tmp_path, Variant("plain", "no_distillation", dropped))
  config = plan.config(plan.variants[0], fakes.WORLD, seed=3)
  world = fakes.open_world(plan, prepared)
  data = world.training(train_stage.train_parts(config), "", False)
  model = world.studied(config).model()
  banks = world.banks(data.rows, world._config)
  other = plan.config(plan.variants[0], fakes.WORLD, seed=4)
  runs._train(other, model, data, banks, world.mesh)
  params, losses = runs._train(config, model, data, banks, world.mesh)
  program = programs.train_steps(
    model, config.objective, config.train, config.train.steps, world.mesh
  )
  assert program._cache_size() == 1  # one for both seeds

  source = train_stage.stored(prepared, "train", (feature_cache.STUDENT,))
  checkpoints = Checkpoints(tmp_path / "loop", {}, 1)
  inputs = loop.TrainInputs(
    source, source.names, prepared.banks, lambda _: ({}, 0.0)
  )
  try:
    state, complete = loop.train(
      config,
      tasks.of(config).model(prepared),
      inputs,
      world.mesh,
      checkpoints,
    )
  finally:
    checkpoints.close()
  assert complete and np.isfinite(losses["total"])
  for mine, wanted in zip(
    jax.tree.leaves(params),
    jax.tree.leaves(state.params["student"]),
    strict=True,
  ):
    np.testing.assert_array_equal(mine, wanted)


def _count(monkeypatch):
  """Notes the runs that are done."""
  done = []
  real = runs.do

  def do(run, *arguments):
    done.append(run.path.name)
    return real(run, *arguments)

  monkeypatch.setattr(runs, "do", do)
  return done


def test_a_study_that_was_killed_continues(tmp_path, prepared, monkeypatch):
  fakes.no_steps(monkeypatch)
  done = _count(monkeypatch)
  plan = fakes.plan(tmp_path, seeds=2)
  real = runs._figures

  def killed(run, *arguments):
    if run.seed == 1:
      raise KeyboardInterrupt
    return real(run, *arguments)

  monkeypatch.setattr(runs, "_figures", killed)
  with pytest.raises(KeyboardInterrupt):
    study.run(plan, report=True)
  monkeypatch.setattr(runs, "_figures", real)
  first = ["plain-0.held_out.json", "plain-0.json"]
  assert done == [*first, "plain-1.json"]
  assert not (tmp_path / "w" / "plain-1.json").exists()

  done.clear()
  study.run(plan, report=True)
  assert done == ["plain-1.json"]
  done.clear()
  study.run(plan, report=True)
  assert not done

  # A changed setting is another run; figures of the old one are not kept.
  changed = fakes.plan(tmp_path, seeds=2, learning_rate=0.5)
  assert not collect.summary(changed)["variants"]["plain"]["runs"]
  study.run(changed, report=True)
  assert len(done) == 3


def test_a_result_cut_in_half_is_done_again(tmp_path, prepared, monkeypatch):
  fakes.no_steps(monkeypatch)
  plan = fakes.plan(tmp_path)
  study.run(plan, report=True)
  path = tmp_path / "w" / "plain-0.json"
  whole = path.read_text()
  path.write_text(whole[: len(whole) // 2])
  done = _count(monkeypatch)
  study.run(plan, report=True)
  assert done == ["plain-0.json"]
  again, before = json.loads(path.read_text()), json.loads(whole)
  assert again["figures"] == before["figures"]


def test_figures_of_a_run_and_of_frozen_models(tmp_path, prepared, monkeypatch):
  fakes.no_steps(monkeypatch)
  plan = fakes.plan(tmp_path, seeds=2)
  study.run(plan, report=True)
  found = collect.summary(plan)
  variant = found["variants"]["plain"]
  assert (variant["runs"], variant["missing"]) == (2, 0)
  figures = variant["figures"]
  for name in ("raw/harmonic_mean", "calibrated/unseen/verb_top1",
                 "among/unseen/verb_top1", "unlisted/unseen/verb_top1",
                 "raw/seen/grnd_gt", "held_out/harmonic_mean"):  # fmt: skip
    assert 0 <= figures[name]["mean"] <= 100, name
  assert figures["raw/seen/verb_top1"]["students"] == 2
  assert list(found["zero_shot"]) == ["teacher zero-shot", "oracle"]
  oracle = found["zero_shot"]["oracle"]["raw/unseen/verb_top1"]["mean"]
  assert 80 < oracle < 100
  # The teacher's logits, by hand.
  split = prepared.cache.split("test", (feature_cache.VERB_LOGITS,))
  verb = split.annotations[schema.VERB]
  unseen = fakes.GROUPS[verb] == 2
  logits = split.features[schema.VERB_LOGITS]
  right = (logits.argmax(-1) == verb)[unseen]
  np.testing.assert_allclose(
    found["zero_shot"]["teacher zero-shot"]["raw/unseen/verb_top1"]["mean"],
    100 * right.mean(),
  )


def test_a_student_that_diverged_is_a_result(tmp_path, prepared, monkeypatch):
  def diverge(run, *_):
    raise DivergedError("step 3: total not finite. Images: ...")

  monkeypatch.setattr(runs, "_figures", diverge)
  plan = fakes.plan(tmp_path)
  study.run(plan, report=True)
  found = collect.summary(plan)["variants"]["plain"]
  assert found["diverged"] == 2 and not found["figures"]
  result = json.loads((tmp_path / "w" / "plain-0.json").read_text())
  assert result["diverged"] == "step 3"


def test_a_loss_that_is_no_number_is_noticed(tmp_path, prepared):
  plan = fakes.plan(tmp_path)
  config = plan.config(plan.variants[0], fakes.WORLD, 0)
  data = fakes.open_world(plan, prepared).training(("student",), "", False)
  fetched = [(2, {"total": np.array([1.0, np.nan, 0.0])})]
  with pytest.raises(DivergedError, match="step 1: total"):
    runs._losses(config, data, fetched)
  fetched = [(2, {"total": np.array([1.0, 2.0, 7.0])})]
  assert runs._losses(config, data, fetched) == {"total": 1.5}


def test_all_runs_of_a_world_share_its_features(tmp_path, monkeypatch):
  fakes.no_steps(monkeypatch)
  prepared = fakes.Prepared()
  variants = (Variant("a", "no_distillation"), Variant("b"))
  plan = fakes.plan(tmp_path, *variants)
  world = fakes.open_world(plan, prepared)
  parts = [
    train_stage.train_parts(plan.config(variant, fakes.WORLD, 0))
    for variant in variants
  ]
  few, all_ = (world.training(p, "", False).feed for p in parts)
  few, all_ = few._resident, all_._resident
  assert set(few.arrays) < set(all_.arrays)
  for key, array in few.arrays.items():
    assert array is all_.arrays[key]
  assert schema.TEACHER_TOKENS not in few.arrays


def test_worlds_that_differ_in_their_roles_share_programs(tmp_path):
  plan = fakes.plan(tmp_path)
  config = plan.config(plan.variants[0], fakes.WORLD, 0)
  few, many = fakes.Prepared(), fakes.Prepared()
  many.sizes = dataclasses.replace(fakes.Prepared.sizes, num_roles=11)
  text = many.banks["role_text"]
  many.banks["role_text"] = np.concatenate([text, text[:3]])
  fills = many.banks["role_candidates"]
  many.banks["role_candidates"] = np.concatenate([fills, fills[:3]])
  worlds = [fakes.open_world(plan, p) for p in (few, many)]
  rows = np.zeros(1, int)
  shapes = [
    {name: x.shape for name, x in world.banks(rows, world._config).items()}
    for world in worlds
  ]
  assert shapes[0] == shapes[1]
  assert worlds[0].studied(config).model() == worlds[1].studied(config).model()
  for world, prepared_ in zip(worlds, (few, many), strict=True):
    real = prepared_.banks["role_text"]
    padded = np.asarray(world.banks(rows, world._config)["role_text"])
    np.testing.assert_array_equal(padded[: len(real)], real)
    assert not padded[len(real) :].any()


@pytest.mark.parametrize("kind", shuffled.KEYS)
def test_shuffled_features_come_from_another_image(kind):
  source = batches.MemorySource(40)
  control = shuffled.control(source, kind)
  indices = np.array([3, 17, 3, 0])
  wanted, found = source.read(indices), control.read(indices)
  others = source.read(control.other[indices])
  assert (control.other != np.arange(40)).all()
  assert sorted(control.other) == list(range(40))
  for key, value in found.items():
    theirs = key in shuffled.KEYS[kind]
    np.testing.assert_array_equal(value, (others if theirs else wanted)[key])
  assert shuffled.control(source, "") is source


def test_shuffled_answers_are_about_another_instance_of_the_role():
  """All else stays; every answer is one of the split's, of the same role."""
  source = batches.MemorySource(40)
  asked = source._data[schema.BOX_MASK]
  source._data = batches.with_answers(source._data, asked, 9)
  source.only = lambda part: source
  control = shuffled.control(source, "answers")
  rows = np.arange(40)
  wanted, found = source.read(rows), control.read(rows)
  key = schema.ANSWER_LOG_SHARES
  moved, roles = 0, wanted[schema.ROLES]
  for role in np.unique(roles[asked]):
    here = asked & (roles == role)
    np.testing.assert_array_equal(
      np.sort(found[key][here], axis=0), np.sort(wanted[key][here], axis=0)
    )
    same = (found[key][here] == wanted[key][here]).all(axis=-1)
    assert not same.any() or here.sum() == 1
    moved += (~same).sum()
  assert moved > 50
  for name, value in found.items():
    if name not in schema.ANSWER_KEYS:
      np.testing.assert_array_equal(value, wanted[name])
  np.testing.assert_array_equal(found[key][~asked], wanted[key][~asked])


@pytest.mark.slow
def test_every_variant_of_the_grid_can_take_a_step(tmp_path, prepared):
  """Traced, not compiled: fields that do not go together show here."""
  variants = ablations.get_config("full").variants
  plan = fakes.plan(tmp_path, *variants)
  world = fakes.open_world(plan, prepared)
  terms = {}
  for variant in variants:
    config = plan.config(variant, fakes.WORLD, 0)
    parts = train_stage.train_parts(config)
    data = world.training(parts, config.train.shuffled, False)
    banks = world.banks(data.rows, world._config)
    model = world.studied(config).model()
    start = programs.initial_state(model, config.train, 4, world.mesh)
    batch = world_data.first_batch(data.source)
    state = jax.eval_shape(start, batch, banks, np.int32(0))
    step = functools.partial(
      step_lib.train_step,
      model=model,
      objective=config.objective,
      optimizer=make_optimizer(config.train, 4),
      seed=0,
    )
    _, metrics = jax.eval_shape(step, state, batch, banks)
    terms[variant.name] = set(metrics)
  assert "gaze_distill" in terms["mipd"] - terms["no_gaze"]
  assert "verb_kl" in terms["kl_alone"] - terms["no_distillation"]
  assert "scene_distill" in terms["reference"] - terms["no_scene"]
