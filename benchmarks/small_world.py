"""Presets on the small world over several seeds: the README's table.

  python -m benchmarks.small_world [--seeds=3] [--rows mipd ...]

Shares one world and its encoders; trains and evaluates every row of `ROWS`
from every seed (runs that are there already are not repeated)
and writes docs/small_world.json and docs/small_world.md. Prints one JSON
line a run and one at the end.
"""

import argparse
import contextlib
import json
import pathlib
import statistics
import sys

import jax

from configs import synthetic
from input_pipeline import atomic, schema
from mipd_jax import config as config_lib
from mipd_jax.report import tables
from mipd_jax.stages import evaluate, prepare, train

_DATA = "runs/data/small_world"
# Row -> preset, and dotted fields that it changes.
ROWS: dict[str, tuple[str, dict[str, object]]] = {
  "no_distillation": ("no_distillation", {}),
  "reference": ("reference", {}),
  "mipd": ("mipd", {}),
  "mipd without KL": ("mipd", {"loss.verb_kl": 0.0}),
  "mipd, CLIP as teacher": (
    "mipd",
    {
      "teacher.teacher_encoder": f"{_DATA}/foundation/teacher_clip",
      "teacher.cache": f"{_DATA}/cache-clip",
    },
  ),
}
SCORES = ("verb_top1", "verb_top5", "value_gt", "grnd_gt")


def run(name: str, seed: int) -> dict:
  """Trains and evaluates one row from one seed; its results.json."""
  preset, changes = ROWS[name]
  values = synthetic.get_config(preset)
  values.update_from_flattened_dict(changes)
  values.seed = seed
  folder = name.replace(",", "").replace(" ", "_")
  values.workdir = f"runs/bench/{folder}-{seed}"
  config = config_lib.unpack(values)
  path = pathlib.Path(config.workdir) / "results.json"
  if path.exists():
    results = json.loads(path.read_text())
    if results["config_hash"] == config.hash():
      return results
  with contextlib.redirect_stdout(sys.stderr):  # tables are for people
    prepared = prepare.prepare(config)
    train.train(config, prepared)
    return evaluate.evaluate(config, prepared)


def row(results: dict, model: str) -> dict[str, float]:
  """The figures of one model that the table shows, in percent."""
  summary = results["models"][model]
  figures = {
    f"{group}/{score}": summary[group][score]
    for group in schema.GROUPS
    for score in SCORES
    if score in summary[group]
  }
  return figures | {"harmonic_mean": summary["harmonic_mean"]}


def spread(rows: list[dict[str, float]]) -> dict[str, dict[str, float]]:
  """Mean and standard deviation over seeds of every figure."""
  return {
    name: {
      "mean": statistics.mean(r[name] for r in rows),
      "std": statistics.stdev(r[name] for r in rows) if len(rows) > 1 else 0.0,
    }
    for name in rows[0]
  }


def markdown(table: dict, seeds: int, command: str) -> str:
  """The table that the README quotes."""
  columns = [f"{g}/verb_top1" for g in schema.GROUPS]
  columns += ["harmonic_mean"]
  columns += [
    f"{g}/{s}" for s in ("value_gt", "grnd_gt") for g in ("seen", "unseen")
  ]
  words = [
    name.replace("/verb_top1", " verb")
    .replace("_gt", "")
    .replace("/", " ")
    .replace("_", " ")
    for name in columns
  ]
  lines = [
    f"Test scores on the small world in percent, mean ± standard deviation "
    f"over {seeds} seeds of the student (`{command}`). Verb: top-1. Value "
    "and grnd: for the true verb's frame.",
    "",
    "| model | " + " | ".join(words) + " |",
    "|---|" + "---|" * len(columns),
  ]
  for model, figures in table.items():
    cells = [
      f"{figures[c]['mean']:.1f} ± {figures[c]['std']:.1f}"
      if c in figures
      else tables.DASH
      for c in columns
    ]
    lines.append(f"| {model} | " + " | ".join(cells) + " |")
  return "\n".join(lines) + "\n"


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--seeds", type=int, default=3)
  parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
  parser.add_argument("--out", default="docs/small_world")
  given = parser.parse_args()
  table, frozen = {}, {}
  for name in given.rows:
    rows = []
    for seed in range(given.seeds):
      results = run(name, seed)
      rows.append(row(results, evaluate.STUDENT))
      if name == "mipd":
        frozen = {
          model: row(results, model)
          for model in evaluate.ZERO_SHOT
          if model in results["models"]
        }
      print(json.dumps({"row": name, "seed": seed} | rows[-1]), flush=True)
    table[name] = spread(rows)
  for model, figures in frozen.items():  # no seed changes them
    table[model] = {n: {"mean": x, "std": 0.0} for n, x in figures.items()}
  out = pathlib.Path(given.out)
  found = {
    "command": "python -m benchmarks.small_world",
    "seeds": given.seeds,
    "device": jax.devices()[0].device_kind,
    "table": table,
  }
  with atomic.replacing(out.with_suffix(".json")) as path:
    path.write_text(json.dumps(found, indent=2) + "\n")
  with atomic.replacing(out.with_suffix(".md")) as path:
    path.write_text(markdown(table, given.seeds, found["command"]))
  print(json.dumps(table))


if __name__ == "__main__":
  main()
