"""The report of a run: one web page with its measurements and examples.

Its words and their order are in templates/report.html.j2.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from input_pipeline import schema
from input_pipeline.io.errors import InputError
from mipd_jax.report import (
  cards,
  examples,
  files,
  measures,
  pages,
  plots,
  tables,
)
from mipd_jax.report.cards import ExampleView
from mipd_jax.report.measures import Rows

MAX_BYTES = 5_000_000
_COUNTS = (0, 5, 20, 50, 100, 200)  # upper ends of bins of training images
_CONFUSIONS = 20
_LEADERS = 8  # verbs per side of teacher and student


@dataclasses.dataclass(frozen=True, eq=False)
class Trade:
  """Accuracy in percent on unseen and trained verbs, as a bias shifts them.

  Attributes:
    curve: (untrained, trained), by falling bias on the trained names.
    here: the point without a bias.
  """

  curve: Sequence[tuple[float, float]]
  here: tuple[float, float]


@dataclasses.dataclass(frozen=True, eq=False)
class Report:
  """The content of the page.

  Attributes:
    name: of the run.
    results: the content of results.json.
    rows: the split, image by image.
    verbs: names of the verbs.
    trade: None if there are no images of untrained verbs.
    examples: by (kind, group), from `examples.choose_for_report`.
    student_ahead, teacher_ahead: images where only one of both is right.
    training: training images with their rationales.
    written: the authors of these, from `files.author`.
    use: their use in training, from `files.use`.
    has_teacher: whether a teacher took part in training.
  """

  name: str
  results: Mapping[str, Any]
  rows: Rows
  verbs: Sequence[str]
  trade: Trade | None
  examples: Mapping[tuple[str, str], Sequence[ExampleView]]
  student_ahead: Sequence[ExampleView]
  teacher_ahead: Sequence[ExampleView]
  training: Sequence[ExampleView]
  written: str
  use: str
  has_teacher: bool


def write_report(path: str | os.PathLike[str], report: Report) -> None:
  """Writes the page, whole or not at all.

  Raises:
    InputError: it is larger than MAX_BYTES.
  """
  page = render(report)
  size = len(page.encode("utf-8"))
  if size > MAX_BYTES:
    raise InputError(
      f"the report would have {size} bytes, more than {MAX_BYTES}",
      "show fewer examples: the counts are in mipd_jax/stages/report.py",
    )
  pages.write(path, page)


def render(report: Report) -> str:
  """The page as text."""
  results, rows = report.results, report.rows
  return pages.render(
    "report.html.j2",
    title=f"Report: {report.name}, {results['split']} split",
    about=[
      f"{results['dataset']}, split {results['split']}, "
      f"{len(rows.verb)} images; {tables.heading(results)}.",
      "This page needs no network and no other file. Touch or hover over a "
      "mark to see what it stands for.",
    ],
    scores={"blocks": tables.blocks(results), "among": _among(results)},
    frequency=_frequency(results),
    confusions=_confusions(rows, report.verbs),
    calibration=_calibration(rows),
    trade=_trade(report.trade),
    boxes=_boxes(rows),
    teacher=_teacher(report),
    examples={
      "rule": examples.RULE,
      "kinds": {
        kind: _cards(
          view for g in schema.GROUPS for view in report.examples[kind, g]
        )
        for kind in examples.KINDS
      },
    },
    rationales={
      "said": f"Written {report.written}. {report.use} "
      f"{examples.TRAINING_RULE}",
      "views": _cards(report.training),
    },
  )


def _cards(views) -> list[cards.Card]:
  return [cards.card(view) for view in views]


def _percent(share: float | None) -> str:
  return tables.number(None if share is None else 100 * float(share), 1)


def _among(results: Mapping[str, Any]) -> list[tuple[str, ...]]:
  kinds = ("trained", "untrained")
  return [
    (model, *(tables.number(among.get(kind)) for kind in kinds))
    for model, groups in results["models"].items()
    if (among := groups.get("among"))
  ]


def _frequency(results: Mapping[str, Any]) -> dict[str, Any]:
  points = plots.verb_points(results)
  rows, low = [], 0
  for high in (*_COUNTS, float("inf")):
    accuracies = [
      score
      for members in points.values()
      for _, count, score in members
      if low <= count <= high
    ]
    if accuracies:
      span = f"{low} and more" if high > _COUNTS[-1] else f"{low} to {high}"
      mean = tables.number(sum(accuracies) / len(accuracies), 1)
      rows.append((span if high else "none", len(accuracies), mean))
    low = high + 1
  return {"chart": plots.frequency_svg(points), "rows": rows}


def _confusions(rows: Rows, verbs: Sequence[str]) -> dict[str, Any]:
  """The most frequent wrong pairs; `verbs` are the names."""
  group = dict(zip(rows.verb.tolist(), rows.group.tolist(), strict=True))
  pairs = measures.confusions(rows.verb, rows.student.verb, _CONFUSIONS)
  return {
    "wrong": (rows.verb != rows.student.verb).sum(),
    "images": len(rows.verb),
    "rows": [
      (
        verbs[c.verb],
        verbs[c.taken_for],
        schema.GROUPS[group[c.verb]],
        c.count,
        f"{c.share:.0%}",
      )
      for c in pairs
    ],
  }


def _calibration(rows: Rows) -> dict[str, Any]:
  """The calibration of the verb's probability, by group."""
  right = rows.student.verb == rows.verb
  members = {"all": np.ones(len(rows.verb), bool)}
  members |= {g: rows.group == i for i, g in enumerate(schema.GROUPS)}
  content = {"charts": [], "rows": []}
  for group, here in members.items():
    images = int(here.sum())
    if not images:
      continue
    stated = rows.student.probability[here]
    bins = measures.reliability(stated, right[here])
    chart = plots.reliability_svg(
      bins, group, "stated probability, percent", "right, percent"
    )
    content["charts"].append((chart, group, images))
    error = measures.calibration_error(bins)
    values = (stated.mean(), right[here].mean(), error)
    content["rows"].append((group, images, *map(_percent, values)))
  return content


def _trade(trade: Trade | None) -> dict[str, Any] | None:
  if trade is None:
    return None
  labels = ("untrained verbs, percent", "trained verbs, percent")
  chart = plots.trade_svg(trade.curve, trade.here, labels)
  return {"chart": chart, "here": trade.here}


def _boxes(rows: Rows) -> dict[str, Any]:
  """The calibration of the boxes' confidence."""
  counts = measures.box_table(rows)
  total = max(sum(counts.values()), 1)
  grounded = rows.role_mask & rows.box_mask
  has_box = measures.reliability(
    rows.confidence[rows.role_mask], rows.box_mask[rows.role_mask]
  )
  placed = measures.reliability(
    rows.confidence[grounded], rows.overlapping[grounded]
  )
  stated = "stated confidence, percent"
  return {
    "rows": [(n, c, f"{c / total:.1%}") for n, c in counts.items()],
    "error": _percent(measures.calibration_error(has_box)),
    "roles": int(rows.role_mask.sum()),
    "has_box": plots.reliability_svg(
      has_box, "all", stated, "has a box, percent"
    ),
    "grounded": int(grounded.sum()),
    "placed": plots.reliability_svg(
      placed, "seen", stated, "IoU ≥ 0.5, percent"
    ),
  }


def _teacher(report: Report) -> dict[str, Any] | None:
  """Where both differ: counts, verbs, and images where only one is right."""
  rows = report.rows
  if rows.teacher is None:
    return None
  lead = measures.lead(rows)

  def listed(leaders):
    return [
      (report.verbs[verb], images, f"{student:.0%}", f"{teacher:.0%}")
      for verb, images, student, teacher in leaders[:_LEADERS]
    ]

  return {
    "said": files.zero_shot(teacher=report.has_teacher),
    "rows": [
      (group, *(counts[k] for k in ("both", "student", "teacher", "neither")))
      for group, counts in measures.agreement(rows).items()
    ],
    "leads": {
      "student": listed([v for v in lead if v[2] > v[3]]),
      "teacher": listed([v for v in reversed(lead) if v[2] < v[3]]),
    },
    "rule": examples.TEACHER_RULE,
    "ahead": {
      "student": _cards(report.student_ahead),
      "teacher": _cards(report.teacher_ahead),
    },
  }
