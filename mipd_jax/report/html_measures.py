"""Sections of the report: confusions, calibration, boxes, the teacher."""

import dataclasses
from collections.abc import Sequence

from input_pipeline import schema
from mipd_jax.report import choice, findings, html_charts, tables
from mipd_jax.report.findings import Rows
from mipd_jax.report.html_examples import ExampleView, cards
from mipd_jax.report.html_page import paragraph, pill, table

_CONFUSIONS = 20
_LEADERS = 8  # verbs on either side of teacher and student


@dataclasses.dataclass(frozen=True, eq=False)
class Trade:
  """Accuracy in percent on unseen and trained verbs, as a bias shifts them.

  Attributes:
    curve: (untrained, trained), by falling bias on the trained names.
    here: without a bias.
  """

  curve: Sequence[tuple[float, float]]
  here: tuple[float, float]


def confusions(rows: Rows, verbs: Sequence[str]) -> str:
  """The most frequent wrong pairs; `verbs` are the names."""
  found = findings.confusions(rows.verb, rows.student.verb, _CONFUSIONS)
  wrong = int((rows.verb != rows.student.verb).sum())
  group = dict(zip(rows.verb.tolist(), rows.group.tolist(), strict=True))
  cells = [
    (
      verbs[c.verb],
      verbs[c.taken_for],
      pill(schema.GROUPS[group[c.verb]]),
      str(c.count),
      f"{c.share:.0%}",
    )
    for c in found
  ]
  header = ("verb", "taken for", "group", "images", "of the verb's")
  said = (
    f"{wrong} of {len(rows.verb)} images are taken for another verb. The "
    f"{len(found)} most frequent pairs; of equally frequent ones the first in "
    "the vocabulary."
  )
  return paragraph(said) + table(header, cells, 3, "confused verbs")


def calibration(rows: Rows, trade: Trade | None) -> str:
  """How far the verb's probability can be believed, by group."""
  right = rows.student.verb == rows.verb
  members = {g: rows.group == i for i, g in enumerate(schema.GROUPS)}
  members["all"] = rows.group >= 0
  charts, cells = [], []
  for group in ("all", *schema.GROUPS):
    here = members[group]
    if not here.any():
      continue
    stated = rows.student.probability[here]
    bins = findings.reliability(stated, right[here])
    charts.append(
      html_charts.figure(
        html_charts.reliability(
          bins, group, "stated probability, percent", "right, percent"
        ),
        f"{group} verbs, {int(here.sum())} images",
      )
    )
    error = findings.calibration_error(bins)
    values = (stated.mean(), right[here].mean(), error)
    numbers = [tables.number(100 * float(v), 1) for v in values]
    cells.append((pill(group), str(int(here.sum())), *numbers))
  header = ("verbs", "images", "stated", "right", "calibration error")
  said = paragraph(
    "The probability of the verb that the student puts first, against how "
    "often it is right. On the dashed line a probability means what it says; "
    "a faint bar stands for few images. The calibration error is the mean "
    "distance from that line, in percent, weighted by images."
  )
  listed = table(header, cells, 1, "calibration by group")
  panels = f'<div class="panels">{"".join(charts)}</div>'
  return said + listed + panels + _trade(trade)


def _trade(trade: Trade | None) -> str:
  if trade is None:
    return ""
  labels = ("untrained verbs, percent", "trained verbs, percent")
  said = paragraph(
    "Taking a bias off the scores of all trained names trades accuracy on "
    "their images for accuracy on the untrained verbs' images. The dot is "
    "the run as it is. Where to stand on the curve has to be chosen on "
    "held-out trained verbs, never by this picture."
  )
  unseen, seen = trade.here
  chart = html_charts.figure(
    html_charts.trade(trade.curve, trade.here, labels),
    f"As it is: {unseen:.1f} on untrained, {seen:.1f} on trained verbs.",
  )
  return f"<h3>Trained against untrained names</h3>{said}{chart}"


def boxes(rows: Rows) -> str:
  """How far the confidence of boxes can be believed."""
  counts = findings.box_table(rows)
  total = max(sum(counts.values()), 1)
  cells = [(n, str(c), f"{c / total:.1%}") for n, c in counts.items()]
  stated, true = rows.confidence[rows.role_mask], rows.box_mask[rows.role_mask]
  over = rows.overlapping & rows.box_mask
  grounded = rows.role_mask & rows.box_mask
  charts = [
    html_charts.figure(
      html_charts.reliability(
        findings.reliability(stated, true),
        "all",
        "stated confidence, percent",
        "has a box, percent",
      ),
      f"Whether a role has a box at all, {len(stated)} roles.",
    ),
    html_charts.figure(
      html_charts.reliability(
        findings.reliability(rows.confidence[grounded], over[grounded]),
        "seen",
        "stated confidence, percent",
        "IoU ≥ 0.5, percent",
      ),
      "Whether the box is where it should be, of the "
      f"{int(grounded.sum())} roles that have one.",
    ),
  ]
  error = findings.calibration_error(findings.reliability(stated, true))
  said = paragraph(
    "For the roles of the true verb's frame. Confidence states whether a role "
    "has a box (0.5 and more: one is drawn), not how well it is placed. "
    "Calibration error of the former: "
    f"{tables.number(None if error is None else 100 * error, 1)} percent."
  )
  listed = table(("box", "roles", "share"), cells, 1, "boxes")
  return said + listed + f'<div class="panels">{"".join(charts)}</div>'


def teacher(
  rows: Rows,
  verbs: Sequence[str],
  student_ahead: Sequence[ExampleView],
  teacher_ahead: Sequence[ExampleView],
  said: str,
) -> str:
  """Where both differ: counts, verbs, and images where one alone is right.

  `said` is what the teacher is to this student, from `origins.zero_shot`.
  """
  if rows.teacher is None:
    return paragraph("The cache has no verbs of the teacher for this split.")
  names = ("both", "student", "teacher", "neither")
  cells = [
    (pill(group), *(str(counts[name]) for name in names))
    for group, counts in findings.agreement(rows).items()
  ]
  header = ("verbs", "both right", "only student", "only teacher", "neither")
  lead = findings.lead(rows)
  ahead = [v for v in lead if v[2] > v[3]][:_LEADERS]
  behind = [v for v in reversed(lead) if v[2] < v[3]][:_LEADERS]

  def listed(found):
    lines = [
      (verbs[verb], str(images), f"{student:.0%}", f"{teacher:.0%}")
      for verb, images, student, teacher in found
    ]
    return table(("verb", "images", "student", "teacher"), lines, 1, "verbs")

  return (
    paragraph(f"{said} Images by who has the verb right:")
    + table(header, cells, 1, "who is right")
    + '<div class="panels"><div><h3>Verbs where the student leads</h3>'
    + listed(ahead)
    + "</div><div><h3>Verbs where the teacher leads</h3>"
    + listed(behind)
    + "</div></div>"
    + paragraph(choice.TEACHER_RULE, "faint")
    + "<h3>Only the student is right</h3>"
    + cards(student_ahead)
    + "<h3>Only the teacher is right</h3>"
    + cards(teacher_ahead)
  )
