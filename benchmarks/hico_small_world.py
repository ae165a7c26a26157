"""MIPD against no distillation on unseen interactions of small worlds.

  python -m benchmarks.hico_small_world [--seeds=5] [--worlds=1]
    [--splits UV UC UO] [--rows ...]

One study of `mipd_jax.ablations` per split: every row of `ROWS` is trained and
evaluated with every seed in every world. A world has its own encoders and a
cache for each split; finished runs are not repeated. The best step on the dev
split is scored. Writes docs/hico_small_world.json and .md, with the intervals
of `mipd_jax.ablations.statistics`. Prints one JSON line per run and one at the
end.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import sys
from collections.abc import Mapping, Sequence

import jax

from configs import hico_det
from input_pipeline.io import atomic
from mipd_jax.ablations import collect, statistics, study
from mipd_jax.ablations.plan import BEST, Plan, Run, Variant, World
from mipd_jax.ablations.runs import Result
from mipd_jax.ablations.statistics import Values
from mipd_jax.metrics.hico_det_scores import NAMES
from mipd_jax.report import tables

_DATA = "runs/data/hico_small_world"
BASELINE = "no_distillation"
# Row -> its preset, and the fields of the loss that it changes.
ROWS: dict[str, tuple[str, dict[str, object]]] = {
  "no_distillation": ("no_distillation", {}),
  "mipd": ("mipd", {}),
  "mipd without KL": ("mipd", {"verb_kl": 0.0}),
  "mipd, trained names alone": ("mipd", {"verb_kl_names": "trained"}),
}


def make_plan(rows: Sequence[str], split: str, worlds: int, seeds: int) -> Plan:
  """The study of one split."""
  return Plan(
    base=hico_det.get_config("small_world").to_dict(),
    variants=tuple(
      Variant(row, preset, {"loss": changes}, against=(BASELINE,))
      for row in rows
      for preset, changes in [ROWS[row]]
    ),
    worlds=tuple(_world(split, number) for number in range(worlds)),
    seeds=seeds,
    held_out_seeds=0,
    held_out_verbs=0,
    folder=pathlib.Path(f"runs/bench/hico-{split}"),
    score=BEST,
  )


def _world(split: str, number: int) -> World:
  """World `number` and its cache for a split; 0 is configs/hico_det.py's."""
  data = f"{_DATA}-{number}" if number else _DATA
  encoders, detections = f"{data}/foundation", f"{data}/world/detections"
  changes = {
    "dataset": {"folder": f"{data}/world"},
    "interactions": {
      "split": split,
      "world": {"seed": number},
      "train_detections": f"{detections}/train.json",
      "test_detections": f"{detections}/test.json",
    },
    "teacher": {
      "student_encoder": f"{encoders}/student_clip",
      "teacher_encoder": f"{encoders}/teacher_blip2",
      "text_encoder": f"{encoders}/teacher_clip",
      "cache": f"{data}/cache-{split}",
    },
  }
  return World(f"world-{number}", changes)


def table(estimates: Mapping[str, Mapping[str, Values]]) -> dict:
  """The estimate of every row and figure, and of its gain."""
  rows: dict = {}
  for row, names in estimates.items():
    rows[row] = {}
    for name, values in names.items():
      entry = {"mean": _plain(statistics.estimate(values))}
      against = estimates.get(BASELINE, {}).get(name)
      if row != BASELINE and against:
        entry["gain"] = _plain(statistics.difference(values, against))
      rows[row][name] = entry
  return rows


def _plain(estimate: statistics.Estimate | None) -> dict | None:
  return None if estimate is None else dataclasses.asdict(estimate)


def markdown(content: dict) -> str:
  """One table per split."""
  lines = [
    "mAP (Default) in percent on the small world: the student's mean and 95 % "
    f"interval, {content['seeds']} seeds in each of {content['worlds']} "
    f"worlds (`{content['command']}`). {statistics.METHOD}; with one world "
    f"the units are its students. Boxes: {content['detector']}.",
  ]
  for split, rows in content["table"].items():
    lines += ["", f"Split {split}", ""]
    heads = [*NAMES, f"unseen, less {BASELINE}"]
    lines.append("| model | " + " | ".join(heads) + " |")
    lines.append("|---|" + "---|" * len(heads))
    for row, scores in rows.items():
      cells = [_cell(scores.get(name, {}).get("mean")) for name in NAMES]
      cells.append(_cell(scores.get("unseen", {}).get("gain")))
      lines.append(f"| {row} | " + " | ".join(cells) + " |")
  return "\n".join(lines) + "\n"


def _cell(entry: dict | None) -> str:
  if entry is None:
    return tables.DASH
  if entry["low"] is None:
    return f"{entry['mean']:.1f}"
  return f"{entry['mean']:.1f} [{entry['low']:.1f}, {entry['high']:.1f}]"


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--seeds", type=int, default=5)
  parser.add_argument("--worlds", type=int, default=1)
  parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
  parser.add_argument("--splits", nargs="+", default=["UV", "UC"])
  parser.add_argument("--out", default="docs/hico_small_world")
  given = parser.parse_args()
  # Rows of one kind share their programs.
  compiled = pathlib.Path("runs/compiled") / os.uname().nodename
  jax.config.update("jax_compilation_cache_dir", str(compiled.absolute()))
  by_split, detector, lines = {}, "", sys.stdout

  def told(run: Run, result: Result) -> None:
    nonlocal detector
    detector = result.get("detector", detector)  # a diverged run has none
    shown = {"split": run.config.interactions.split, "row": run.variant}
    shown |= {"world": run.config.interactions.world.seed, "seed": run.seed}
    scores = {n: x for n, x in result["figures"].items() if x is not None}
    print(json.dumps(shown | scores), file=lines, flush=True)

  for split in given.splits:
    plan = make_plan(given.rows, split, given.worlds, given.seeds)
    with contextlib.redirect_stdout(sys.stderr):  # tables are for people
      study.run(plan, report=True, told=told)
    by_split[split] = table(collect.by_model(plan))
  out = pathlib.Path(given.out)
  content = {
    "command": " ".join(
      ["python -m benchmarks.hico_small_world", *sys.argv[1:]]
    ),
    "seeds": given.seeds,
    "worlds": given.worlds,
    "device": jax.devices()[0].device_kind,
    "detector": detector,
    "table": by_split,
  }
  with atomic.replacing(out.with_suffix(".json")) as path:
    path.write_text(json.dumps(content, indent=2) + "\n")
  with atomic.replacing(out.with_suffix(".md")) as path:
    path.write_text(markdown(content))
  print(json.dumps(by_split))


if __name__ == "__main__":
  main()
