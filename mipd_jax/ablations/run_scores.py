"""The figures of one run, flat: name -> percent or None.

Names are KIND/GROUP/SCORE or KIND/harmonic_mean. Kinds:

  raw         as in the normal evaluation
  calibrated  verb top-1 with a bias subtracted from trained names' scores,
              chosen on held-out seen verbs
  among       verb top-1 where only names of the image's own kind compete:
              trained ones for seen and rare, untrained ones for unseen
  unlisted    the same for the half of the unseen verbs whose names a
              half-listed variant does not get, among that half
  held_out    dev images of held-out and other verbs, by students trained
              without the former: the figures for choices
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from input_pipeline import schema
from mipd_jax.ablations.holdout import HeldOut
from mipd_jax.losses import terms
from mipd_jax.metrics import calibration, swig_scores

Figures = dict[str, float | None]
UNLISTED_SHARE = 0.5
HARMONIC = "harmonic_mean"


def of_report(
  summary: Mapping[str, Any],
  verb_scores: Float[np.ndarray, "n v"],
  verb: Int[np.ndarray, "n"],
  groups: Int[np.ndarray, "v"],
  trained: Bool[np.ndarray, "v"],
  bias: float | None = None,
) -> dict[str, Any]:
  """All reported figures of one student, or of frozen logits.

  Args:
    summary: scores by group, from `swig_scores.summarise`.
    verb_scores: of the images of the reported split.
    verb: the true verb of each image.
    groups: of the verbs.
    trained: which verbs have training images.
    bias: chosen elsewhere; None leaves the calibrated figures out.

  Returns:
    "figures", and "curve": accuracy by bias, for plots only.
  """
  result: Figures = {
    f"raw/{group}/{score.name}": summary[group][score.name]
    for group in (*schema.GROUPS, "all")
    for score in swig_scores.SCORES
    if score.studied and score.name in summary[group]
  }
  result[f"raw/{HARMONIC}"] = summary[HARMONIC]
  rivals = calibration.rivals(verb_scores, verb, trained)
  if bias is not None:
    by_group = calibration.by_group(rivals.right(bias), verb, groups)
    result |= _named("calibrated", by_group)
  right = np.where(trained[verb], rivals.trained_right, rivals.untrained_right)
  result |= _named("among", calibration.by_group(right, verb, groups))
  unlisted = ~trained & ~np.asarray(terms.listed_names(trained, UNLISTED_SHARE))
  result["unlisted/unseen/verb_top1"] = calibration.among(
    verb_scores, verb, unlisted
  )
  return {
    "figures": result,
    "curve": calibration.curve(rivals, verb, trained),
  }


def of_oracle(accuracy: Mapping[str, float]) -> Figures:
  """Figures of expected verb accuracies, percent, by group."""
  both = swig_scores.harmonic_mean(accuracy["seen"], accuracy["unseen"])
  return _named("raw", dict(accuracy) | {HARMONIC: both})


def of_selection(
  verb_scores: Float[np.ndarray, "n v"],
  verb: Int[np.ndarray, "n"],
  held_out: HeldOut,
) -> dict[str, Any]:
  """Figures of a student that never saw the held-out verbs.

  Args:
    verb_scores: of dev images, none of an unseen verb.
    verb: the true verb of each.
    held_out: which verbs are held out.

  Returns:
    "figures", and "curve": accuracy by bias on held-out and other verbs.
  """
  held, trained = held_out.verbs, ~held_out.verbs
  rivals = calibration.rivals(verb_scores, verb, trained, held_out.candidates)
  curve = calibration.curve(rivals, verb, trained)
  raw = rivals.right(0.0)
  of_held = held[verb]
  seen = trained[verb] & (held_out.groups[verb] == 0)
  rare = trained[verb] & ~seen
  figures: Figures = {
    "held_out/seen/verb_top1": _percent(raw[seen]),
    "held_out/rare/verb_top1": _percent(raw[rare]),
    "held_out/unseen/verb_top1": _percent(raw[of_held]),
    "held_out/among/verb_top1": _percent(rivals.untrained_right[of_held]),
    "held_out/among_seen/verb_top1": _percent(rivals.trained_right[seen]),
    "held_out/among_rare/verb_top1": _percent(rivals.trained_right[rare]),
    "held_out/calibrated_harmonic_mean": calibration.best_bias(curve)[1],
  }
  figures[f"held_out/{HARMONIC}"] = swig_scores.harmonic_mean(
    figures["held_out/seen/verb_top1"], figures["held_out/unseen/verb_top1"]
  )
  return {"figures": figures, "curve": curve}


def _named(kind: str, by_group: dict[str, float | None]) -> Figures:
  return {
    f"{kind}/{name}" if name == HARMONIC else f"{kind}/{name}/verb_top1": value
    for name, value in by_group.items()
  }


def _percent(right: Bool[np.ndarray, "n"]) -> float | None:
  return float(100 * right.mean()) if len(right) else None
