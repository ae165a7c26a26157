"""Results as tables, for the terminal and for Markdown.

A results dict is plain data:

  dataset, split, preset, step, seed, config_hash
  damaged   steps of better checkpoints that could not be read, if any
  models    {model name: {"seen" | "rare" | "unseen" | "all": METRICS,
             "macro": {the same groups: METRICS}, "harmonic_mean": float,
             "among": {"trained" | "untrained": verb top-1 among such names}}}
  per_verb  {verb: {"group", "train_images", "test_images", METRICS...}}

METRICS holds `images` (a count) and the scores of `metrics.swig_scores.SCORES`
by name, in percent. A missing, null or non-finite number is printed as a dash.

For interactions `models` is {name: scores, with "known_object": {the same}},
where scores are those of `metrics.hico_det_scores` by name, in percent; and
`detector`, `zero_shot` name the detector of the boxes and the split.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import rich.box
import rich.console
import rich.markup
import rich.table

from input_pipeline import schema
from input_pipeline.io.errors import InputError
from mipd_jax.metrics import hico_det_scores, swig_scores

WIDTH = 100  # columns of the widest table
DASH = "\N{EN DASH}"
# Characters that start markup anywhere; "_" only at the edge of a word.
_MARKS = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])")
ROW_GROUPS = (*schema.GROUPS, "all")
# Titles of the tables, by the condition of their columns.
CRITERIA = {
  condition: title[0].upper() + title[1:]
  for condition, title in swig_scores.TITLES.items()
}


@dataclasses.dataclass(frozen=True)
class Block:
  """One table: two columns of text, then numbers."""

  title: str
  header: tuple[str, ...]
  rows: tuple[tuple[str, ...], ...]
  main: bool = True


Blocks = Callable[[Mapping[str, Any]], list[Block]]


def markdown(
  results: Mapping[str, Any], blocks_of: Blocks | None = None
) -> str:
  """All tables as GitHub Markdown, ending in a newline.

  `blocks_of` makes the tables; `blocks` if None.
  """
  lines = [f"# Results on {cell(results.get('dataset', DASH))}", ""]
  lines += [cell(heading(results)) + ".", "", "All scores in percent.", ""]
  for block in (blocks_of or blocks)(results):
    lines += [f"## {cell(_titled(block, results))}", ""]
    lines.append("| " + " | ".join(block.header) + " |")
    aligned = [":--"] * 2 + ["--:"] * (len(block.header) - 2)
    lines.append("| " + " | ".join(aligned[: len(block.header)]) + " |")
    for row in block.rows:
      lines.append("| " + " | ".join(cell(text) for text in row) + " |")
    lines.append("")
  return "\n".join(lines)


def terminal_table(
  results: Mapping[str, Any], blocks_of: Blocks | None = None
) -> rich.console.Group:
  """The main tables as one rich renderable that fits 100 columns.

  The others (top-5, averages over verbs) are only in results.md: six tables are
  too many for a terminal.
  """
  parts: list[rich.console.RenderableType] = [
    f"[bold]{rich.markup.escape(str(results.get('dataset', DASH)))}[/bold]",
    rich.markup.escape(heading(results)) + "; scores in percent",
  ]
  for block in (blocks_of or blocks)(results):
    if block.main:
      parts += ["", _rich_table(block, _titled(block, results))]
  return rich.console.Group(*parts)


def print_results(
  results: Mapping[str, Any],
  console: rich.console.Console | None = None,
  blocks_of: Blocks | None = None,
) -> None:
  """Prints `terminal_table` on the console, standard output by default."""
  console = console or rich.console.Console()
  if not console.is_terminal and console.width < WIDTH:
    # A log file has no width, and rich would cut numbers at 80.
    console.width = WIDTH
  console.print(terminal_table(results, blocks_of))


def heading(results: Mapping[str, Any]) -> str:
  """The run of the numbers, as one line."""
  parts = [
    f"{name} {results[key]}"
    for name, key in (
      ("split", "split"),
      ("preset", "preset"),
      ("step", "step"),
      ("seed", "seed"),
      ("config", "config_hash"),
    )
    if results.get(key) is not None
  ]
  if results.get("damaged"):
    steps = ", ".join(map(str, results["damaged"]))
    parts.append(f"better checkpoints were damaged: {steps}")
  return ", ".join(parts) or "run unknown"


def models_of(
  results: Mapping[str, Any], described: str
) -> Mapping[str, Mapping[str, Any]]:
  """The scores by model.

  Args:
    results: the content of results.json.
    described: the file that describes their form.

  Raises:
    InputError: there is no dict of models.
  """
  models = results.get("models")
  if not isinstance(models, Mapping) or not models:
    raise InputError(
      "the results name no models",
      f"hand over the dict that {described} describes",
    )
  return models


def blocks(results: Mapping[str, Any]) -> list[Block]:
  """The tables in reading order, without empty ones.

  Raises:
    InputError: there is no dict of models.
  """
  models = models_of(results, "mipd_jax/report/tables.py")
  macro = {name: model.get("macro") or {} for name, model in models.items()}
  tables = [
    dataclasses.replace(_scores(CRITERIA[c], models, c), main=c != "top5")
    for c in CRITERIA
  ]
  for criterion in ("top1", "gt"):
    title = f"Averaged over verbs: {swig_scores.TITLES[criterion]}"
    block = _scores(title, macro, criterion)
    tables.append(dataclasses.replace(block, main=False))
  return [
    block for block in [tables[0], _harmonic(models), *tables[1:]] if block.rows
  ]


def interaction_blocks(results: Mapping[str, Any]) -> list[Block]:
  """Mean average precision: Default and Known Object.

  Raises:
    InputError: there is no dict of models.
  """
  models = models_of(results, "mipd_jax/report/tables.py")
  zero_shot = str(results.get("zero_shot", ""))
  setting = f"split {zero_shot}; boxes: {results.get('detector', 'not told')}"
  known_object = {
    name: x.get("known_object") or {} for name, x in models.items()
  }
  return [
    _interaction_block(f"mAP, Default ({setting})", models, zero_shot),
    _interaction_block(
      f"mAP, Known Object ({setting})", known_object, zero_shot
    ),
  ]


def _interaction_block(
  title: str, models: Mapping[str, Mapping[str, Any]], zero_shot: str
) -> Block:
  scores = hico_det_scores.SCORES
  rows = tuple(
    (name, zero_shot, *(number(values.get(score.name)) for score in scores))
    for name, values in models.items()
  )
  header = ("model", "split", *(score.label for score in scores))
  return Block(title, header, rows)


def cell(value: object) -> str:
  """A text for a heading, a table's cell or the middle of a line.

  Line ends and control characters become spaces, so that it ends no cell and
  starts no line; HTML and markup in it are shown as written.
  """
  text = "".join(c if c.isprintable() else " " for c in str(value))
  text = _MARKS.sub(lambda match: f"\\{match[0]}", " ".join(text.split()))
  return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def number(value: Any, digits: int = 2) -> str:
  """A number with fixed digits, or a dash if there is none."""
  if value is None or not math.isfinite(value):
    return DASH
  return f"{value:.{digits}f}"


def _scores(
  title: str,
  models: Mapping[str, Mapping[str, Any]],
  criterion: str,
) -> Block:
  """One row per model and group, without empty rows."""
  scores = [s for s in swig_scores.SCORES if s.table == criterion]
  verb = any(not score.frame for score in scores)
  rows = []
  for model, groups in models.items():
    for group in ROW_GROUPS:
      metrics = groups.get(group) or {}
      cells = tuple(number(metrics.get(score.name)) for score in scores)
      # "No images" is itself a result, shown once, in the table with the verb.
      if any(cell != DASH for cell in cells) or (verb and "images" in metrics):
        count = number(metrics.get("images"), digits=0)
        rows.append((model, group, count, *cells))
  header = ("model", "verbs", "images", *(score.label for score in scores))
  return Block(title, header, tuple(rows))


def _harmonic(models: Mapping[str, Mapping[str, Any]]) -> Block:
  rows = tuple(
    (name, "seen, unseen", number(model.get("harmonic_mean")))
    for name, model in models.items()
    if number(model.get("harmonic_mean")) != DASH
  )
  header = ("model", "verbs", "harmonic mean")
  return Block("Harmonic mean of verb top-1", header, rows)


def _titled(block: Block, results: Mapping[str, Any]) -> str:
  """A table's title with its split."""
  split = results.get("split")
  return f"{block.title}, {split} split" if split else block.title


def _rich_table(block: Block, title: str) -> rich.table.Table:
  table = rich.table.Table(
    title=rich.markup.escape(title),
    title_justify="left",
    box=rich.box.SIMPLE_HEAD,
    collapse_padding=True,
  )
  for position, name in enumerate(block.header):
    if position < 2:
      table.add_column(name, overflow="fold", max_width=26)
    else:
      table.add_column(name, justify="right", no_wrap=True)
  previous = None
  for row in block.rows:
    if previous not in (None, row[0]):
      table.add_section()
    name = "" if row[0] == previous else rich.markup.escape(row[0])
    table.add_row(name, *row[1:], style="bold" if row[1] == "all" else None)
    previous = row[0]
  return table
