"""The study's tables in Markdown."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from mipd_jax.metrics import swig_scores
from mipd_jax.report.tables import DASH


def _columns(*, frame: bool, headline: bool = False) -> dict[str, str]:
  """Columns of scores, of verbs or of the true verb's frame.

  Args:
    frame: whether of frames.
    headline: only of scores that stand for the others.
  """
  return {
    f"{group} {score.label}": f"raw/{group}/{score.name}"
    for score in swig_scores.SCORES
    if score.frame == frame and score.column and score.studied
    if score.headline or not headline
    for group in ("seen", "unseen")
  }


# Header -> figure, of each table. Verb top-1 unless the header says more.
SCORES = {
  "seen": "raw/seen/verb_top1",
  "rare": "raw/rare/verb_top1",
  "unseen": "raw/unseen/verb_top1",
  "HM": "raw/harmonic_mean",
  "seen, cal.": "calibrated/seen/verb_top1",
  "rare, cal.": "calibrated/rare/verb_top1",
  "unseen, cal.": "calibrated/unseen/verb_top1",
  "HM, cal.": "calibrated/harmonic_mean",
  "seen among trained": "among/seen/verb_top1",
  "unseen among untrained": "among/unseen/verb_top1",
  "unlisted": "unlisted/unseen/verb_top1",
  **_columns(frame=False),
}
ROLES = _columns(frame=True)
DIFFERENCES = {
  "seen": "raw/seen/verb_top1",
  "rare": "raw/rare/verb_top1",
  "unseen": "raw/unseen/verb_top1",
  "HM": "raw/harmonic_mean",
  "HM, cal.": "calibrated/harmonic_mean",
  "unseen among untrained": "among/unseen/verb_top1",
  **_columns(frame=False, headline=True),
  **_columns(frame=True, headline=True),
}
SELECTION = {
  "seen": "held_out/seen/verb_top1",
  "rare": "held_out/rare/verb_top1",
  "held out": "held_out/unseen/verb_top1",
  "HM": "held_out/harmonic_mean",
  "best HM by bias": "held_out/calibrated_harmonic_mean",
  "seen among trained": "held_out/among_seen/verb_top1",
  "rare among trained": "held_out/among_rare/verb_top1",
  "held out among held out": "held_out/among/verb_top1",
}
# Rows and columns of the README's table.
_SHORT = ("no_distillation", "reference", "mipd")
_SHORT_COLUMNS = {
  "seen verbs": "raw/seen/verb_top1",
  "unseen verbs": "raw/unseen/verb_top1",
  "both, calibrated": "calibrated/harmonic_mean",
  "unseen grnd": "raw/unseen/grnd_gt",
}
# Rows of the table of presets.
_MAIN = ("no_distillation", "reference", "mipd", "kl_trained_names", "no_kl")
# Variants compared there: all of MIPD, and without unseen names.
_COMPARED = ("mipd", "kl_trained_names")
_KINDS = """\
Verb top-1 in percent, mean over worlds ± half the interval. HM: harmonic mean
of seen and unseen. *cal.*: after a bias off the trained verbs' scores, chosen
per variant and world by students trained with seen verbs held out, on dev
images of seen and rare verbs. *among*: only names of that kind compete.
*unlisted*: images of every second unseen verb, among those verbs' names; a
half-listed variant is not told these. † is told the names of unseen verbs in
training, never their images."""


def markdown(
  study: Mapping[str, Any], command: str, pictures: Sequence[str] = ()
) -> str:
  """All tables of `collect.summary`, ending in a newline.

  Args:
    study: the summary.
    command: makes the same tables.
    pictures: file names of plots beside the tables.
  """
  variants = study["variants"]
  reported = {n: v for n, v in variants.items() if v["runs"]}
  parts = [_head(study, command)]
  if reported:
    frozen = {n: {"figures": f} for n, f in study["zero_shot"].items()}
    parts += [
      "### Verbs",
      _KINDS,
      _table(reported | frozen, SCORES),
      "### Roles, for the true verb's frame",
      _table(reported, ROLES),
    ]
  differing = [d for d in study["differences"] if d["figures"]]
  reports = [d for d in differing if "raw/harmonic_mean" in d["figures"]]
  if reports:
    parts += [
      "### Differences",
      "Percentage points and their intervals; bold where the interval "
      "excludes zero.",
      _difference_table(reports, DIFFERENCES),
    ]
  parts += [
    "### What may choose",
    "Dev images of students trained with seen verbs held out; no image of an "
    "unseen verb is read, and no unseen name competes. Choose by this table.",
    _table(variants, SELECTION),
  ]
  if differing:
    parts.append(_difference_table(differing, SELECTION))
  parts += [f"![{pathlib.Path(name).stem}]({name})" for name in pictures]
  parts += ["### The variants", _questions(variants)]
  return "\n\n".join(parts) + "\n"


def short_table(study: Mapping[str, Any]) -> str:
  """The README's table: the presets by four figures, and MIPD's gain."""
  variants = study["variants"]
  lines = _header(["", *_SHORT_COLUMNS])
  for name in _SHORT:
    if name not in variants or not variants[name]["runs"]:
      continue
    figures = variants[name]["figures"]
    cells = [number(figures.get(f)) for f in _SHORT_COLUMNS.values()]
    lines.append(_row([f"`{name}`", *cells]))
  for row in study["differences"]:
    if (row["variant"], row["against"]) == ("mipd", "no_distillation"):
      lines.append(_row(["gain", *_gains(row, _SHORT_COLUMNS)]))
  note = (
    f"Percent right, {len(study['worlds'])} small worlds, {study['seeds']} "
    "students each; ± is half of a 95 % interval over worlds. Both: harmonic "
    "mean of seen and unseen verbs, with a bias between them that held-out "
    "seen verbs chose. grnd: noun and box right, in the true verb's frame. "
    "Bold: the interval excludes zero."
  )
  return "\n".join(lines) + f"\n\n{note}\n"


def main_table(study: Mapping[str, Any]) -> str:
  """The table of presets: with frozen models, and MIPD's gains."""
  variants = study["variants"]
  rows = {
    n: variants[n] for n in _MAIN if n in variants and variants[n]["runs"]
  }
  frozen = {n: {"figures": f} for n, f in study["zero_shot"].items()}
  differences = [
    d
    for d in study["differences"]
    if d["variant"] in _COMPARED and d["figures"]
  ]
  worlds, seeds = len(study["worlds"]), study["seeds"]
  parts = [
    f"{worlds} small worlds, {seeds} students each, percent: verb top-1, and "
    "value and grnd for the true verb's frame; ± is half of a 95 % interval "
    "over worlds. HM: harmonic mean of seen and unseen; *cal.*: with a bias "
    "between trained and untrained verbs that held-out seen verbs chose. "
    "† was told the names of unseen verbs, never their images.",
    _table(rows | frozen, DIFFERENCES),
  ]
  if differences:
    parts += [
      "Paired differences in points; bold where the interval excludes zero:",
      _difference_table(differences, DIFFERENCES),
    ]
  return "\n\n".join(parts) + "\n"


def number(estimate: Mapping[str, Any] | None, *, signed: bool = False) -> str:
  """A mean with half its interval, or a dash."""
  if estimate is None:
    return DASH
  mean = f"{estimate['mean']:+.1f}" if signed else f"{estimate['mean']:.1f}"
  if estimate["low"] is None:
    return mean
  return f"{mean} ± {(estimate['high'] - estimate['low']) / 2:.1f}"


def _head(study: Mapping[str, Any], command: str) -> str:
  worlds, seeds = len(study["worlds"]), study["seeds"]
  lines = [
    f"`{command}`: {worlds} world{'s' * (worlds != 1)} x {seeds} "
    f"student{'s' * (seeds != 1)} a variant. {study['method']}."
  ]
  if worlds == 1:
    lines.append(
      "There is one world, so intervals are over its students and say nothing "
      "of other worlds."
    )
  for name, variant in study["variants"].items():
    if variant["diverged"]:
      lines.append(f"**{name}: {variant['diverged']} students diverged.**")
    if variant["missing"] and variant["runs"]:
      lines.append(f"**{name}: {variant['missing']} runs are missing.**")
  return " ".join(lines)


def _table(rows: Mapping[str, Any], columns: Mapping[str, str]) -> str:
  lines = _header(["variant", *columns])
  for name, row in rows.items():
    mark = " †" if row.get("uses_unseen_names") else ""
    cells = [number(row["figures"].get(figure)) for figure in columns.values()]
    if any(cell != DASH for cell in cells):
      lines.append(_row([name + mark, *cells]))
  return "\n".join(lines)


def _difference_table(
  rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]
) -> str:
  lines = _header(["variant", "less", *columns])
  for row in rows:
    cells = _gains(row, columns)
    if any(cell != DASH for cell in cells):
      lines.append(_row([row["variant"], row["against"], *cells]))
  return "\n".join(lines)


def _gains(row: Mapping[str, Any], columns: Mapping[str, str]) -> list[str]:
  """Differences as text, bold where the interval excludes zero."""
  cells = []
  for figure in columns.values():
    estimate = row["figures"].get(figure)
    text = number(estimate, signed=True)
    sure = estimate and estimate["excludes_zero"]
    cells.append(f"**{text}**" if sure else text)
  return cells


def _questions(variants: Mapping[str, Any]) -> str:
  lines = _header(["variant", "preset", "changes", "asks"], numbers=False)
  for name, variant in variants.items():
    changes = ", ".join(_flat(variant["changes"])) or DASH
    asks = variant["asks"] or DASH
    lines.append(_row([name, variant["preset"], changes, asks]))
  return "\n".join(lines)


def _flat(values: Mapping[str, Any], path: str = "") -> list[str]:
  lines = []
  for name, value in values.items():
    if isinstance(value, Mapping):
      lines += _flat(value, f"{path}{name}.")
    else:
      lines.append(f"`{path}{name}={value}`")
  return lines


def _header(names: Sequence[str], *, numbers: bool = True) -> list[str]:
  aligned = [":--"] + ["--:" if numbers else ":--"] * (len(names) - 1)
  return [_row(names), _row(aligned)]


def _row(cells: Sequence[str]) -> str:
  return "| " + " | ".join(cells) + " |"
