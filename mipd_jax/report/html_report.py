"""The report of a run: one web page with all that was measured and seen."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

from input_pipeline import atomic, schema
from input_pipeline.errors import InputError
from mipd_jax.report import (
  choice,
  html_charts,
  html_measures,
  html_page,
  origins,
  tables,
)
from mipd_jax.report.findings import Rows
from mipd_jax.report.html_examples import ExampleView, cards
from mipd_jax.report.html_measures import Trade
from mipd_jax.report.html_page import Section, paragraph, pill, table

MAX_BYTES = 5_000_000
_COUNTS = (0, 5, 20, 50, 100, 200)  # upper ends of bins of training images


@dataclasses.dataclass(frozen=True, eq=False)
class Report:
  """What the page is made of.

  Attributes:
    name: of the run.
    results: the content of results.json.
    rows: the split, image by image.
    verbs: names of the verbs.
    trade: None where there are no images of untrained verbs.
    examples: by (kind, group), as `choice.choose` gave them.
    student_ahead, teacher_ahead: where only one of both is right.
    training: training images with their rationales.
    written: who wrote those, from `origins.author`.
    use: what training did with them, from `origins.use`.
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
  content = render(report).encode("utf-8")
  if len(content) > MAX_BYTES:
    raise InputError(
      f"the report would have {len(content)} bytes, more than {MAX_BYTES}",
      "show fewer examples: the counts are in mipd_jax/stages/report.py",
    )
  with atomic.replacing(path) as partial:
    partial.write_bytes(content)


def render(report: Report) -> str:
  """The page as text."""
  results, rows = report.results, report.rows
  about = (
    f"{results['dataset']}, split {results['split']}, "
    f"{len(rows.verb)} images; {tables.heading(results)}.",
    "This page needs no network and no other file. Touch or hover over a mark "
    "to see what it stands for.",
  )
  sections = [
    Section("scores", "Scores", _scores(results)),
    Section("frequency", "Accuracy against frequency", _frequency(results)),
    Section(
      "confusions",
      "Confusions",
      html_measures.confusions(rows, report.verbs),
    ),
    Section(
      "calibration",
      "Calibration of the verb",
      html_measures.calibration(rows, report.trade),
    ),
    Section("boxes", "Confidence of boxes", html_measures.boxes(rows)),
    Section(
      "teacher",
      "Teacher and student",
      html_measures.teacher(
        *(rows, report.verbs, report.student_ahead, report.teacher_ahead),
        origins.zero_shot(teacher=report.has_teacher),
      ),
    ),
    Section("examples", "Examples", _examples(report)),
    Section("rationales", "Rationales of training", _rationales(report)),
  ]
  title = f"Report: {report.name}, {results['split']} split"
  return html_page.page(title, about, sections)


def _scores(results: Mapping[str, Any]) -> str:
  parts = [paragraph("All scores in percent.", "faint")]
  for block in tables.blocks(results):
    shown = table(block.header, _with_pills(block.rows), 2, block.title)
    if not block.main:
      title = html_page.text(block.title)
      parts.append(f"<details><summary>{title}</summary>{shown}</details>")
      continue
    parts.append(f"<h3>{html_page.text(block.title)}</h3>{shown}")
  among = [
    (model, *(tables.number(among.get(kind)) for kind in kinds))
    for model, groups in results["models"].items()
    if (among := groups.get("among")) and (kinds := ("trained", "untrained"))
  ]
  if among:
    parts.append("<h3>Verb top-1 among names of one kind</h3>")
    parts.append(
      paragraph(
        "Images of trained verbs where only trained names compete, and of "
        "untrained verbs where only untrained ones do: what is left of the "
        "difference without a bias towards the trained names."
      )
    )
    header = ("model", "trained names", "untrained names")
    parts.append(table(header, among, 1, "among names of one kind"))
  return "".join(parts)


def _with_pills(rows: Sequence[Sequence[str]]) -> list[list]:
  return [
    [model, pill(group) if group in tables.ROW_GROUPS else group, *numbers]
    for model, group, *numbers in rows
  ]


def _frequency(results: Mapping[str, Any]) -> str:
  points: dict[str, list[tuple[str, int, float]]] = {}
  for name, entry in results["per_verb"].items():
    if entry.get("verb_top1") is not None:
      point = (name, entry["train_images"], entry["verb_top1"])
      points.setdefault(entry["group"], []).append(point)
  points = {g: points[g] for g in schema.GROUPS if g in points}
  ends = (*_COUNTS, float("inf"))
  rows, low = [], 0
  for high in ends:
    found = [
      score
      for members in points.values()
      for _, count, score in members
      if low <= count <= high
    ]
    if found:
      span = f"{low} and more" if high == ends[-1] else f"{low} to {high}"
      mean = tables.number(sum(found) / len(found), 1)
      rows.append((span if high else "none", str(len(found)), mean))
    low = high + 1
  header = ("training images", "verbs", "mean verb top-1")
  chart = html_charts.figure(
    html_charts.scatter(points, "training images"),
    "One mark a verb; left of the axis the verbs without training images.",
  )
  listed = table(header, rows, 1, "accuracy by training images")
  return f'<div class="panels">{chart}<div>{listed}</div></div>'


def _examples(report: Report) -> str:
  parts = [
    paragraph(choice.RULE),
    paragraph(
      "True boxes are solid, the student's dashed; a role keeps its colour "
      "and number. Nouns and boxes are the student's for the true verb, as "
      "they are scored; where it takes the image for another verb, its own "
      "frame stands below. Rationales are written for training images alone: "
      "these images have none.",
      "faint",
    ),
  ]
  for kind in choice.KINDS:
    parts.append(f"<h3>{kind.capitalize()}</h3>")
    shown = [v for g in schema.GROUPS for v in report.examples[kind, g]]
    parts.append(cards(shown))
  return "".join(parts)


def _rationales(report: Report) -> str:
  if not report.training:
    return paragraph("The cache has no rationales.")
  return paragraph(
    f"Written {report.written}. {report.use} {choice.TRAINING_RULE}"
  ) + cards(report.training)
