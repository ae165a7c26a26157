"""Two processes as one run: agreement, signals, kills, another number."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from input_pipeline.io.errors import InputError
from mipd_jax.devices import distributed, sharding
from tests import process, training

# Sums over devices in another order: of float32, over a dozen steps of Adam.
_TOLERANCE = 5e-5


def _finish(processes, folder, timeout=120):
  """Exit codes and output; no process keeps running."""
  deadline = time.monotonic() + timeout
  while any(p.poll() is None for p in processes):
    if time.monotonic() > deadline:
      for p in processes:
        p.kill()
    time.sleep(0.05)
  said = [(folder / f"log_{i}").read_text() for i in range(len(processes))]
  return [p.returncode for p in processes], said


def _rows(workdir):
  path = workdir / "metrics.jsonl"
  lines = path.read_text().splitlines() if path.exists() else []
  return [json.loads(line) for line in lines]


def _losses(workdir):
  return {
    r["step"]: r["loss/total"] for r in _rows(workdir) if "loss/total" in r
  }


def _wait_for_step(workdir, step, processes):
  deadline = time.monotonic() + 240
  while max(_losses(workdir), default=0) < step:
    if time.monotonic() > deadline or any(p.poll() for p in processes):
      for p in processes:
        p.kill()
      said = _finish(processes, workdir.parent)[1]
      pytest.fail(f"no step {step}: {said}")
    time.sleep(0.05)


def test_processes_agree_and_tell_each_others_problems(tmp_path):
  processes = process.start("agree", 2, folder=tmp_path, devices=1)
  codes, said = _finish(processes, tmp_path)
  assert codes == [0, 0], said
  for index, text in enumerate(said):
    lines = [x for x in text.splitlines() if not x.startswith("[Gloo]")]
    problem = "the cache is missing here"
    if index == 0:
      problem = f"process 1 stopped: {problem}\n  Remedy: copy it"
    assert "all False True" in lines and "any True False" in lines
    assert "problem process 1 has another config than process 0" in lines
    assert f"problem {problem}" in text
    assert f"agreed {index}" in lines


def test_frames_of_a_split_are_those_of_one_process(tmp_path):
  """What a run's file of predictions is made of."""
  path = tmp_path / "found.npz"
  processes = process.start("frames", 2, str(path), folder=tmp_path)
  codes, said = _finish(processes, tmp_path, timeout=300)
  assert codes == [0, 0], said
  found = np.load(path)
  wanted = process.frames(sharding.make_mesh(devices=jax.devices()[:1]))
  assert wanted["listed noun"].shape[:2] == (process.DEV, 5)
  assert np.isnan(wanted["listed box"]).any()
  for name, value in wanted.items():
    np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)


@pytest.mark.slow  # a minute; a kill of one process is in the others
def test_signal_kill_and_another_number_of_processes(tmp_path):
  """SIGTERM to one stops both; SIGKILL of both; one process ends the run."""
  two = tmp_path / "two"
  processes = process.start("train", 2, str(two), "4000", folder=tmp_path)
  _wait_for_step(two, 3, processes)
  processes[1].send_signal(signal.SIGTERM)
  codes, said = _finish(processes, tmp_path)
  assert codes == [0, 0], said
  stopped = max(_losses(two))
  assert all(f"step {stopped} complete False" in text for text in said), said
  assert (two / "checkpoints" / str(stopped)).is_dir()

  processes = process.start("train", 2, str(two), "4000", folder=tmp_path)
  _wait_for_step(two, stopped + 3, processes)
  for p in processes:
    p.kill()
  codes, said = _finish(processes, tmp_path)
  assert codes == [-signal.SIGKILL] * 2, said

  steps = max(_losses(two)) + 3
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  found, complete = process.run(two, steps, mesh)
  assert complete
  wanted, _ = process.run(tmp_path / "one", steps, mesh)
  losses = _losses(two)
  assert list(losses) == list(range(1, steps + 1))
  assert losses == pytest.approx(_losses(tmp_path / "one"), rel=_TOLERANCE)
  for ours, theirs in zip(
    jax.tree.leaves(found.params), jax.tree.leaves(wanted.params), strict=True
  ):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=_TOLERANCE)
  # Every dev image counted once, whoever evaluated.
  scores = [
    {r["step"]: r for r in _rows(place) if "dev/selection" in r}
    for place in (two, tmp_path / "one")
  ]
  assert scores[0].keys() == scores[1].keys() >= {4, 8}


_ALONE = """
import sys
from absl import logging
from mipd_jax.devices import distributed
logging.set_verbosity(logging.INFO)
distributed.PATIENCE, distributed._LOOK_EVERY = 4, 1
distributed.initialize(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
"""


def test_a_process_that_is_left_alone_says_so_and_ends():
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    where = f"127.0.0.1:{free.getsockname()[1]}"
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    nobody = f"127.0.0.1:{free.getsockname()[1]}"
  wanted = {
    (where, "2", "0"): f"process 1 of 2 to join {where}",
    (nobody, "3", "2"): f"process 0, which should answer at {nobody}",
  }
  running = [
    subprocess.Popen(
      [sys.executable, "-c", _ALONE, *flags],
      cwd=process.ROOT,
      env=os.environ | {"JAX_PLATFORMS": "cpu"},
      stderr=subprocess.PIPE,
      text=True,
    )
    for flags in wanted
  ]
  for flags, missing, found in zip(
    wanted, wanted.values(), running, strict=True
  ):
    said = found.communicate(timeout=100)[1]
    assert found.returncode == 2, said
    assert said.count(f"Waiting for {missing}") >= 2, said
    assert f"{missing}" in said.splitlines()[-2], said
    given = "--coordinator={} --num_processes={} --process_id={}"
    assert given.format(*flags) in said.splitlines()[-2], said
    assert "Remedy: start every process" in said.splitlines()[-1]
    assert "Traceback" not in said and "stack trace" not in said


@pytest.mark.parametrize(
  ("count", "index", "answers", "words"),
  [
    (None, None, True, "the other processes of the run"),
    (2, 1, True, "process 0 at h:1, which answers"),
    (3, 1, True, "process 2 of 3"),
    (4, 1, False, "process 0, which should answer at h:1"),
    (4, 0, False, "some of processes 1, 2, 3 of 4"),
    (99, 0, False, "some of processes 1, 2, 3, 4, 5, 6, 7, 8, ... of 99"),
  ],
)
def test_who_is_missing(count, index, answers, words, monkeypatch):
  monkeypatch.setattr(distributed, "_answers", lambda _: answers)
  assert distributed._missing("h:1", count, index).startswith(words)


def test_flags_that_do_not_make_a_run():
  with pytest.raises(InputError, match="need --coordinator"):
    distributed.initialize("", 2, 0, environment={})
  with pytest.raises(InputError, match="--num_processes is not"):
    distributed.initialize("127.0.0.1:1", environment={})
  with pytest.raises(InputError, match="JAX_PROCESS_ID is ''"):
    distributed.initialize(
      environment={
        "JAX_COORDINATOR_ADDRESS": "127.0.0.1:1",
        "JAX_NUM_PROCESSES": "2",
      }
    )
  distributed.initialize(environment={})
  assert training.jax.process_count() == 1
