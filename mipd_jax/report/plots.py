"""Curves of a run, and accuracy against how often a verb was trained on."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.axes
import matplotlib.figure
import matplotlib.ticker
import numpy as np

from input_pipeline import atomic, schema
from input_pipeline.errors import InputError
from mipd_jax.report import style
from mipd_jax.report.runlog import Series, read_metrics

# What is drawn of the dev metrics when there are more than a panel can show.
MAIN_METRICS = ("verb_top1", "value_gt", "grnd_gt")
MAX_SERIES = 8


def loss_curves(
  metrics_jsonl_path: str | os.PathLike[str], out_png: str | os.PathLike[str]
) -> None:
  """Draws training losses beside dev metrics, against the step.

  Losses are the series named `.../loss` or `loss/...`; dev metrics are the
  others of the form `dev/...`. A panel without series is left out.

  Raises:
    InputError: see `runlog.read_metrics`; or neither losses nor dev metrics.
  """
  series = read_metrics(metrics_jsonl_path)
  losses = {k: v for k, v in series.items() if "loss" in k.split("/")}
  dev = {
    k: v for k, v in series.items() if k.startswith("dev/") and k not in losses
  }
  panels = [
    panel
    for panel in (
      ("Training loss", "loss", losses),
      ("Development set", "percent", _main_metrics(dev)),
    )
    if panel[2]
  ]
  if not panels:
    raise InputError(
      f"{metrics_jsonl_path}: neither loss/... nor dev/... among "
      f"{sorted(series)[:8]}",
      "log losses as loss/NAME and dev metrics as dev/NAME",
    )
  figure = matplotlib.figure.Figure(
    figsize=(5.6 * len(panels), 4.6), dpi=120, layout="constrained"
  )
  axes = figure.subplots(1, len(panels), squeeze=False)[0]
  for axis, (title, unit, drawn) in zip(axes, panels, strict=True):
    _draw_series(axis, drawn)
    _finish(axis, title, "training step", unit)
  _scale_losses(axes[0], losses)
  _save(figure, out_png)


def accuracy_vs_frequency(
  results: Mapping[str, Any], out_png: str | os.PathLike[str]
) -> None:
  """Draws each verb's top-1 against its number of training images.

  Verbs without training images stand in a strip of their own, left of the
  logarithmic axis. Bars are the means over the verbs of a group, which are
  the macro averages of `tables`.

  Args:
    results: the dict that `tables` describes; `per_verb` is read.
    out_png: written whole or not at all.

  Raises:
    InputError: no verb has both a count and a score.
  """
  points = _verb_points(results)
  figure = matplotlib.figure.Figure(
    figsize=(8.4, 4.8), dpi=120, layout="constrained"
  )
  strip, axis = figure.subplots(1, 2, sharey=True, width_ratios=(1, 5))
  for group, (counts, scores) in points.items():
    trained = counts > 0
    _draw_verbs(axis, group, counts[trained], scores[trained])
    jitter = np.random.default_rng(0).uniform(-0.32, 0.32, (~trained).sum())
    _draw_verbs(strip, group, jitter, scores[~trained])
    for panel, mask in ((axis, trained), (strip, ~trained)):
      if mask.any():
        _draw_mean(panel, group, counts[mask], scores[mask], panel is strip)
  _finish(strip, "", "not trained on", "verb top-1 accuracy, percent")
  strip.set(xlim=(-0.6, 0.6), xticks=[0], xticklabels=["0"], ylim=(-4, 104))
  strip.grid(axis="x", visible=False)
  _finish(axis, "", "training images of the verb", "")
  _log_counts(axis, points)
  handles = [h for a in (axis, strip) for h in a.get_legend_handles_labels()[0]]
  order = {g: i for i, g in enumerate(points)}
  handles.sort(key=lambda handle: order[handle.get_label().split(":")[0]])
  figure.legend(
    handles=handles, loc="outside lower center", ncols=3, frameon=False
  )
  figure.suptitle(
    "Verb accuracy against training images, one mark per verb\n"
    f"{results.get('dataset', '')}, {results.get('split', 'test')} split, "
    "bars: mean over the group's verbs",
    fontsize=12,
  )
  _save(figure, out_png)


def _main_metrics(dev: Series) -> Series:
  if len(dev) <= MAX_SERIES:
    return dev
  kept = {k: v for k, v in dev.items() if set(k.split("/")) & set(MAIN_METRICS)}
  return dict(list((kept or dev).items())[: 2 * MAX_SERIES])


def _draw_series(axis: matplotlib.axes.Axes, series: Series) -> None:
  for position, (name, (steps, values)) in enumerate(series.items()):
    total = name.endswith("/total")
    axis.plot(
      steps,
      values,
      # A second round through the colours is told apart by its dashes.
      linestyle="--" if position >= len(style.SERIES_COLOURS) else "-",
      color=style.INK if total else _series_colour(position),
      linewidth=2.4 if total else 1.4,
      marker="o" if len(steps) <= 20 else None,
      markersize=3.5,
      label=name.split("/", 1)[-1],
    )
  axis.legend(
    loc="upper center",
    bbox_to_anchor=(0.5, -0.16),
    ncols=3,
    frameon=False,
    fontsize=9,
  )


def _series_colour(position: int) -> str:
  return style.SERIES_COLOURS[position % len(style.SERIES_COLOURS)]


def _scale_losses(axis: matplotlib.axes.Axes, losses: Series) -> None:
  """A logarithmic axis where the terms differ by more than a factor of 20."""
  if not losses:
    return
  values = np.concatenate([values for _, values in losses.values()])
  positive = values[np.isfinite(values) & (values > 0)]
  if positive.size and positive.max() > 20 * np.median(positive):
    axis.set_yscale("log")
  elif positive.size:
    axis.set_ylim(bottom=0)


def _verb_points(
  results: Mapping[str, Any],
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """group -> (training images int64 [n], verb top-1 float64 [n], percent)."""
  found: dict[str, list[tuple[int, float]]] = {g: [] for g in schema.GROUPS}
  for entry in (results.get("per_verb") or {}).values():
    count, score = entry.get("train_images"), entry.get("verb_top1")
    scored = score is not None and math.isfinite(score)
    if entry.get("group") in found and count is not None and scored:
      found[entry["group"]].append((int(count), float(score)))
  if not any(found.values()):
    raise InputError(
      "the results hold no verb with a group, train_images and verb_top1",
      'evaluate with per-verb scores, which fill results["per_verb"]',
    )
  return {
    group: (np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs]))
    for group, pairs in found.items()
    if pairs
  }


def _draw_verbs(
  axis: matplotlib.axes.Axes, group: str, x: Sequence[float], y: Sequence[float]
) -> None:
  if len(x):
    axis.scatter(
      x,
      y,
      s=38 if group == "unseen" else 30,  # a triangle looks smaller
      alpha=0.65,
      marker=style.GROUP_MARKERS[group],
      color=style.GROUP_COLOURS[group],
      edgecolors="white",
      linewidths=0.4,
      label=f"{group}: {len(x)} verbs, mean {np.mean(y):.1f}",
    )


def _draw_mean(
  axis: matplotlib.axes.Axes,
  group: str,
  counts: np.ndarray,
  scores: np.ndarray,
  strip: bool,
) -> None:
  ends = (-0.45, 0.45) if strip else (counts.min() / 1.06, counts.max() * 1.06)
  mean = [scores.mean()] * 2
  # The white line below keeps the bar readable across a cloud of marks.
  axis.plot(ends, mean, color="white", linewidth=4.5, solid_capstyle="butt")
  axis.plot(ends, mean, color=style.GROUP_COLOURS[group], linewidth=2.5)


def _log_counts(axis: matplotlib.axes.Axes, points: dict) -> None:
  counts = np.concatenate([counts for counts, _ in points.values()])
  counts = counts[counts > 0]
  axis.set_xscale("log")
  if not counts.size:
    axis.set(xlim=(1, 10))
    return
  low, high = counts.min(), counts.max()
  axis.set_xlim(low / 1.15, high * 1.15)
  steps = [m * 10**e for e in range(7) for m in (1, 2, 5)]
  ticks = [t for t in steps if low / 1.15 <= t <= high * 1.15]
  axis.xaxis.set_major_locator(
    matplotlib.ticker.FixedLocator(ticks if len(ticks) > 1 else [low, high])
  )
  axis.xaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%d"))
  axis.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())


def _finish(
  axis: matplotlib.axes.Axes, title: str, xlabel: str, ylabel: str
) -> None:
  axis.set_title(title, fontsize=12)
  axis.set_xlabel(xlabel)
  axis.set_ylabel(ylabel)
  axis.grid(color="#E4E8EC", linewidth=0.8)
  axis.set_axisbelow(True)
  axis.spines[["top", "right"]].set_visible(False)


def _save(
  figure: matplotlib.figure.Figure, out_png: str | os.PathLike[str]
) -> None:
  with atomic.replacing(out_png) as temporary:
    figure.savefig(temporary, format="png", facecolor="white")
