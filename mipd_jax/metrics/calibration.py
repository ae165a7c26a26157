"""Trained against untrained verbs: accuracy by bias, and among names.

A classifier that never saw an unseen verb's images scores its name too low.
A bias subtracted from the scores of trained verbs (calibrated stacking, Chao
et al. 2016, "An Empirical Study and Analysis of Generalized Zero-Shot
Learning") shows how much of a difference between two methods is only that;
accuracy among the untrained names alone shows what is left without it.

The bias has to come from verbs held out of the trained ones: nothing here
chooses it by unseen verbs unless the caller passes their images.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from input_pipeline import schema
from mipd_jax.metrics.swig_scores import harmonic_mean

_STEPS = np.geomspace(0.01, 40.0, 60)
# The biases of a curve, in units of verb scores, ascending.
BIASES = np.concatenate([-_STEPS[::-1], [0.0], _STEPS])
# Keys of a curve.
BIAS, TRAINED, UNTRAINED = "bias", "trained", "untrained"

Curve = dict[str, list[float]]


class Rivals(NamedTuple):
  """The best trained name of each image against its best untrained name.

  Attributes:
    trained_right, untrained_right: whether they are the true verb.
    gap: score of the former minus that of the latter.
  """

  trained_right: Bool[np.ndarray, "n"]
  untrained_right: Bool[np.ndarray, "n"]
  gap: Float[np.ndarray, "n"]

  def right(self, bias: float) -> Bool[np.ndarray, "n"]:
    """Which images are right with `bias` subtracted from trained names."""
    return np.where(self.gap >= bias, self.trained_right, self.untrained_right)


def rivals(
  scores: Float[np.ndarray, "n v"],
  verb: Int[np.ndarray, "n"],
  trained: Bool[np.ndarray, "v"],
  candidates: Bool[np.ndarray, "v"] | None = None,
) -> Rivals:
  """Compares the two kinds of names image by image.

  Args:
    scores: of the verbs.
    verb: the true one.
    trained: which verbs have training images.
    candidates: names that take part; all if None.
  """
  if candidates is None:
    candidates = np.ones_like(trained)

  def best(chosen):
    names = np.flatnonzero(chosen & candidates)
    if not len(names):
      nothing = np.full(len(scores), -1)
      return nothing, np.full(len(scores), -np.inf)
    kept = scores[:, names]
    first = kept.argmax(axis=-1)
    return names[first], kept[np.arange(len(kept)), first]

  (seen, seen_score), (new, new_score) = best(trained), best(~trained)
  return Rivals(seen == verb, new == verb, seen_score - new_score)


def curve(
  images: Rivals, verb: Int[np.ndarray, "n"], trained: Bool[np.ndarray, "v"]
) -> Curve:
  """Accuracy in percent on images of trained and untrained verbs, by bias.

  Args:
    images: the best names of each image.
    verb: the true verb of each.
    trained: which verbs have training images.

  Returns:
    Lists of the length of BIASES; NaN where there are no such images.
  """
  of_trained = trained[verb]
  right = np.stack([images.right(bias) for bias in BIASES])
  return {
    BIAS: BIASES.tolist(),
    TRAINED: _percent(right, of_trained),
    UNTRAINED: _percent(right, ~of_trained),
  }


def _percent(right: Bool[np.ndarray, "k n"], rows: np.ndarray) -> list[float]:
  if not rows.any():
    return [float("nan")] * len(right)
  return (100 * right[:, rows].mean(axis=1)).tolist()


def mean_curve(curves: list[Curve]) -> Curve:
  """The average of some curves at the same biases; None counts as NaN."""
  return {
    name: np.mean([np.asarray(c[name], float) for c in curves], axis=0).tolist()
    for name in (BIAS, TRAINED, UNTRAINED)
  }


def best_bias(points: Curve) -> tuple[float, float]:
  """The bias of the highest harmonic mean, and that harmonic mean.

  Among equals it takes the middle one: with few images the curve has flat
  parts, whose ends lie closest to the drop.
  """
  means = np.array(
    [
      harmonic_mean(a, b)
      for a, b in zip(points[TRAINED], points[UNTRAINED], strict=True)
    ]
  )
  best = np.flatnonzero(means >= means.max() - 1e-9)
  chosen = best[len(best) // 2]
  return float(points[BIAS][chosen]), float(means[chosen])


def among(
  scores: Float[np.ndarray, "n v"],
  verb: Int[np.ndarray, "n"],
  names: Bool[np.ndarray, "v"],
) -> float | None:
  """Percent right on the images of some verbs, where only these compete."""
  rows = names[verb]
  if not rows.any():
    return None
  chosen = np.flatnonzero(names)
  guess = chosen[scores[rows][:, chosen].argmax(axis=-1)]
  return float(100 * np.mean(guess == verb[rows]))


def by_group(
  right: Bool[np.ndarray, "n"],
  verb: Int[np.ndarray, "n"],
  groups: Int[np.ndarray, "v"],
) -> dict[str, float | None]:
  """Percent right for seen, rare and unseen verbs.

  With the harmonic mean of seen and unseen.
  """
  percents: dict[str, float | None] = {}
  for number, name in enumerate(schema.GROUPS):
    rows = groups[verb] == number
    percents[name] = float(100 * right[rows].mean()) if rows.any() else None
  percents["harmonic_mean"] = harmonic_mean(
    percents["seen"], percents["unseen"]
  )
  return percents


def among_names(
  scores: Float[np.ndarray, "n v"],
  verb: Int[np.ndarray, "n"],
  trained: Bool[np.ndarray, "v"],
) -> Mapping[str, float | None]:
  """`among` for the trained and for the untrained names: results.json."""
  return {
    TRAINED: among(scores, verb, trained),
    UNTRAINED: among(scores, verb, ~trained),
  }
