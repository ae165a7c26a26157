"""The loop: resume, signals, NaN, devices, checkpoints."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from input_pipeline import order, schema
from input_pipeline.io.errors import InputError
from mipd_jax.config import MeshConfig
from mipd_jax.devices import sharding
from mipd_jax.training.divergence import DivergedError
from tests import training
from tests.fixtures import batches


def _losses(workdir):
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  return {r["step"]: r["loss/total"] for r in rows if "loss/total" in r}


@pytest.mark.slow  # make test has it as runs that are killed, test_hardening.py
def test_four_steps_equal_two_and_two(tmp_path):
  """Resume is exact: every bit of the state, every batch, every loss."""
  source = batches.MemorySource()
  settings = training.config(tmp_path / "whole", schedule="constant")
  whole, complete = training.run(settings, source)
  assert complete
  first, second = batches.MemorySource(), batches.MemorySource()
  half = training.config(tmp_path / "parts", schedule="constant", steps=2)
  training.run(half, first)
  rest = training.config(tmp_path / "parts", schedule="constant")
  resumed, _ = training.run(rest, second)
  assert training.fingerprint(whole) == training.fingerprint(resumed)
  losses = _losses(tmp_path / "whole")
  assert list(losses) == [1, 2, 3, 4]
  assert losses == _losses(tmp_path / "parts")
  # Batch contents: what was read of step 2 and 3 is what order.py says, and
  # nothing of steps 0 and 1 was read again.
  wanted = [order.step_indices(0, step, 40, 8) for step in range(4)]

  def read_of(memory):
    return sorted(r.tolist() for r in memory.reads if len(r) == 8)

  assert read_of(source) == sorted(w.tolist() for w in wanted)
  assert read_of(second) == sorted(w.tolist() for w in wanted[2:])


def _process(workdir, *arguments):
  return subprocess.run(
    [sys.executable, "-m", "tests.training", str(workdir), *arguments],
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
    # The same devices: another thread pool rounds differently.
    env=dict(os.environ),
  )


@pytest.mark.slow  # minutes; test_hardening.py kills the command itself
def test_killed_and_terminated_runs_resume_bit_for_bit(tmp_path):
  """SIGKILL loses what came after the last checkpoint, SIGTERM nothing."""
  killed = _process(tmp_path / "killed", "7", "SIGKILL")
  assert killed.returncode == -signal.SIGKILL
  assert "2" in os.listdir(tmp_path / "killed" / "checkpoints")
  terminated = _process(tmp_path / "terminated", "3", "SIGTERM")
  assert terminated.returncode == 0, terminated.stderr[-2000:]
  assert "complete False" in terminated.stdout
  saved = os.listdir(tmp_path / "terminated" / "checkpoints")
  stopped_at = int(re.search(r"step (\d+)", terminated.stdout)[1])
  assert str(stopped_at) in saved
  steps = max(stopped_at, 30) + 3
  finished = {}
  for name in ("killed", "terminated", "whole"):
    settings = training.process_config(tmp_path / name, steps)
    state, complete = training.run(settings)
    assert complete
    finished[name] = training.fingerprint(state)
  assert finished["killed"] == finished["whole"]
  assert finished["terminated"] == finished["whole"]


@pytest.mark.parametrize(
  ("preset", "data", "model", "fsdp"),
  [
    ("mipd", 8, 1, False),
    # Compiling these takes a minute each.
    pytest.param("reference", 2, 4, True, marks=pytest.mark.slow),
    pytest.param("no_distillation", 4, 2, True, marks=pytest.mark.slow),
  ],
)
def test_one_device_and_eight_agree(tmp_path, preset, data, model, fsdp):
  """Sums in another order, in float32: equal to 2e-5 over four steps."""
  devices = jax.devices()
  if len(devices) < 8:
    pytest.skip("needs eight devices, see conftest.py")
  losses, states = [], []
  one = sharding.make_mesh(devices=devices[:1])
  eight = sharding.make_mesh(data, model, devices[:8])
  for mesh in (one, eight):
    settings = training.config(
      tmp_path / str(mesh.size),
      preset,
      eval_every=0,
      checkpoint_every=0,
      schedule="constant",
    )
    settings = dataclasses.replace(
      settings, mesh=MeshConfig(data, model, fsdp and mesh is eight)
    )
    state, _ = training.run(settings, batches.MemorySource(150), mesh=mesh)
    losses.append(_losses(tmp_path / str(mesh.size)))
    states.append(state)
  assert list(losses[0]) == [1, 2, 3, 4]
  assert losses[0] == pytest.approx(losses[1], rel=2e-5)
  _check_places(states[1], preset, data, model, fsdp)


def _check_places(state, preset, data, model, fsdp):
  """The state is placed as the policy says, also after a step."""
  wanted = sharding.state_shardings(state.step.sharding.mesh, state, fsdp=fsdp)
  jax.tree.map(
    lambda x, place: x.sharding.is_equivalent_to(place, x.ndim) or 1 / 0,
    state,
    wanted,
  )
  kernel = state.params["student"]["decoder"]["linear1"]["dense"]["kernel"]
  parts = model * (data if fsdp else 1)
  assert kernel.addressable_shards[0].data.size * parts == kernel.size


def test_nan_stops_with_step_and_image_names(tmp_path):
  class Poisoned(batches.MemorySource):
    def read(self, indices):
      data = super().read(indices)
      tokens = data[schema.STUDENT_TOKENS].copy()
      tokens[indices == poisoned] = np.nan
      return data | {schema.STUDENT_TOKENS: tokens}

  poisoned = order.step_indices(0, 2, 40, 8)[5]
  settings = training.config(tmp_path, log_every=4, checkpoint_every=2)
  with pytest.raises(DivergedError) as error:
    training.run(settings, Poisoned())
  assert "step 2" in str(error.value)
  assert f"image_{poisoned}.jpg" in str(error.value)
  # Nothing poisoned was saved.
  assert os.listdir(tmp_path / "checkpoints") == ["2"]


def test_checkpoint_of_another_run_is_refused(tmp_path):
  training.run(training.config(tmp_path, steps=2))
  other = training.config(tmp_path, "no_distillation")
  with pytest.raises(InputError, match=r"loss\.verb_kl 0\.3 -> 0\.0") as error:
    training.run(other)
  assert "another --workdir" in error.value.remedy
