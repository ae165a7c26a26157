"""Tables and plots of a study, and the command that writes them."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from input_pipeline.io.errors import InputError
from mipd_jax import ablate
from mipd_jax.ablations import collect, plots, run_scores, tables
from mipd_jax.ablations.plan import Variant, World
from mipd_jax.metrics import calibration, swig_scores
from mipd_jax.metrics.swig_scores import NAMES, VerbTotals
from tests.fakes import ablation_fakes as fakes

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORLDS = tuple(World(f"w{n}", {}) for n in range(3))
VARIANTS = (
  Variant("plain", "no_distillation", against=()),
  Variant("mipd", against=("plain",), asks="does it help?"),
  Variant("never", changes={"loss": {"verb_kl": 0.1}}, against=("plain",)),
)
GAIN = {"raw/unseen/verb_top1": 20.0, "raw/seen/verb_top1": 0.0}


def _curve(level):
  count = len(calibration.BIASES)
  return {
    "bias": calibration.BIASES.tolist(),
    "trained": np.linspace(level, 0, count).tolist(),
    "untrained": np.linspace(0, level, count).tolist(),
  }


def _write(plan, run, level, rng):
  names = {**tables.SCORES, **tables.ROLES, **tables.DIFFERENCES}.values()
  if run.held_out:
    names = tables.SELECTION.values()
  gain = GAIN if run.variant == "mipd" else {}
  values = {
    n: level + gain.get(n, 5.0 * bool(gain)) + rng.normal() for n in names
  }
  result = {
    "variant": run.variant,
    "world": run.world,
    "seed": run.seed,
    "hash": run.hash(plan.held_out_verbs),
    "figures": values,
    "curve": _curve(level),
    "seconds": 2.0,
    "bias": None,
  }
  run.path.parent.mkdir(parents=True, exist_ok=True)
  run.path.write_text(json.dumps(result))


@pytest.fixture
def plan(tmp_path):
  """A study of three worlds and two seeds; one variant has no results."""
  found = fakes.plan(tmp_path, *VARIANTS, worlds=WORLDS, seeds=2)
  rng = np.random.default_rng(0)
  for number, world in enumerate(WORLDS):
    for variant in VARIANTS[:2]:
      for run in (
        *found.held_out_runs(variant, world),
        *found.reported_runs(variant, world),
      ):
        _write(found, run, 30 + 10 * number, rng)
    models = {"teacher zero-shot": {"figures": {"raw/harmonic_mean": 70.0}}}
    (tmp_path / world.name / collect.ZERO_SHOT).write_text(json.dumps(models))
  return found


def _row(text, *cells):
  start = "| " + " | ".join(cells) + " |"
  found = [line for line in text.splitlines() if line.startswith(start)]
  return found[0] if found else ""


def test_tables_show_means_differences_and_what_is_missing(plan):
  study = collect.summary(plan)
  text = tables.markdown(study, "the command")
  assert "`the command`: 3 worlds x 2 students" in text
  mean = study["variants"]["plain"]["figures"]["raw/unseen/verb_top1"]
  assert mean["mean"] == pytest.approx(40, abs=1.5)
  half = (mean["high"] - mean["low"]) / 2
  assert f"{mean['mean']:.1f} ± {half:.1f}" in _row(text, "plain")
  assert _row(text, "mipd †")  # is told unseen names
  assert "70.0" in _row(text, "teacher zero-shot")
  assert not _row(text, "never †")
  assert "`loss.verb_kl=0.1`" in _row(text, "never")
  assert "does it help?" in _row(text, "mipd", "mipd")


def test_a_difference_is_bold_where_its_interval_excludes_zero(plan):
  study = collect.summary(plan)
  (found,) = [d for d in study["differences"] if d["figures"]]
  assert (found["variant"], found["against"]) == ("mipd", "plain")
  unseen = found["figures"]["raw/unseen/verb_top1"]
  assert unseen["mean"] == pytest.approx(20, abs=1.5)
  assert unseen["excludes_zero"]
  # World effects of 10 points cancel.
  assert unseen["high"] - unseen["low"] < 8
  cells = _row(tables.markdown(study, "c"), "mipd", "plain").split(" | ")
  columns = list(tables.DIFFERENCES)
  assert cells[2 + columns.index("unseen")].startswith("**+")
  assert "**" not in cells[2 + columns.index("seen")]


def test_the_short_table_has_presets_frozen_models_and_what_is_gained(plan):
  study = collect.summary(plan)
  text = tables.main_table(study)
  assert "3 small worlds, 2 students each" in text
  assert _row(text, "mipd †") and "70.0" in _row(text, "teacher zero-shot")
  assert not _row(text, "never") and not _row(text, "plain")  # no preset
  cells = _row(text, "mipd", "plain").split(" | ")
  unseen = cells[2 + list(tables.DIFFERENCES).index("unseen")]
  found = next(d for d in study["differences"] if d["figures"])
  mean = found["figures"]["raw/unseen/verb_top1"]["mean"]
  assert unseen.startswith(f"**{mean:+.1f} ± ")


def test_a_study_that_only_chose_has_only_that_table(plan):
  for world in WORLDS:
    for variant in VARIANTS:
      for run in plan.reported_runs(variant, world):
        run.path.unlink(missing_ok=True)
  study = collect.summary(plan)
  text = tables.markdown(study, "c")
  assert "### What may choose" in text and "### Roles" not in text
  assert _row(text, "mipd", "plain")
  assert plots.differences(study, plan.folder / "d.png")
  assert not plots.curves(study, plan.folder / "c.png")


def test_missing_runs_and_diverged_students_are_told(plan):
  run = plan.reported_runs(VARIANTS[1], WORLDS[0])[1]
  run.path.unlink()
  run = plan.reported_runs(VARIANTS[1], WORLDS[1])[0]
  result = json.loads(run.path.read_text())
  result |= {"diverged": "step 7", "figures": {}}
  del result["curve"]
  run.path.write_text(json.dumps(result))
  study = collect.summary(plan)
  text = tables.markdown(study, "c")
  assert "mipd: 1 students diverged" in text
  assert "mipd: 1 runs are missing" in text
  difference = study["differences"][0]["figures"]["raw/seen/verb_top1"]
  assert difference["students"] == 4


def test_results_of_another_config_are_not_shown(plan):
  run = plan.reported_runs(VARIANTS[0], WORLDS[0])[0]
  result = json.loads(run.path.read_text())
  run.path.write_text(json.dumps(result | {"hash": "0"}))
  assert collect.summary(plan)["variants"]["plain"]["missing"] == 1


def test_plots_are_pictures_with_something_on_them(plan):
  study = collect.summary(plan)
  for name, draw in (("d", plots.differences), ("c", plots.curves)):
    path = plan.folder / f"{name}.png"
    assert draw(study, path)
    pixels = np.asarray(Image.open(path).convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50
  empty = {"differences": [], "variants": {"a": {"curve": None}}}
  assert not plots.differences(empty, plan.folder / "none.png")
  assert not plots.curves(empty, plan.folder / "none.png")
  assert not (plan.folder / "none.png").exists()


def test_every_column_is_a_figure_that_runs_have():
  """Tables read by name; a name that no run writes would be a column of
  dashes."""
  rng = np.random.default_rng(0)
  groups, verbs = fakes.GROUPS, len(fakes.GROUPS)
  verb = np.arange(60) % verbs
  totals = _totals(verb, verbs, rng)
  scores = rng.normal(size=(60, verbs))
  found = run_scores.of_report(
    swig_scores.summarise(totals, groups),
    scores,
    verb,
    groups,
    groups != 2,
    0.5,
  )["figures"]
  held = fakes.open_world(
    fakes.plan(pathlib.Path("none")), fakes.Prepared()
  ).held_out
  rows = groups[verb] != 2
  chosen = run_scores.of_selection(scores[rows], verb[rows], held)["figures"]
  for table in (tables.SCORES, tables.ROLES, tables.DIFFERENCES):
    assert set(table.values()) <= found.keys()
  assert set(plots.PANELS.values()) <= found.keys()
  for table in (tables.SELECTION, plots.SELECTION_PANELS):
    assert set(table.values()) <= chosen.keys()
  assert all(np.isfinite(v) for v in (found | chosen).values())


def _totals(verb, verbs, rng):
  counts = np.bincount(verb, minlength=verbs).astype(float)
  columns = np.repeat(counts[:, None], len(NAMES), axis=1)
  sums = rng.uniform(size=columns.shape) * columns
  return VerbTotals(NAMES, sums, columns, counts)


def test_tables_of_nothing_are_refused(tmp_path):
  with pytest.raises(InputError, match="no results"):
    ablate._write(fakes.plan(tmp_path))
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (("--only=mopd",), "did you mean 'mipd'"),
    (("--worlds=9",), "worlds 0 to 8 of 2"),
  ],
)
def test_bad_input_is_one_message_and_exit_code_2(arguments, message):
  command = ["--config=configs/ablations.py:debug", *arguments]
  done = subprocess.run(
    [sys.executable, "-m", "mipd_jax.ablate", *command],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=200,
    check=False,
  )
  assert done.returncode == 2, done.stderr[-2000:]
  assert message in done.stderr
  assert "Traceback" not in done.stderr
