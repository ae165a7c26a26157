"""Runs an ablation study and writes its tables and plots.

python -m mipd_jax.ablate --config=configs/ablations.py
  [--mode=all|prepare|select|tables] [--only=NAME,...] [--processes=2]
  [--worlds=N --first_world=N --seeds=N] [--docs=docs]

Finished runs are kept: the same command continues a stopped study.
"""

import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence

from input_pipeline.io import atomic
from input_pipeline.io.errors import InputError

# Before TensorFlow is imported: hides its start-up lines.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

from absl import flags, logging
from ml_collections import config_flags

from mipd_jax import command_line
from mipd_jax.ablations import plan as plan_lib

_COMPILED = "runs/compiled"  # as in main
# select: only students with verbs held out; the reported split stays closed.
MODES = ("all", "prepare", "select", "tables")

_CONFIG = config_flags.DEFINE_config_file(
  "config", None, "Study file, with words behind a colon.", lock_config=True
)
_MODE = flags.DEFINE_enum("mode", "all", MODES, "What to do of the study.")
_ONLY = flags.DEFINE_string("only", "", "Variants, joined by commas.")
_WORLDS = flags.DEFINE_integer("worlds", 0, "How many; the config's if 0.")
_FIRST = flags.DEFINE_integer("first_world", -1, "The first; the config's.")
_SEEDS = flags.DEFINE_integer("seeds", 0, "Students a world; the config's.")
_PROCESSES = flags.DEFINE_integer(
  "processes", 1, "Processes that share the variants out."
)
_SHARE = flags.DEFINE_string(
  "share", "", "K/N: do every N-th variant from the K-th on, no tables."
)
_DOCS = flags.DEFINE_string(
  "docs", "", "Folder that gets the tables and plots, too."
)


def main(argv: Sequence[str]) -> int:
  """Returns the exit code: 0 done, or that of a failed process."""
  if len(argv) > 1:
    logging.error("unexpected argument %r; see --helpshort", argv[1])
    return 2
  from mipd_jax.devices import compilation

  values = command_line.config_of(_CONFIG)
  plan = _plan(values)
  share = _share(_SHARE.value)
  compilation.set_up(_COMPILED, quick=values.base.quick_compile)
  return _run(plan, share)


def _run(plan: plan_lib.Plan, share: tuple[int, int] | None) -> int:
  from mipd_jax.ablations import study

  mode = _MODE.value
  if share:
    number, count = share
    mine = plan_lib.part(plan, number, count)
    if mine is not None:
      study.run(mine, report=mode == "all")
    return 0
  if mode == "prepare":
    study.prepare_worlds(plan)
    return 0
  if mode != "tables":
    if _PROCESSES.value > 1:
      study.prepare_worlds(plan)
      if code := _processes(_PROCESSES.value):
        return code
    else:
      study.run(plan, report=mode == "all")
  _write(plan)
  return 0


def _processes(count: int) -> int:
  """Runs this command in several processes; returns the first bad exit code."""
  command = [sys.executable, "-m", "mipd_jax.ablate", *sys.argv[1:]]
  started = [
    subprocess.Popen([*command, f"--share={number}/{count}"])
    for number in range(count)
  ]
  try:
    codes = [process.wait() for process in started]
  finally:
    for process in started:
      if process.poll() is None:
        process.terminate()
  return next((code for code in codes if code), 0)


def _write(plan: plan_lib.Plan) -> None:
  """Writes tables and plots of the existing results."""
  from mipd_jax.ablations import collect, plots, tables
  from mipd_jax.report.files import jsonable

  study = collect.summary(plan)
  if not any(variant["runs"] for variant in study["variants"].values()) and (
    not any(variant["figures"] for variant in study["variants"].values())
  ):
    raise InputError(
      f"{plan.folder} has no results of this config", "run the study first"
    )
  folder = plan.folder
  # Figures for choices do not overwrite reported ones.
  stem = "ablations_choice" if _MODE.value == "select" else "ablations"
  drawn = {
    f"{stem}.png": plots.differences,
    f"{stem}_curves.png": plots.curves,
  }
  pictures = [n for n, draw in drawn.items() if draw(study, folder / n)]
  text = tables.markdown(study, _command(), pictures)
  texts = {
    f"{stem}_tables.md": text,
    f"{stem}.json": json.dumps(jsonable(study), indent=1) + "\n",
  }
  if _MODE.value != "select":
    texts["ablations_main.md"] = tables.main_table(study)
    texts["ablations_short.md"] = tables.short_table(study)
  for name, content in texts.items():
    with atomic.replacing(folder / name) as path:
      path.write_text(content)
  if _DOCS.value:
    docs = pathlib.Path(_DOCS.value)
    docs.mkdir(parents=True, exist_ok=True)
    for name in (*texts, *pictures):
      shutil.copyfile(folder / name, docs / name)
  print(text)
  logging.info("Tables and plots are in %s.", folder)


def _command() -> str:
  """The command that makes the same tables."""
  kept = [a for a in sys.argv[1:] if not a.startswith(("--docs", "--proce"))]
  return "python -m mipd_jax.ablate " + shlex.join(kept)


def _plan(values) -> plan_lib.Plan:
  worlds = values.all_worlds
  first = values.first_world if _FIRST.value < 0 else _FIRST.value
  count = _WORLDS.value or min(values.worlds, len(worlds))
  if first < 0 or first + count > len(worlds):
    raise InputError(
      f"worlds {first} to {first + count - 1} of {len(worlds)}",
      "choose --first_world and --worlds among those there are",
    )
  seeds = _SEEDS.value or values.seeds
  return plan_lib.Plan(
    base=values.base.to_dict(),
    variants=plan_lib.chosen(values.variants, _ONLY.value),
    worlds=tuple(worlds[first : first + count]),
    seeds=seeds,
    # A choice between variants needs as many students as a report.
    held_out_seeds=seeds if _MODE.value == "select" else values.held_out_seeds,
    held_out_verbs=values.held_out_verbs,
    folder=pathlib.Path(values.folder),
  )


def _share(text: str) -> tuple[int, int] | None:
  if not text:
    return None
  try:
    number, count = map(int, text.split("/"))
  except ValueError:
    number, count = 0, 0
  if not 0 <= number < count:
    raise InputError(f"--share={text!r}", "give K/N with 0 <= K < N")
  return number, count


if __name__ == "__main__":
  command_line.start(main)
