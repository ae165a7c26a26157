"""Intervals: worlds are the unit, differences are paired."""

import numpy as np
import pytest
import scipy.stats

from mipd_jax.ablations import statistics

RNG = np.random.default_rng(0)


def _values(worlds, seeds, spread=1.0, effect=0.0):
  """World effects far larger than seed effects."""
  return {
    (f"w{w}", s): 50 + 10 * w + effect + spread * RNG.normal()
    for w in range(worlds)
    for s in range(seeds)
  }


def _world_means(values):
  names = sorted({world for world, _ in values})
  return [
    np.mean([v for (world, _), v in values.items() if world == name])
    for name in names
  ]


def test_an_interval_is_students_t_over_world_means():
  values = _values(4, 3)
  found = statistics.estimate(values)
  means = _world_means(values)
  wanted = scipy.stats.ttest_1samp(means, 0).confidence_interval(0.95)
  np.testing.assert_allclose([found.low, found.high], list(wanted))
  assert found.mean == pytest.approx(np.mean(means))
  assert (found.unit, found.worlds, found.students) == ("world", 4, 12)


def test_more_students_of_the_same_worlds_are_no_more_worlds():
  values = _values(3, 2, spread=0.0)
  many = {(w, s + 2 * k): v for (w, s), v in values.items() for k in range(9)}
  few, lots = statistics.estimate(values), statistics.estimate(many)
  assert lots.students == 9 * few.students
  np.testing.assert_allclose([lots.low, lots.high], [few.low, few.high])


def test_a_difference_is_paired_so_worlds_cancel():
  plain = _values(3, 3, spread=0.2)
  better = {key: value + 2 + 0.1 * RNG.normal() for key, value in plain.items()}
  found = statistics.difference(better, plain)
  gaps = {key: better[key] - plain[key] for key in plain}
  wanted = scipy.stats.ttest_rel(_world_means(better), _world_means(plain))
  np.testing.assert_allclose(
    [found.low, found.high], list(wanted.confidence_interval(0.95))
  )
  assert found.mean == pytest.approx(np.mean(_world_means(gaps)))
  assert found.excludes_zero
  # Unpaired, the worlds would hide it.
  wide = statistics.estimate(plain)
  assert wide.high - wide.low > 10 * (found.high - found.low)


def test_only_pairs_that_both_have_count():
  mine = {("a", 0): 3.0, ("a", 1): 9.0, ("b", 0): 4.0}
  theirs = {("a", 0): 1.0, ("b", 0): 3.0, ("c", 0): 7.0}
  found = statistics.difference(mine, theirs)
  assert (found.mean, found.worlds, found.students) == (1.5, 2, 2)
  assert statistics.difference(mine, {("z", 0): 1.0}) is None


def test_worlds_weigh_alike_however_many_students_they_have():
  values = {("a", s): 10.0 for s in range(9)} | {("b", 0): 20.0}
  assert statistics.estimate(values).mean == 15.0


def test_one_world_is_judged_by_its_students_and_says_so():
  values = {("a", 0): 1.0, ("a", 1): 2.0, ("a", 2): 4.0}
  found = statistics.estimate(values)
  wanted = scipy.stats.ttest_1samp([1, 2, 4], 0).confidence_interval(0.95)
  np.testing.assert_allclose([found.low, found.high], list(wanted))
  assert found.unit == "student"


@pytest.mark.parametrize(
  "values", [{("a", 0): 3.0}, {("a", 0): 3.0, ("b", 0): 3.0}]
)
def test_without_spread_there_is_no_interval(values):
  found = statistics.estimate(values)
  assert (found.mean, found.low, found.high) == (3.0, None, None)
  assert not found.excludes_zero
  assert statistics.estimate({}) is None


def test_intervals_cover_in_95_of_100_studies():
  hits, rounds = 0, 2000
  for _ in range(rounds):
    worlds = RNG.normal(size=3)
    values = {
      (str(w), s): worlds[w] + 0.5 * RNG.normal()
      for w in range(3)
      for s in range(3)
    }
    found = statistics.estimate(values)
    hits += found.low <= 0 <= found.high
  assert 0.935 < hits / rounds < 0.965
