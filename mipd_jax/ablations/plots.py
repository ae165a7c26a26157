"""The study's pictures: differences with intervals, accuracy by bias."""

import os
from collections.abc import Mapping
from typing import Any

import matplotlib.axes
import matplotlib.figure

from mipd_jax.report import plots, style

# Title of a panel -> figure.
PANELS = {
  "seen verbs": "raw/seen/verb_top1",
  "rare verbs": "raw/rare/verb_top1",
  "unseen verbs": "raw/unseen/verb_top1",
  "harmonic mean,\ncalibrated": "calibrated/harmonic_mean",
  "unseen among\nuntrained names": "among/unseen/verb_top1",
}
# If no run was reported.
SELECTION_PANELS = {
  "seen verbs": "held_out/seen/verb_top1",
  "rare verbs": "held_out/rare/verb_top1",
  "held-out verbs": "held_out/unseen/verb_top1",
  "harmonic mean,\nbest bias": "held_out/calibrated_harmonic_mean",
  "held-out among\nheld-out names": "held_out/among/verb_top1",
}
_MAX_CURVES = len(style.SERIES_COLOURS)


def differences(study: Mapping[str, Any], path: str | os.PathLike) -> bool:
  """Draws every difference with its interval, one row per pair.

  Args:
    study: from `collect.summary`.
    path: of the PNG, written whole or not at all.

  Returns:
    Whether there was anything to draw.
  """
  rows = [d for d in study["differences"] if d["figures"]]
  panels = PANELS
  if not any("raw/harmonic_mean" in row["figures"] for row in rows):
    panels = SELECTION_PANELS
  if not rows:
    return False
  figure = matplotlib.figure.Figure(
    figsize=(3 + 2.2 * len(panels), 1.4 + 0.3 * len(rows)),
    dpi=120,
    layout="constrained",
  )
  axes = figure.subplots(1, len(panels), sharey=True)
  for axis, (title, name) in zip(axes, panels.items(), strict=True):
    _draw_differences(axis, [row["figures"].get(name) for row in rows])
    axis.set_title(title, fontsize=10)
  names = [f"{row['variant']} less {row['against']}" for row in rows]
  axes[0].set_yticks(range(len(rows)), names, fontsize=9)
  axes[0].set_ylim(len(rows) - 0.5, -0.5)
  figure.supxlabel(
    "percentage points, verb top-1; bars: 95 % intervals, orange where they "
    "exclude zero",
    fontsize=9,
  )
  plots.save(figure, path)
  return True


def curves(study: Mapping[str, Any], path: str | os.PathLike) -> bool:
  """Draws accuracy on trained against untrained verbs, as the bias varies.

  A mark shows a variant without a bias. Only for the first few variants, which
  are the presets.

  Returns:
    Whether there was anything to draw.
  """
  curve_of = {
    name: variant["curve"]
    for name, variant in study["variants"].items()
    if variant["curve"]
  }
  if not curve_of:
    return False
  figure = matplotlib.figure.Figure(
    figsize=(6.4, 5.2), dpi=120, layout="constrained"
  )
  axis = figure.subplots()
  for colour, (name, curve) in zip(
    style.SERIES_COLOURS, list(curve_of.items())[:_MAX_CURVES], strict=False
  ):
    points = list(zip(curve["untrained"], curve["trained"], strict=True))
    raw = points[curve["bias"].index(0.0)]
    plots.draw_trade(axis, points, raw, colour, name)
  axis.set_xlabel("unseen verbs, top-1, percent")
  axis.set_ylabel("trained verbs, top-1, percent")
  axis.set_title("As a bias between them moves; mark: none", fontsize=11)
  plots.tidy(axis)
  axis.legend(frameon=False, fontsize=9)
  plots.save(figure, path)
  return True


def _draw_differences(axis: matplotlib.axes.Axes, rows: list) -> None:
  axis.axvline(0, color=style.FAINT, linewidth=1)
  for position, estimate in enumerate(rows):
    if estimate is None:
      continue
    sure = estimate["excludes_zero"]
    colour = style.SERIES_COLOURS[1] if sure else style.SERIES_COLOURS[0]
    if estimate["low"] is not None:
      ends = (estimate["low"], estimate["high"])
      axis.plot(ends, (position, position), color=colour, linewidth=2)
    axis.plot(estimate["mean"], position, "o", color=colour, markersize=5)
  plots.tidy(axis)
