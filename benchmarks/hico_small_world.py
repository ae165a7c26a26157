"""MIPD against no distillation on unseen interactions of small worlds.

  python -m benchmarks.hico_small_world [--seeds=5] [--worlds=1]
    [--splits UV UC UO] [--rows ...]

Every world has its encoders and a cache for each split; every row of `ROWS`
is trained and evaluated from every seed (runs that are there already are not
repeated). Writes docs/hico_small_world.json and .md; intervals are those of
`mipd_jax.ablations.statistics`. Prints one JSON line a run and one at the
end.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import sys

import jax

from configs import hico_det
from input_pipeline import atomic
from mipd_jax import config as config_lib
from mipd_jax.ablations import statistics
from mipd_jax.metrics.hico_det_scores import NAMES
from mipd_jax.report import tables
from mipd_jax.stages import evaluate, prepare, train
from mipd_jax.tasks.task import STUDENT, ZERO_SHOT

_DATA = "runs/data/hico_small_world"
# Row -> preset, and dotted fields that it changes.
ROWS: dict[str, tuple[str, dict[str, object]]] = {
  "no_distillation": ("no_distillation", {}),
  "mipd": ("mipd", {}),
  "mipd without KL": ("mipd", {"loss.verb_kl": 0.0}),
  "mipd, trained names alone": ("mipd", {"loss.verb_kl_names": "trained"}),
}
BASELINE = "no_distillation"
# (world, seed) -> figure, by name of the figure, by row.
Found = dict[str, dict[str, dict[tuple[str, int], float]]]


def make_config(
  row: str, split: str, world: int, seed: int
) -> config_lib.Config:
  """The config of one run; world 0 is that of configs/hico_det.py."""
  preset, changes = ROWS[row]
  values = hico_det.get_config(f"small_world,{preset}")
  data = f"{_DATA}-{world}" if world else _DATA
  folder = row.replace(",", "").replace(" ", "_")
  encoders = f"{data}/foundation"
  values.update_from_flattened_dict(
    {
      "seed": seed,
      "dataset.folder": f"{data}/world",
      "interactions.split": split,
      "interactions.world.seed": world,
      "interactions.train_detections": f"{data}/world/detections/train.json",
      "interactions.test_detections": f"{data}/world/detections/test.json",
      "teacher.student_encoder": f"{encoders}/student_clip",
      "teacher.teacher_encoder": f"{encoders}/teacher_blip2",
      "teacher.text_encoder": f"{encoders}/teacher_clip",
      "teacher.cache": f"{data}/cache-{split}",
      "workdir": f"runs/bench/hico-{split}-{folder}-{world}-{seed}",
    }
    | changes
  )
  return config_lib.unpack(values)


def run(config: config_lib.Config) -> dict:
  """Trains and evaluates; its results.json."""
  path = pathlib.Path(config.workdir) / "results.json"
  if path.exists():
    results = json.loads(path.read_text())
    if results["config_hash"] == config.hash():
      return results
  with contextlib.redirect_stdout(sys.stderr):  # tables are for people
    prepared = prepare.prepare(config)
    train.train(config, prepared)
    return evaluate.evaluate(config, prepared)


def add(
  found: Found, row: str, scores: dict, world: int, seed: int
) -> dict[str, float]:
  """Notes a run's figures; groups without an interaction are left out."""
  told = {name: scores[name] for name in NAMES if scores[name] is not None}
  for name, value in told.items():
    by_run = found.setdefault(row, {}).setdefault(name, {})
    by_run[str(world), seed] = value
  return told


def table(found: Found) -> dict:
  """Of every row and figure the estimate, and that of its gain."""
  rows: dict = {}
  for row, names in found.items():
    rows[row] = {}
    for name, values in names.items():
      entry = {"mean": _plain(statistics.estimate(values))}
      against = found.get(BASELINE, {}).get(name)
      if row != BASELINE and against:
        entry["gain"] = _plain(statistics.difference(values, against))
      rows[row][name] = entry
  return rows


def _plain(estimate: statistics.Estimate | None) -> dict | None:
  return None if estimate is None else dataclasses.asdict(estimate)


def markdown(content: dict) -> str:
  """A table a split."""
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
  by_split, detector = {}, ""
  for split in given.splits:
    found: Found = {}
    for world in range(given.worlds):
      for row in given.rows:
        for seed in range(given.seeds):
          results = run(make_config(row, split, world, seed))
          models, detector = results["models"], results["detector"]
          scores = add(found, row, models[STUDENT], world, seed)
          told = {"split": split, "row": row, "world": world, "seed": seed}
          print(json.dumps(told | scores), flush=True)
      for model in ZERO_SHOT:  # no seed changes them
        if model in models:
          add(found, model, models[model], world, 0)
    by_split[split] = table(found)
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
