"""HICO-DET's scores: what they are, and their figures. Needs numpy alone.

A score is one object in `SCORES`: its name, its column in tables, and what it
makes of the interactions' average precisions. Whatever lists scores goes
through `SCORES`, so a new score is a new entry here.
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
    """Percent over some interactions (bool [I]); None where there is none."""
    return float(100 * self.values[rows].mean()) if rows.any() else None


@dataclasses.dataclass(frozen=True)
class Score:
  """One figure, in percent.

  Attributes:
    name: in results.json.
    label: at the head of its column.
    value: of all precisions; None where it has no interaction.
    headline: whether it gets a curve of the dev split, which has no unseen
      interaction.
  """

  name: str
  label: str
  value: Callable[[Precisions], float | None]
  headline: bool = False


def harmonic_mean(unseen: float | None, seen: float | None) -> float | None:
  """Of two means; None where there is but one, 0 where both are 0."""
  if unseen is None or seen is None:
    return None
  return 2 * unseen * seen / (unseen + seen) if unseen + seen else 0.0


SCORES = (
  Score(
    "full",
    "Full",
    lambda found: float(100 * found.values.mean()),
    headline=True,
  ),
  Score(
    "rare",
    "Rare",
    lambda found: found.mean(found.words.rare),
    headline=True,
  ),
  Score(
    "non_rare",
    "Non-rare",
    lambda found: found.mean(~found.words.rare),
    headline=True,
  ),
  Score(
    "seen",
    "Seen",
    lambda found: found.mean(found.split.seen),
    headline=True,
  ),
  Score("unseen", "Unseen", lambda found: found.mean(found.split.unseen)),
  Score(
    "hm",
    "HM",
    lambda found: harmonic_mean(
      found.mean(found.split.unseen), found.mean(found.split.seen)
    ),
  ),
)
NAMES = tuple(score.name for score in SCORES)


def summary(
  precisions: np.ndarray, words: Vocabulary, split: ZeroShot
) -> dict[str, float | None]:
  """Every score by name, from precisions [I] in 0..1."""
  given = Precisions(precisions, words, split)
  found = {score.name: score.value(given) for score in SCORES}
  number = split.unseen.sum()
  parts = number * (found["unseen"] or 0)
  parts += (len(words) - number) * (found["seen"] or 0)
  # A table that fails this has other classes than it says.
  assert abs(found["full"] - parts / len(words)) < 1e-6, found
  return found


def dev_report(
  summary: dict[str, float | None],
) -> tuple[dict[str, float], float]:
  """Scores that are worth a curve, by name, and what chooses a checkpoint."""
  curves = {
    f"dev/{score.name}": value
    for score in SCORES
    if score.headline and (value := summary[score.name]) is not None
  }
  return curves, summary["seen"]
