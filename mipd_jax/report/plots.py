"""Curves and measurements of a run, for documents and the page.

A document shows a PNG; a web page shows the same drawing at the width of a
phone, as SVG in the colours of the page, stretched on wider screens.
"""

import io
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

import matplotlib
import matplotlib.axes
import matplotlib.figure
import matplotlib.patches
import matplotlib.ticker
import numpy as np

from input_pipeline import schema
from input_pipeline.io import atomic
from input_pipeline.io.errors import InputError
from mipd_jax.report import style
from mipd_jax.report.files import Series, read_metrics
from mipd_jax.report.measures import Bin

# The dev metrics to draw if there are more than a panel can show.
MAIN_METRICS = ("verb_top1", "value_gt", "grnd_gt")
MAX_SERIES = 8

# group -> (verb, training images, top-1 in percent).
Points = Mapping[str, Sequence[tuple[str, int, float]]]
_PAGE_SIZE = (5, 3.5)  # inches: 360 x 252 units of the SVG
_PAGE_STYLE = {"font.size": 11}
_GRID = "#E4E8EC"
# Colours that a page replaces by its own, light or dark.
_PAGE_COLOURS = {
  **{colour.lower(): name for name, colour in style.LIGHT.items()},
  **{"#000000": "ink", _GRID.lower(): "rule"},
}
_COLOUR = re.compile("|".join(_PAGE_COLOURS))
_FONT = re.compile(r"font-family:[^;]*;? ?")


def loss_curves(
  metrics_jsonl_path: str | os.PathLike[str], out_png: str | os.PathLike[str]
) -> None:
  """Draws training losses and dev metrics against the step.

  Losses are the series named `.../loss` or `loss/...`; dev metrics are the
  others of the form `dev/...`. A panel without series is left out.

  Raises:
    InputError: see `files.read_metrics`; or neither losses nor dev metrics.
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
    finish(axis, title, "training step", unit)
  _scale_losses(axes[0], losses)
  save(figure, out_png)


def accuracy_vs_frequency(
  results: Mapping[str, Any], out_png: str | os.PathLike[str]
) -> None:
  """Draws each verb's top-1 against its number of training images.

  Verbs without training images are in a strip of their own, left of the
  logarithmic axis. Bars are the means over the verbs of a group, which are
  the macro averages of `tables`.

  Args:
    results: the dict that `tables` describes; `per_verb` is read.
    out_png: written whole or not at all.

  Raises:
    InputError: no verb has both a count and a score.
  """
  points = verb_points(results)
  if not points:
    raise InputError(
      "the results hold no verb with a group, train_images and verb_top1",
      'evaluate with per-verb scores, which fill results["per_verb"]',
    )
  figure = matplotlib.figure.Figure(
    figsize=(8.4, 4.8), dpi=120, layout="constrained"
  )
  strip, axis = _draw_frequency(figure, points)
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
  save(figure, out_png)


def frequency_svg(points: Points) -> str:
  """The drawing of `accuracy_vs_frequency` for a page, a mark per verb."""
  with matplotlib.rc_context(_PAGE_STYLE):
    figure = _page_figure()
    strip, axis = _draw_frequency(figure, points)
    strip.set_ylabel("verb top-1, percent")
    handles = {
      handle.get_label().split(":")[0]: handle
      for panel in (axis, strip)
      for handle in panel.get_legend_handles_labels()[0]
    }
    if points:
      figure.legend(
        handles=[handles[group] for group in points],
        labels=list(points),
        loc="outside lower center",
        ncols=3,
        frameon=False,
      )
    marks = {
      f"{group} {trained}": [
        f"{name}: {score:.0f} % right, {count} training images"
        for name, count, score in verbs
        if (count > 0) == trained
      ]
      for group, verbs in points.items()
      for trained in (True, False)
    }
    for panel, trained in ((axis, True), (strip, False)):
      for collection in panel.collections:
        group = collection.get_label().split(":")[0]
        collection.set_gid(f"{group} {trained}")
    return _svg(figure, "Verb accuracy against training images", marks)


def reliability_svg(
  bins: Sequence[Bin], group: str, label: str, what: str
) -> str:
  """Bars of the true share in each bin, against the diagonal.

  A dot marks the mean stated probability of a bin; a bar is as strong as its
  bin is full: a faint one has few predictions.

  Args:
    bins: from `measures.reliability`.
    group: gives the colour.
    label: of the horizontal axis.
    what: the predicted event, for the vertical axis.
  """
  full = [b for b in bins if b.count]
  most = max((b.count for b in full), default=0)
  colour, marks = style.GROUP_COLOURS[group], {}
  with matplotlib.rc_context(_PAGE_STYLE):
    figure = _page_figure()
    axis = figure.subplots()
    for b in full:
      bar = matplotlib.patches.Rectangle(
        (100 * b.low, 0),
        100 * (b.high - b.low),
        max(100 * b.true, 0.2),
        facecolor=colour,
        edgecolor=style.CARD,
        alpha=0.25 + 0.6 * math.sqrt(b.count / most),
        gid=f"bin {b.low}",
      )
      axis.add_patch(bar)
      marks[f"bin {b.low}"] = [
        f"stated {100 * b.stated:.0f} %, true {100 * b.true:.0f} %, "
        f"{b.count} of them"
      ]
    axis.plot(
      [100 * b.stated for b in full],
      [100 * b.true for b in full],
      "o",
      color=colour,
      markeredgecolor=style.CARD,
      clip_on=False,
    )
    axis.plot((0, 100), (0, 100), "--", color=style.FAINT, linewidth=1.2)
    ticks = (0, 25, 50, 75, 100)
    axis.set(xlim=(0, 100), ylim=(0, 100), xticks=ticks, yticks=ticks)
    finish(axis, "", label, what)
    return _svg(figure, f"{group}: {what} against {label}", marks)


def trade_svg(
  curve: Sequence[tuple[float, float]],
  here: tuple[float, float],
  labels: tuple[str, str],
) -> str:
  """A curve of two accuracies in percent, and the point of this run on it."""
  with matplotlib.rc_context(_PAGE_STYLE):
    figure = _page_figure()
    axis = figure.subplots()
    draw_trade(axis, curve, here, style.GROUP_COLOURS["seen"])
    axis.lines[-1].set_gid("here")
    most = np.max([(10, 10), *curve], axis=0) * 1.05
    axis.set(xlim=(0, most[0]), ylim=(0, most[1]))
    finish(axis, "", *labels)
    name = f"{labels[1]} against {labels[0]}"
    return _svg(figure, name, {"here": ["as it is"]})


def draw_trade(
  axis: matplotlib.axes.Axes,
  curve: Sequence[tuple[float, float]],
  here: tuple[float, float],
  colour: str,
  label: str = "",
) -> None:
  """Draws accuracy on trained against untrained verbs, as a bias varies.

  Args:
    axis: to draw on.
    curve: (untrained, trained), percent.
    here: the point without a bias, a mark.
    colour: of both.
    label: for a legend.
  """
  x, y = np.asarray(curve, float).T
  axis.plot(x, y, color=colour, linewidth=1.6, label=label)
  axis.plot(*here, "o", color=colour)


def _page_figure() -> matplotlib.figure.Figure:
  return matplotlib.figure.Figure(figsize=_PAGE_SIZE, layout="constrained")


def _svg(
  figure: matplotlib.figure.Figure,
  name: str,
  marks: Mapping[str, Sequence[str]],
) -> str:
  """A figure as an element of a page, with only the ids that it uses.

  Args:
    figure: the figure.
    name: a description, for screen readers.
    marks: gid of an artist -> the text of each of its marks when touched.
  """
  content = io.StringIO()
  # A fixed salt gives clips and markers the same ids in every run.
  settings = {"svg.fonttype": "none", "svg.hashsalt": name}
  with matplotlib.rc_context(settings):
    figure.savefig(content, format="svg", facecolor="none")
  root = ElementTree.fromstring(content.getvalue())
  for element in root.iter():
    element.tag = element.tag.split("}")[-1]
    for key in [k for k in element.attrib if k.endswith("}href")]:
      element.set("href", element.attrib.pop(key))
    if "style" in element.attrib:
      css = _FONT.sub("", element.get("style"))
      css = _COLOUR.sub(lambda c: f"var(--{_PAGE_COLOURS[c[0]]})", css)
      element.set("style", css)
  for child in list(root):
    # `style` would apply to all elements of the page.
    if child.tag == "metadata" or child.find("style") is not None:
      root.remove(child)
  for group in root.iter("g"):
    said = marks.get(group.attrib.pop("id", ""), ())
    shapes = list(group.iter("use")) or group.findall("path")
    for shape, words in zip(shapes, said, strict=bool(said)):
      ElementTree.SubElement(shape, "title").text = words
  root.attrib = {
    "viewBox": root.get("viewBox"),
    "role": "img",
    "aria-label": name,
  }
  return ElementTree.tostring(root, encoding="unicode")


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
      # Dashes mark a second round through the colours.
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
  """A logarithmic axis if the terms differ by more than a factor of 20."""
  if not losses:
    return
  values = np.concatenate([values for _, values in losses.values()])
  positive = values[np.isfinite(values) & (values > 0)]
  if positive.size and positive.max() > 20 * np.median(positive):
    axis.set_yscale("log")
  elif positive.size:
    axis.set_ylim(bottom=0)


def verb_points(results: Mapping[str, Any]) -> Points:
  """The verbs with a group, a count and a score; groups in their order."""
  points_of = {group: [] for group in schema.GROUPS}
  for name, entry in (results.get("per_verb") or {}).items():
    count, score = entry.get("train_images"), entry.get("verb_top1")
    scored = score is not None and math.isfinite(score)
    if entry.get("group") in points_of and count is not None and scored:
      points_of[entry["group"]].append((name, int(count), float(score)))
  return {group: points for group, points in points_of.items() if points}


def _draw_frequency(
  figure: matplotlib.figure.Figure, points: Points
) -> tuple[matplotlib.axes.Axes, matplotlib.axes.Axes]:
  """Returns the strip of the untrained verbs, and the axis of the others."""
  strip, axis = figure.subplots(1, 2, sharey=True, width_ratios=(1, 5))
  for group, verbs in points.items():
    counts = np.array([count for _, count, _ in verbs])
    scores = np.array([score for *_, score in verbs])
    trained = counts > 0
    _draw_verbs(axis, group, counts[trained], scores[trained])
    jitter = np.random.default_rng(0).uniform(-0.32, 0.32, (~trained).sum())
    _draw_verbs(strip, group, jitter, scores[~trained])
    for panel, mask in ((axis, trained), (strip, ~trained)):
      if mask.any():
        _draw_mean(panel, group, counts[mask], scores[mask], panel is strip)
  finish(strip, "", "not trained on", "verb top-1 accuracy, percent")
  strip.set(xlim=(-0.6, 0.6), xticks=[0], xticklabels=["0"], ylim=(-4, 104))
  strip.grid(axis="x", visible=False)
  finish(axis, "", "training images of the verb", "")
  counts = [count for verbs in points.values() for _, count, _ in verbs]
  _log_counts(axis, np.array(counts))
  return strip, axis


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
  # The white line below keeps the bar readable over many marks.
  axis.plot(ends, mean, color="white", linewidth=4.5, solid_capstyle="butt")
  axis.plot(ends, mean, color=style.GROUP_COLOURS[group], linewidth=2.5)


def _log_counts(axis: matplotlib.axes.Axes, counts: np.ndarray) -> None:
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


def finish(
  axis: matplotlib.axes.Axes, title: str, xlabel: str, ylabel: str
) -> None:
  """Labels a panel, and tidies it."""
  axis.set_title(title, fontsize=12)
  axis.set_xlabel(xlabel)
  axis.set_ylabel(ylabel)
  tidy(axis)


def tidy(axis: matplotlib.axes.Axes) -> None:
  """Gives a panel a faint grid, and no box around it."""
  axis.grid(color=_GRID, linewidth=0.8)
  axis.set_axisbelow(True)
  axis.spines[["top", "right"]].set_visible(False)


def save(
  figure: matplotlib.figure.Figure, out_png: str | os.PathLike[str]
) -> None:
  """Writes a figure as PNG, whole or not at all."""
  with atomic.replacing(out_png) as temporary:
    figure.savefig(temporary, format="png", facecolor="white")
