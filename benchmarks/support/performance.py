"""docs/performance.md: tables of the benchmarks' measurements.

Results are in docs/performance/*.json; each `--write` updates its own file and
the tables in the document.
"""

import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks import figures
from input_pipeline.io import atomic

DOCUMENT = figures.DOCS / "performance.md"
_FOLDER = figures.DOCS / "performance"
# Runs of the same setting replace each other.
_SETTING = ("device", "threads", "preset", "batch", "dtype", "dropout")

Row = Mapping[str, Any]


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
  """A Markdown table."""
  lines = [header, ["---"] * len(header), *rows]
  return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def write_step(result: Row) -> None:
  """Stores a line of `benchmarks.step`."""

  def setting(row):
    return [str(row[name]) for name in _SETTING]

  path = _FOLDER / "step.json"
  kept = json.loads(path.read_text()) if path.exists() else []
  rows = [row for row in kept if setting(row) != setting(result)]
  rows = sorted([*rows, dict(result)], key=setting)
  write("step", rows, step_table(rows))


def step_table(rows: Iterable[Row]) -> str:
  """One line per setting; the plain form in brackets."""

  def both(row, name, scale, digits):
    text = f"{row[name] * scale:,.{digits}f}"
    plain = row.get(f"plain_{name}")
    return text if plain is None else f"{text} ({plain * scale:,.{digits}f})"

  return markdown(
    (
      "device",
      "preset, batch, dtype, dropout",
      "train, ms",
      "its processor time, ms",
      "evaluate, ms",
      "images/s trained",
      "GFLOP a train step",
      "GFLOP an evaluation step",
      "peak, MB",
      "loss",
      "load",
    ),
    [
      (
        f"{row['device']}, {row['threads']} threads",
        f"{row['preset']}, {row['batch']}, {row['dtype']}, {row['dropout']}",
        both(row, "train_ms", 1, 1),
        both(row, "train_cpu_ms", 1, 1),
        both(row, "eval_ms", 1, 1),
        f"{row['images_per_s']:,.0f}",
        both(row, "flops", 1e-9, 1),
        both(row, "eval_flops", 1e-9, 1),
        both(row, "peak_bytes", 1e-6, 0),
        both(row, "loss", 1, 4),
        f"{row['load'][0]:.1f}",
      )
      for row in rows
    ],
  )


def write_tpu(result: Mapping[str, Any]) -> None:
  """Stores a run of `benchmarks.tpu_compile`: programs of one topology."""
  path = _FOLDER / "tpu.json"
  kept = json.loads(path.read_text()) if path.exists() else {}
  topology = result["topology"]
  old = kept.get(topology, {"programs": []})["programs"]
  rows = {row["program"]: row for row in [*old, *result["programs"]]}
  kept[topology] = dict(result) | {"programs": list(rows.values())}
  write("tpu", kept, tpu_table(kept))


def tpu_table(results: Mapping[str, Mapping[str, Any]]) -> str:
  """One line per topology and program; figures are for one chip."""
  rows = [
    (
      f"{topology}, {result['chips']} x {result['chip']}",
      row["program"],
      f"{row['images_per_chip']:,}",
      *_tpu_cells(row),
    )
    for topology, result in results.items()
    for row in result["programs"]
  ]
  return markdown(
    (
      "topology",
      "program",
      "images a chip",
      "arguments, GB",
      "temporaries, GB",
      "HBM in all, GB",
      "GFLOP",
      "GB moved",
      "collectives",
      "least ms, bound by",
    ),
    rows,
  )


def _tpu_cells(row: Row) -> tuple[str, ...]:
  if "problem" in row:
    return ("", "", f"does not fit: {row['problem']}", "", "", "", "")
  return (
    f"{row['argument_bytes'] / 1e9:.2f}",
    f"{row['temporary_bytes'] / 1e9:.2f}",
    f"{row['total_bytes'] / 1e9:.2f}",
    f"{row['flops'] / 1e9:,.0f}",
    f"{row['bytes'] / 1e9:.2f}",
    _collectives(row["collectives"]),
    f"{row['roofline_ms']:.3f}, {row['bound']}",
  )


def _collectives(kinds: Mapping[str, Row]) -> str:
  if not kinds:
    return "none"
  return ", ".join(
    f"{kind}: {row['count']}, {row['bytes'] / 1e6:.1f} MB"
    for kind, row in kinds.items()
  )


def write(name: str, results: Any, table: str) -> None:
  for path, text in (
    (_FOLDER / f"{name}.json", json.dumps(results, indent=1) + "\n"),
    (_FOLDER / f"{name}_table.md", table),
  ):
    replace(path, text)
  if DOCUMENT.exists():
    replace(DOCUMENT, figures.filled(DOCUMENT.read_text()))


def replace(path: pathlib.Path, text: str) -> None:
  """Writes a file whole or not at all."""
  with atomic.replacing(path) as partial:
    partial.write_text(text)
