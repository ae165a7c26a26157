"""Accuracy by bias, among names, and the bias that is chosen."""

import types

import numpy as np
import pytest

from input_pipeline import schema
from mipd_jax.metrics import calibration, swig_scores
from mipd_jax.tasks.situations import Situations
from tests.fakes import ablation_fakes as fakes

RNG = np.random.default_rng(0)
GROUPS = fakes.GROUPS
TRAINED = GROUPS != 2
COUNT = 200
VERB = RNG.integers(0, len(GROUPS), COUNT)
SCORES = RNG.normal(size=(COUNT, len(GROUPS)))
SCORES[np.arange(COUNT), VERB] += 1.5
SCORES[:, TRAINED] += 0.8  # what a classifier without unseen images does


@pytest.mark.parametrize("bias", [-1.0, 0.0, 0.7, 40.0])
def test_a_bias_is_off_the_scores_of_trained_names(bias):
  found = calibration.rivals(SCORES, VERB, TRAINED).right(bias)
  wanted = (SCORES - bias * TRAINED).argmax(axis=-1) == VERB
  np.testing.assert_array_equal(found, wanted)
  assert 0 < wanted.sum() < COUNT


def _totals(sums, counts):
  """Sums [V, 1] and counts [V] of verb top-1 alone."""
  return swig_scores.VerbTotals(("verb_top1",), sums, counts[:, None], counts)


def test_without_bias_it_is_the_normal_score():
  found = calibration.by_group(
    calibration.rivals(SCORES, VERB, TRAINED).right(0.0), VERB, GROUPS
  )
  right = SCORES.argmax(axis=-1) == VERB
  sums = np.bincount(VERB, right, len(GROUPS))[:, None]
  counts = np.bincount(VERB, minlength=len(GROUPS)).astype(float)
  totals = _totals(sums, counts)
  wanted = swig_scores.summarise(totals, GROUPS)
  for group in ("seen", "rare", "unseen"):
    np.testing.assert_allclose(found[group], wanted[group]["verb_top1"])
  np.testing.assert_allclose(found["harmonic_mean"], wanted["harmonic_mean"])


def test_names_that_do_not_compete_are_not_looked_at():
  candidates = np.arange(len(GROUPS)) != 3
  found = calibration.rivals(SCORES, VERB, TRAINED, candidates)
  other = SCORES.copy()
  other[:, 3] = np.nan
  again = calibration.rivals(other, VERB, TRAINED, candidates)
  for mine, theirs in zip(found, again, strict=True):
    np.testing.assert_array_equal(mine, theirs)
  assert not found.right(0.0)[VERB == 3].any()


def test_a_curve_goes_from_trained_to_untrained_names():
  found = calibration.rivals(SCORES, VERB, TRAINED)
  curve = calibration.curve(found, VERB, TRAINED)
  assert len(curve["bias"]) == len(calibration.BIASES)
  assert curve["bias"] == sorted(curve["bias"]) and 0.0 in curve["bias"]
  among = calibration.among_names(SCORES, VERB, TRAINED)
  assert curve["trained"][0] == pytest.approx(among["trained"])
  assert curve["untrained"][0] == curve["trained"][-1] == 0
  assert curve["untrained"][-1] == pytest.approx(among["untrained"])
  assert (np.diff(curve["trained"]) <= 1e-9).all()
  assert (np.diff(curve["untrained"]) >= -1e-9).all()


def test_the_best_bias_undoes_the_advantage_of_trained_names():
  found = calibration.rivals(SCORES, VERB, TRAINED)
  curve = calibration.curve(found, VERB, TRAINED)
  bias, best = calibration.best_bias(curve)
  raw = curve["bias"].index(0.0)
  before = swig_scores.harmonic_mean(
    curve["trained"][raw], curve["untrained"][raw]
  )
  assert 0.3 < bias < 1.8
  assert best > before + 3
  # By hand at that bias.
  right = (SCORES - bias * TRAINED).argmax(axis=-1) == VERB
  known = TRAINED[VERB]
  wanted = swig_scores.harmonic_mean(
    100 * right[known].mean(), 100 * right[~known].mean()
  )
  assert best == pytest.approx(wanted)


def test_of_equal_biases_the_middle_one_is_taken():
  curve = {
    "bias": [-1.0, 0.0, 1.0, 2.0, 3.0],
    "trained": [90.0, 50.0, 50.0, 50.0, 0.0],
    "untrained": [0.0, 50.0, 50.0, 50.0, 90.0],
  }
  assert calibration.best_bias(curve) == (1.0, 50.0)
  flat = {"bias": [0.0, 1.0], "trained": [0.0] * 2, "untrained": [1.0, 9.0]}
  assert calibration.best_bias(flat)[1] == 0


def test_curves_of_students_are_averaged():
  one = {"bias": [0.0, 1.0], "trained": [4.0, 2.0], "untrained": [0.0, 8.0]}
  two = {"bias": [0.0, 1.0], "trained": [8.0, 0.0], "untrained": [2.0, 2.0]}
  assert calibration.mean_curve([one, two]) == {
    "bias": [0.0, 1.0],
    "trained": [6.0, 1.0],
    "untrained": [1.0, 5.0],
  }


def test_among_names_counts_only_images_of_those_verbs():
  names = GROUPS == 2
  rows = names[VERB]
  restricted = np.where(names, SCORES, -np.inf)
  wanted = 100 * (restricted.argmax(-1) == VERB)[rows].mean()
  assert calibration.among(SCORES, VERB, names) == pytest.approx(wanted)
  nobody = np.zeros_like(names)
  assert calibration.among(SCORES, VERB, nobody) is None


def test_without_untrained_names_nothing_breaks():
  everything = np.ones_like(TRAINED)
  found = calibration.rivals(SCORES, VERB, everything)
  np.testing.assert_array_equal(
    found.right(5.0), SCORES.argmax(axis=-1) == VERB
  )
  curve = calibration.curve(found, VERB, everything)
  assert np.isnan(curve["untrained"]).all()
  # JSON turns NaN into null; means of such curves are still drawn.
  read = curve | {"untrained": [None] * len(curve["bias"])}
  assert np.isnan(calibration.mean_curve([read, curve])["untrained"]).all()


def test_results_of_the_normal_evaluation_have_it_too():
  prepared = fakes.Prepared()
  verb = prepared.cache.split("test", ()).annotations[schema.VERB]
  verb_scores = RNG.normal(size=(len(verb), len(GROUPS)))
  counts = np.bincount(verb, minlength=len(GROUPS)).astype(float)
  totals = _totals(counts[:, None] / 2, counts)
  found = types.SimpleNamespace(verb_scores=verb_scores, totals=totals)
  summary = Situations(None).summary(prepared, "test", found)
  assert summary["seen"]["verb_top1"] == 50
  unseen = GROUPS[verb] == 2
  guess = verb_scores[:, GROUPS == 2].argmax(-1) + np.sum(GROUPS != 2)
  wanted = 100 * (guess == verb)[unseen].mean()
  assert summary["among"]["untrained"] == pytest.approx(wanted)
  assert summary["among"]["trained"] != summary["among"]["untrained"]
