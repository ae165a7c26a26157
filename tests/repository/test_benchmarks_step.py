"""`benchmarks.step`: true sizes, arithmetic at the floor, bare machines."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import step
from benchmarks.support import performance, programs, true_sizes
from input_pipeline import schema
from tests.repository.test_imports import ROOT

# GFLOP an image: what the sizes ask for, with a tenth to spare. The student's
# projection alone is 577 x 1024 x 512 x 2 = 0.61, and twice that in training.
MOST = {"reference": 2.4, "mipd": 3.1}
_BATCH = 32


def _flops(preset: str, absorbed: bool) -> float:
  """GFLOP of a training step, an image, as traced."""
  model, objective = programs.build(preset, jnp.float32, absorbed=absorbed)
  state = jax.eval_shape(lambda: programs.initial_state(model))
  batch = true_sizes.batch_shapes(_BATCH, tokens=jnp.float32)
  lowered = programs.train(model, objective).lower(
    state, batch, true_sizes.bank_shapes()
  )
  return lowered.cost_analysis()["flops"] / _BATCH / 1e9


@pytest.mark.parametrize("preset", MOST)
def test_absorbed_projections_save_most_of_the_arithmetic(preset):
  found = _flops(preset, True)
  assert found < MOST[preset]
  assert found < 0.5 * _flops(preset, False)


def test_random_batches_keep_the_contract():
  batch = true_sizes.random_batch(3, jnp.bfloat16)
  sizes = schema.validate(batch, schema.TRAIN_KEYS)
  assert (sizes["N"], sizes["S"], sizes["T"]) == (577, 1024, 1408)
  shapes = true_sizes.batch_shapes(3)
  assert {k: (x.shape, x.dtype) for k, x in batch.items()} == {
    k: (x.shape, x.dtype) for k, x in shapes.items()
  }
  banks = true_sizes.random_banks()
  assert {k: (x.shape, x.dtype) for k, x in banks.items()} == {
    k: (x.shape, x.dtype) for k, x in true_sizes.bank_shapes().items()
  }
  roles = batch[schema.ROLE_MASK]
  assert np.all(batch[schema.BOX_MASK] <= roles)
  assert np.all(roles.any(axis=1))


def _line(**changes):
  line = {
    **{"preset": "mipd", "batch": 32, "dtype": "float32", "dropout": "off"},
    **{"device": "cpu", "threads": 2, "train_ms": 400.0, "eval_ms": 100.0},
    **{"flops": 7e10, "eval_flops": 3e10, "peak_bytes": 1e9, "loss": 5.0},
    **{"train_cpu_ms": 700.0, "images_per_s": 80.0, "load": [0.1, 0.2, 0.3]},
  }
  return line | changes


def test_results_of_one_setting_replace_each_other(tmp_path, monkeypatch):
  monkeypatch.setattr(performance, "_FOLDER", tmp_path)
  monkeypatch.setattr(performance, "DOCUMENT", tmp_path / "none.md")
  performance.write_step(_line())
  performance.write_step(_line(preset="reference"))
  performance.write_step(_line(train_ms=300.0, plain_train_ms=900.0))
  rows = json.loads((tmp_path / "step.json").read_text())
  assert [(row["preset"], row["train_ms"]) for row in rows] == [
    ("mipd", 300.0),
    ("reference", 400.0),
  ]
  table = (tmp_path / "step_table.md").read_text()
  assert "300.0 (900.0)" in table
  assert len(table.splitlines()) == 4


_BARE = """
import sys
for name in ("tensorflow", "tensorflow_datasets", "clu", "orbax",
             "orbax.checkpoint", "ml_collections", "transformers", "torch",
             "array_record"):
  sys.modules[name] = None
from benchmarks import step
{run}
"""


def _bare(run: str) -> str:
  done = subprocess.run(
    [sys.executable, "-c", _BARE.format(run=run)],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  return done.stdout


def test_needs_no_data_libraries():
  assert _bare("print(step.arguments(['--preset=mipd']).batch)") == "32\n"


@pytest.mark.slow
def test_one_json_line_at_true_sizes():
  """Both forms have the same losses; ours costs less than half."""
  given = ["--preset=reference", "--batch=2", "--steps=2", "--compare"]
  line = json.loads(_bare(f"step.main({given})"))
  assert line["train_ms"] > 0 and line["eval_ms"] > 0
  assert line["images_per_s"] == pytest.approx(2e3 / line["train_ms"])
  assert line["flops"] < 0.5 * line["plain_flops"]
  assert line["eval_flops"] < line["plain_eval_flops"]
  assert line["peak_bytes"] > line["flops"] / 1e4
  for name in ("loss", "last_loss"):
    assert line[name] == pytest.approx(line[f"plain_{name}"], rel=1e-5)
  assert line["last_loss"] != line["loss"]


def test_unknown_presets_are_refused(capsys):
  with pytest.raises(SystemExit):
    step.arguments(["--preset=fast"])
  assert "no_distillation" in capsys.readouterr().err
