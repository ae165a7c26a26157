"""Means with intervals, with worlds as the unit.

Students of one world share its images, its encoders and its verbs, so they
are not independent trials of a method: the mean over a world's students is
one observation. An interval is Student's t over these world means, 95 %,
two-sided. A difference is taken pair by pair, between students of the same
world and seed, and then treated likewise, so effects of a world on all
variants cancel. With one world the students are the unit, and the interval
says nothing about other worlds. There is no correction for the number of
comparisons.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
import scipy.stats

METHOD = (
  "95 % intervals by Student's t over the means of worlds, each the mean over "
  "its students; differences are paired by (world, seed)"
)
_LEVEL = 0.95
# (world, seed) -> a figure.
Values = Mapping[tuple[str, int], float]


@dataclasses.dataclass(frozen=True)
class Estimate:
  """A mean and its interval.

  Attributes:
    mean: over worlds.
    low, high: ends of the interval; None if units have no spread.
    unit: "world", or "student" with a single world.
    worlds, students: their numbers.
  """

  mean: float
  low: float | None
  high: float | None
  unit: str
  worlds: int
  students: int

  @property
  def excludes_zero(self) -> bool:
    return self.low is not None and (self.low > 0 or self.high < 0)


def estimate(values: Values) -> Estimate | None:
  """The estimate of one figure of one variant; None without a value."""
  if not values:
    return None
  worlds: dict[str, list[float]] = {}
  for (world, _), value in values.items():
    worlds.setdefault(world, []).append(value)
  one = len(worlds) == 1
  units = [np.mean(v) for v in worlds.values()]
  if one:
    units = list(values.values())
  mean = float(np.mean(units))
  half = _half_width(np.asarray(units))
  return Estimate(
    mean,
    None if half is None else mean - half,
    None if half is None else mean + half,
    "student" if one else "world",
    len(worlds),
    len(values),
  )


def difference(values: Values, against: Values) -> Estimate | None:
  """The estimate of values minus against, over the pairs of both."""
  pairs = values.keys() & against.keys()
  return estimate({key: values[key] - against[key] for key in sorted(pairs)})


def _half_width(units: np.ndarray) -> float | None:
  count = len(units)
  # Counts of a few images can agree by chance; an interval of zero width would
  # claim too much.
  if count < 2 or np.ptp(units) == 0:
    return None
  error = units.std(ddof=1) / np.sqrt(count)
  return float(scipy.stats.t.ppf((1 + _LEVEL) / 2, count - 1) * error)
