"""Nothing is chosen by unseen verbs: the selection path cannot read them."""

import json

import numpy as np
import pytest

from input_pipeline import feature_cache, schema
from input_pipeline.io.errors import InputError
from mipd_jax.ablations import holdout, run_scores, runs, study
from mipd_jax.losses import banks as bank_lib
from mipd_jax.stages import prepare
from tests.fakes import ablation_fakes as fakes

UNSEEN = schema.GROUPS.index("unseen") == fakes.GROUPS


@pytest.fixture(autouse=True)
def _device(monkeypatch):
  fakes.one_device(monkeypatch)
  fakes.no_steps(monkeypatch)


def _select(tmp_path, monkeypatch, cache):
  """The result of the whole selection path, from a cache."""
  prepared = fakes.Prepared(cache)
  monkeypatch.setattr(prepare, "prepare", lambda config: prepared)
  plan = fakes.plan(tmp_path)
  study.run(plan, report=False)
  run = plan.held_out_runs(plan.variants[0], fakes.WORLD)[0]
  return json.loads(run.path.read_text()), plan


def test_selection_opens_no_test_split_and_no_row_of_an_unseen_verb(
  tmp_path, monkeypatch
):
  cache = fakes.Cache(closed=("test",))
  found, plan = _select(tmp_path, monkeypatch, cache)
  verbs = cache.split("dev", ()).annotations[schema.VERB]
  read = cache.rows("dev")
  assert read == set(np.flatnonzero(~UNSEEN[verbs]).tolist())
  assert found["figures"] and found["held_out"]
  assert study.chosen_bias([found]) is not None
  # Nothing was reported either.
  for run in plan.reported_runs(plan.variants[0], fakes.WORLD):
    assert not run.path.exists()


def test_what_is_chosen_does_not_depend_on_unseen_images(tmp_path, monkeypatch):
  found, _ = _select(tmp_path / "a", monkeypatch, fakes.Cache())
  changed = fakes.Cache()
  for name in ("dev", "test"):
    split = changed.split(name, (feature_cache.STUDENT,))
    rows = UNSEEN[split.annotations[schema.VERB]]
    split.features[schema.STUDENT_TOKENS][rows] = np.nan
  again, _ = _select(tmp_path / "b", monkeypatch, changed)
  assert found["figures"] == again["figures"]
  assert found["curve"] == again["curve"]
  # The test would see a change: seen rows do matter.
  split = fakes.Cache()
  tokens = split.split("dev", (feature_cache.STUDENT,)).features
  tokens[schema.STUDENT_TOKENS][:] = 0
  other, _ = _select(tmp_path / "c", monkeypatch, split)
  assert found["curve"] != other["curve"]


def test_unseen_names_do_not_compete_when_something_is_chosen():
  held = holdout.draw(fakes.GROUPS, fakes.HELD_OUT)
  rng = np.random.default_rng(0)
  scores = rng.normal(size=(40, len(UNSEEN)))
  verb = rng.choice(np.flatnonzero(~UNSEEN), 40)
  found = run_scores.of_selection(scores, verb, held)
  scores[:, UNSEEN] = 1e9
  assert run_scores.of_selection(scores, verb, held) == found
  scores[:, held.verbs] = 1e9
  assert run_scores.of_selection(scores, verb, held) != found


def test_held_out_verbs_are_seen_and_out_of_training():
  held = holdout.draw(fakes.GROUPS, fakes.HELD_OUT)
  assert held.verbs.sum() == fakes.HELD_OUT
  assert (fakes.GROUPS[held.verbs] == 0).all()
  annotations = fakes.Split("train", ()).annotations
  rows = held.train_rows(annotations)
  verbs = annotations[schema.VERB]
  assert not held.verbs[verbs[rows]].any()
  left = np.setdiff1d(np.arange(len(verbs)), rows)
  assert held.verbs[verbs[left]].all()
  banks = holdout.banks_of(fakes.Prepared().banks, verbs[rows])
  trained = banks[bank_lib.VERB_TRAINED]
  np.testing.assert_array_equal(trained, ~held.verbs & ~UNSEEN)


def test_held_out_training_reads_no_image_of_a_held_out_verb(tmp_path):
  prepared = fakes.Prepared()
  plan = fakes.plan(tmp_path)
  world = fakes.open_world(plan, prepared)
  run = plan.held_out_runs(plan.variants[0], fakes.WORLD)[0]
  runs.do(run, world, "hash")
  verbs = prepared.cache.split("train", ()).annotations[schema.VERB]
  read = sorted(prepared.cache.rows("train"))
  assert read and not world.held_out.verbs[verbs[read]].any()


@pytest.mark.parametrize("count", [6, 7, -1])
def test_holding_out_all_seen_verbs_is_refused(count):
  with pytest.raises(InputError, match="held_out_verbs"):
    holdout.draw(fakes.GROUPS, count)


def test_a_dev_split_without_held_out_verbs_is_refused(tmp_path):
  prepared = fakes.Prepared()
  world = fakes.open_world(fakes.plan(tmp_path), prepared)
  verbs = prepared.cache.split("dev", ()).annotations[schema.VERB]
  verbs[world.held_out.verbs[verbs]] = np.flatnonzero(UNSEEN)[0]
  with pytest.raises(InputError, match="no image of a verb that is held out"):
    world.selection()


def test_as_many_are_held_out_as_are_unseen():
  assert holdout.draw(fakes.GROUPS, 0).verbs.sum() == UNSEEN.sum()
