"""A tiny run of the real loop on a source in memory.

Run as a program it is the process that tests kill:

  python -m tests.training WORKDIR [KILL_AT_STEP] [SIGNAL]
"""

import dataclasses
import hashlib
import os
import pathlib
import signal
import sys

import jax
import numpy as np

from input_pipeline import schema
from input_pipeline.small_world.situations.config import WorldConfig
from mipd_jax.config import (
  Config,
  DatasetConfig,
  EvalConfig,
  TeacherConfig,
  TrainConfig,
)
from mipd_jax.devices import sharding
from mipd_jax.evaluation import situations as eval_lib
from mipd_jax.metrics import swig_scores
from mipd_jax.models.config import Dropout
from mipd_jax.models.mipd import Mipd
from mipd_jax.stages.train import student_predict
from mipd_jax.training import loop
from mipd_jax.training.checkpoints import Checkpoints
from tests.fixtures import batches, models

STEPS = 4


def config(workdir, preset="mipd", **train) -> Config:
  """Four steps with dropout, a checkpoint every two."""
  model, losses = models.configs(preset, dropout=Dropout())
  settings = {
    "steps": STEPS,
    "batch_size": 8,
    "log_every": 1,
    "eval_every": 2,
    "checkpoint_every": 2,
    "learning_rate": 1e-3,
    "schedule": "constant",  # a program that does not know its end
    "resident": "off",
  }
  return Config(
    name="tiny",
    preset=preset,
    workdir=str(workdir),
    dataset=DatasetConfig(folder="none", world=WorldConfig.tiny()),
    teacher=TeacherConfig("none", "none", "none"),
    model=model,
    loss=losses,
    train=TrainConfig(**settings | train),
    eval=EvalConfig(batch_size=16),
  )


def run(settings: Config, source=None, mesh=None, dev_source=None):
  """Trains; returns (state, complete)."""
  source = source or batches.MemorySource()
  mesh = mesh or sharding.make_mesh(devices=jax.devices()[:1])
  model = Mipd(settings.model, batches.SIZES)
  banks = batches.banks()
  dev_source = dev_source or batches.MemorySource(10, seed=5)
  step = eval_lib.compile_eval_step(student_predict(model))

  def dev(state):
    evaluator = eval_lib.Evaluator(step, state.params, banks, mesh, 16)
    found = eval_lib.evaluate(evaluator, StudentOnly(dev_source))
    groups = np.arange(batches.SIZES.num_verbs) % 3
    return swig_scores.dev_report(swig_scores.summarise(found.totals, groups))

  identity = {"loss": dataclasses.asdict(settings.loss)}
  checkpoints = Checkpoints(settings.workdir, identity, settings.train.keep)
  inputs = loop.TrainInputs(source, source.names, banks, dev)
  try:
    return loop.train(settings, model, inputs, mesh, checkpoints)
  finally:
    checkpoints.close()


def process_config(workdir, steps: int) -> Config:
  """A run that compiles fast and whose schedule does not know its end."""
  return config(
    workdir, "no_distillation", schedule="constant", steps=steps, keep=3
  )


class StudentOnly:
  """A source that has nothing of the teacher, as evaluation needs it."""

  def __init__(self, source):
    self._source = source
    self.num_examples = source.num_examples

  def read(self, indices):
    data = self._source.read(indices)
    return {k: x for k, x in data.items() if k in schema.STUDENT_KEYS}


class KillingSource(batches.MemorySource):
  """Signals its own process when the loop has done some steps.

  The stream reads ahead, so reading says nothing about steps; the metrics
  file, which has one line a step, does.
  """

  def __init__(self, workdir, at_step: int, number: int):
    super().__init__()
    self._path = pathlib.Path(workdir) / "metrics.jsonl"
    self._at, self._number = at_step, number
    self.batches: list[bytes] = []

  def watch(self):
    """Blocks until the step is logged, then signals."""
    import time

    while True:
      lines = self._path.read_text().splitlines() if self._path.exists() else []
      if sum('"loss/total"' in line for line in lines) >= self._at:
        os.kill(os.getpid(), self._number)
        return
      time.sleep(0.005)


def fingerprint(state) -> str:
  """Hash of every bit of a state."""
  digest = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(state):
    digest.update(jax.tree_util.keystr(path).encode())
    digest.update(np.asarray(leaf).tobytes())
  return digest.hexdigest()


def main(workdir: str, kill_at: str = "", number: str = "SIGKILL") -> None:
  source = batches.MemorySource()
  if kill_at:
    import threading

    source = KillingSource(workdir, int(kill_at), getattr(signal, number))
    threading.Thread(target=source.watch, daemon=True).start()
  state, complete = run(process_config(workdir, 4000), source)
  print(f"state {fingerprint(state)} step {state.step} complete {complete}")


if __name__ == "__main__":
  main(*sys.argv[1:])
