"""The study from the command line: worlds, runs, tables; continued; refused."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def _ablate(folder, *arguments):
  """Runs the command in its own folder, which holds its `runs`."""
  command = [sys.executable, "-m", "mipd_jax.ablate"]
  config = f"--config={ROOT / 'configs/ablations.py'}:debug"
  return subprocess.run(
    [*command, config, *arguments],
    cwd=folder,
    env=os.environ | {"XLA_FLAGS": "", "PYTHONPATH": str(ROOT)},
    capture_output=True,
    text=True,
    timeout=900,
    check=False,
  )


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (("--first_world=7",), "worlds 7 to 8 of 2"),
    (("--mode=tables",), "run the study first"),
  ],
)
def test_what_makes_no_study_is_refused(tmp_path, arguments, message):
  done = _ablate(tmp_path, *arguments)
  assert done.returncode == 2 and message in done.stderr, done.stderr[-2000:]
  assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_small_study_to_its_tables_and_on(tmp_path):
  docs = tmp_path / "docs"
  grid = ("--only=no_distillation,mipd", "--worlds=1")
  done = _ablate(
    tmp_path, *grid, "--seeds=2", "--processes=2", f"--docs={docs}"
  )
  assert done.returncode == 0, done.stderr[-3000:]
  folder = tmp_path / "runs/ablations-debug"
  results = {path.name: path for path in (folder / "world-0").glob("*.json")}
  wanted = {
    f"{variant}-{run}.json"
    for variant in ("no_distillation", "mipd")
    for run in ("0", "1", "0.held_out")
  }
  assert set(results) == wanted | {"zero_shot.json"}
  tables = (docs / "ablations_tables.md").read_text()
  assert "| mipd † |" in tables and "| mipd | no_distillation |" in tables
  assert "nan" not in tables.lower()
  written = json.loads((docs / "ablations.json").read_text())
  assert written["variants"]["mipd"]["runs"] == 2
  for picture in ("ablations.png", "ablations_curves.png"):
    assert (docs / picture).stat().st_size > 10_000
  # A third student: the others are not trained again.
  times = {name: path.stat().st_mtime_ns for name, path in results.items()}
  more = _ablate(tmp_path, *grid, "--seeds=3")
  assert more.returncode == 0, more.stderr[-3000:]
  assert "Run 2 of 2" in more.stderr
  now = {path.name: path for path in (folder / "world-0").glob("*.json")}
  assert set(now) - set(times) == {"no_distillation-2.json", "mipd-2.json"}
  assert all(now[name].stat().st_mtime_ns == t for name, t in times.items())
