"""Charts as inline SVG, in the colours of the page's style sheet.

They are drawn at the width of a telephone, so that letters are legible there,
and stretched on wider screens.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from mipd_jax.report.findings import Bin
from mipd_jax.report.html_page import text

_WIDTH, _HEIGHT = 360, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 38, 10, 10, 40
_PERCENT = tuple((value, str(value)) for value in (0, 25, 50, 75, 100))

Point = tuple[float, float]
Ticks = Sequence[tuple[float, str]]


@dataclasses.dataclass(frozen=True)
class _Axes:
  """Maps values to places: linear between the limits."""

  x: Point
  y: Point = (0, 100)

  def place(self, x: float, y: float) -> Point:
    width = _WIDTH - _LEFT - _RIGHT
    height = _HEIGHT - _TOP - _BOTTOM
    across = (x - self.x[0]) / (self.x[1] - self.x[0])
    up = (y - self.y[0]) / (self.y[1] - self.y[0])
    return _LEFT + across * width, _TOP + (1 - up) * height


def figure(svg: str, caption: str) -> str:
  """A chart with a line of text below."""
  return f"<figure>{svg}<figcaption>{text(caption)}</figcaption></figure>"


def scatter(
  points: Mapping[str, Sequence[tuple[str, int, float]]], label: str
) -> str:
  """Accuracy in percent against a count, one mark a name, by group.

  The axis is logarithmic; names with count 0 stand in a strip at its left.

  Args:
    points: group -> (name, count, percent).
    label: of the horizontal axis.
  """
  counts = [c for group in points.values() for _, c, _ in group if c > 0]
  high = math.log10(max([*counts, 10]))
  low = min(math.log10(min(counts, default=1)), high - 0.3)
  strip = (high - low) * 0.16
  axes = _Axes((low - 1.4 * strip, high + 0.05 * (high - low)), (-3, 103))
  ticks = [(low - strip, "0")] + [
    (math.log10(t), str(t))
    for t in (m * 10**e for e in range(7) for m in (1, 2, 5))
    if low - 1e-9 <= math.log10(t) <= high + 1e-9
  ]
  marks = []
  for group, members in points.items():
    for number, (name, count, percent) in enumerate(members):
      # Names without training images spread over the strip's width.
      spread = ((number * 0.618) % 1 - 0.5) * strip * 0.8
      x = math.log10(count) if count else low - strip + spread
      title = f"{name}: {percent:.0f} % right, {count} training images"
      marks.append(_mark(group, axes.place(x, percent), title))
  legend = _legend([(group, group) for group in points])
  frame = _frame(axes, ticks, _PERCENT, label, "verb top-1, percent")
  return _svg(f"Verb accuracy against {label}", frame + "".join(marks) + legend)


def reliability(bins: Sequence[Bin], group: str, label: str, what: str) -> str:
  """Bars of what came true in each bin, against the diagonal.

  Each bar is marked at the mean stated probability of its bin, and as strong
  as the bin is full: a faint bar stands for few predictions.

  Args:
    bins: from `findings.reliability`.
    group: whose colour is taken.
    label: of the horizontal axis.
    what: comes true, for the vertical axis.
  """
  axes = _Axes((0, 100))
  most = max((b.count for b in bins), default=0)
  parts = []
  for b in bins:
    if not b.count:
      continue
    x1, y1 = axes.place(100 * b.low, 100 * b.true)
    x2, y2 = axes.place(100 * b.high, 0)
    strength = 0.25 + 0.6 * math.sqrt(b.count / most)
    title = (
      f"stated {100 * b.stated:.0f} %, true {100 * b.true:.0f} %, "
      f"{b.count} of them"
    )
    x, y = axes.place(100 * b.stated, 100 * b.true)
    parts.append(
      f'<rect class="fill" x="{x1 + 1:.1f}" y="{y1:.1f}" '
      f'width="{x2 - x1 - 2:.1f}" height="{max(y2 - y1, 0.5):.1f}" '
      f'opacity="{strength:.2f}"><title>{text(title)}</title></rect>'
      f'<circle class="fill" cx="{x:.1f}" cy="{y:.1f}" r="3.5" '
      'stroke="var(--card)"/>'
    )
  ideal = _line(axes, [(0, 0), (100, 100)], "ideal")
  frame = _frame(axes, _PERCENT, _PERCENT, label, what)
  body = f'<g class="{text(group)}">{"".join(parts)}</g>'
  return _svg(f"{what} against {label}", frame + body + ideal)


def trade(curve: Sequence[Point], here: Point, labels: tuple[str, str]) -> str:
  """A curve of two accuracies in percent, and the point of this run on it."""
  limits = [max([10.0, *(p[i] for p in curve)]) * 1.05 for i in (0, 1)]
  axes = _Axes((0, limits[0]), (0, limits[1]))
  ticks = [
    [(v, t) for v, t in _even(limit) if v <= limit + 1e-9] for limit in limits
  ]
  x, y = axes.place(*here)
  body = (
    f'<g class="seen">{_line(axes, curve, "line", 2.5)}'
    f'<circle class="fill" cx="{x:.1f}" cy="{y:.1f}" r="6" '
    'stroke="var(--card)" stroke-width="2"><title>as it is</title></circle></g>'
  )
  frame = _frame(axes, ticks[0], ticks[1], *labels)
  return _svg(f"{labels[1]} against {labels[0]}", frame + body)


def _even(limit: float) -> Ticks:
  step = next(s for s in (2, 5, 10, 25) if limit / s <= 6)
  return [(v, str(v)) for v in range(0, int(limit) + 1, step)]


def _mark(group: str, place: Point, title: str) -> str:
  """A shape of the group, as on the other pictures: dot, square, triangle."""
  x, y = place
  shape = {
    "rare": f'<rect x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7" ',
    "unseen": f'<path d="M{x:.1f} {y - 5:.1f}l4.6 8h-9.2z" ',
  }.get(group, f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.8" ')
  tag = shape[1:].split()[0]
  hover = f"<title>{text(title)}</title>" if title else ""
  return (
    f'<g class="{text(group)}">{shape}class="fill" opacity=".75" '
    f'stroke="var(--card)" stroke-width=".5">{hover}</{tag}></g>'
  )


def _legend(entries: Sequence[tuple[str, str]]) -> str:
  """Below the axis' label, at the right."""
  parts = []
  for number, (group, name) in enumerate(entries):
    x = _WIDTH - _RIGHT - 62 * (len(entries) - number)
    parts.append(_mark(group, (x + 8, _HEIGHT - 6), ""))
    parts.append(f'<text x="{x + 16}" y="{_HEIGHT - 2}">{text(name)}</text>')
  return "".join(parts)


def _frame(
  axes: _Axes, x_ticks: Ticks, y_ticks: Ticks, x_label: str, y_label: str
) -> str:
  bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
  parts = []
  for value, word in y_ticks:
    _, y = axes.place(axes.x[0], value)
    parts.append(
      f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" '
      f'y2="{y:.1f}"/><text class="small" x="{_LEFT - 5}" y="{y + 4:.1f}" '
      f'text-anchor="end">{text(word)}</text>'
    )
  for value, word in x_ticks:
    x, _ = axes.place(value, axes.y[0])
    parts.append(
      f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" '
      f'y2="{bottom + 4}"/><text class="small" x="{x:.1f}" '
      f'y="{bottom + 15}" text-anchor="middle">{text(word)}</text>'
    )
  middle = (_TOP + bottom) / 2
  parts.append(
    f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{bottom}" '
    f'y2="{bottom}"/>'
    f'<text class="small" x="{_LEFT}" y="{_HEIGHT - 8}">{text(x_label)}</text>'
    f'<text class="small" transform="translate(10 {middle}) rotate(-90)" '
    f'text-anchor="middle">{text(y_label)}</text>'
  )
  return "".join(parts)


def _line(
  axes: _Axes, points: Sequence[Point], kind: str, width: float = 1.5
) -> str:
  places = " ".join(
    f"{x:.1f},{y:.1f}" for x, y in (axes.place(*p) for p in points)
  )
  return (
    f'<polyline class="{kind}" points="{places}" fill="none" '
    f'stroke-width="{width}"/>'
  )


def _svg(name: str, body: str) -> str:
  return (
    f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
    f'aria-label="{text(name)}">{body}</svg>'
  )
