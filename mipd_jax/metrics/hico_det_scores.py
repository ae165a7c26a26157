"""HICO-DET's scores and their figures. Needs only numpy.

A score is one object in `SCORES`: its name, its column in tables, and its
value from the interactions' average precisions. All lists of scores follow
from `SCORES`, so a new score is a new entry here.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from input_pipeline.hico_det.splits import ZeroShot
from input_pipeline.hico_det.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class Precisions:
  """Average precision of every interaction.

  Attributes:
    values: float [I] in 0..1.
    words: the interactions.
    split: which of them are unseen.
  """

  values: np.ndarray
  words: Vocabulary
  split: ZeroShot

  def mean(self, rows: np.ndarray) -> float | None:
    """Percent over some interactions (bool [I]); None if there are none."""
    return float(100 * self.values[rows].mean()) if rows.any() else None


@dataclasses.dataclass(frozen=True)
class Score:
  """One figure, in percent.

  Attributes:
    name: in results.json.
    label: the head of its column.
    value: computed from all precisions; None if it has no interaction.
    headline: whether it gets a curve of the dev split, which has no unseen
      interaction.
  """

  name: str
  label: str
  value: Callable[[Precisions], float | None]
  headline: bool = False


def harmonic_mean(unseen: float | None, seen: float | None) -> float | None:
  """Harmonic mean; None if one is missing, 0 if both are 0."""
  if unseen is None or seen is None:
    return None
  return 2 * unseen * seen / (unseen + seen) if unseen + seen else 0.0


SCORES = (
  Score(
    "full",
    "Full",
    lambda each: float(100 * each.values.mean()),
    headline=True,
  ),
  Score(
    "rare",
    "Rare",
    lambda each: each.mean(each.words.rare),
    headline=True,
  ),
  Score(
    "non_rare",
    "Non-rare",
    lambda each: each.mean(~each.words.rare),
    headline=True,
  ),
  Score(
    "seen",
    "Seen",
    lambda each: each.mean(each.split.seen),
    headline=True,
  ),
  Score("unseen", "Unseen", lambda each: each.mean(each.split.unseen)),
  Score(
    "hm",
    "HM",
    lambda each: harmonic_mean(
      each.mean(each.split.unseen), each.mean(each.split.seen)
    ),
  ),
)
NAMES = tuple(score.name for score in SCORES)


def summary(
  precisions: np.ndarray, words: Vocabulary, split: ZeroShot
) -> dict[str, float | None]:
  """Every score by name, from precisions [I] in 0..1."""
  given = Precisions(precisions, words, split)
  scores = {score.name: score.value(given) for score in SCORES}
  number = split.unseen.sum()
  parts = number * (scores["unseen"] or 0)
  parts += (len(words) - number) * (scores["seen"] or 0)
  # Fails if the table's classes are not those that it claims.
  assert abs(scores["full"] - parts / len(words)) < 1e-6, scores
  return scores


def dev_report(
  summary: dict[str, float | None],
) -> tuple[dict[str, float], float]:
  """The dev curves by name, and the score that chooses a checkpoint."""
  curves = {
    f"dev/{score.name}": value
    for score in SCORES
    if score.headline and (value := summary[score.name]) is not None
  }
  return curves, summary["seen"]
