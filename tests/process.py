"""One of several processes of a tiny run; what tests start and kill.

python -m tests.process train COORDINATOR COUNT INDEX WORKDIR STEPS
python -m tests.process agree COORDINATOR COUNT INDEX
python -m tests.process frames COORDINATOR COUNT INDEX FILE
"""

import os
import pathlib
import socket
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
EXAMPLES, DEV = 150, 37  # neither divides over processes or devices


def start(
  mode: str,
  count: int,
  *arguments: str,
  folder: pathlib.Path,
  devices: int = 2,
) -> list[subprocess.Popen]:
  """Starts `count` processes that make one run, each with some devices.

  What process i says goes to a file log_i in the folder; a pipe may fill up.
  """
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    coordinator = f"127.0.0.1:{free.getsockname()[1]}"
  flags = (
    f"--xla_force_host_platform_device_count={devices} "
    "--xla_backend_optimization_level=0"  # as conftest.py
  )
  environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}

  def one(index):
    command = (sys.executable, "-m", "tests.process", mode, coordinator)
    with (folder / f"log_{index}").open("w") as log:
      return subprocess.Popen(
        [*command, str(count), str(index), *arguments],
        cwd=ROOT,
        env=environment,
        stdout=log,
        stderr=subprocess.STDOUT,
      )

  return [one(index) for index in range(count)]


def config(workdir, steps: int):
  """The run of `train`, and of tests that continue or compare it."""
  from tests import training

  return training.config(
    workdir,
    "no_distillation",
    schedule="constant",
    steps=steps,
    eval_every=4,
    keep=3,
    resident="on",
  )


def run(workdir, steps: int, mesh=None):
  """Trains with all devices, or those of a mesh: (state, complete)."""
  from mipd_jax.devices import sharding
  from tests import training
  from tests.fixtures import batches

  return training.run(
    config(workdir, steps),
    batches.MemorySource(EXAMPLES),
    mesh or sharding.make_mesh(),
    dev_source=batches.MemorySource(DEV, seed=5),
  )


def _train(workdir: str, steps: str) -> None:
  state, complete = run(workdir, int(steps))
  print(f"step {int(state.step)} complete {complete}")


def frames(mesh) -> dict:
  """Evaluates something like a student, and fills the listed verbs' frames."""
  import jax.numpy as jnp
  import numpy as np

  from input_pipeline import schema
  from mipd_jax.evaluation import predictions, situations
  from mipd_jax.models import outputs as out
  from tests import training
  from tests.fixtures import batches

  sizes = batches.SIZES

  def predict(params, batch, banks):
    del params, banks
    seen = batch[schema.STUDENT_TOKENS].astype(jnp.float32)[:, 0]
    asked = batch[schema.ROLES] + 7.0 * batch[schema.VERB][:, None]
    slot = jnp.sin(asked[..., None] + seen[:, None])  # [B, R, 24]
    return {
      out.VERB_SCORES: seen[:, : sizes.num_verbs],
      out.NOUN_SCORES: slot[..., : sizes.num_nouns],
      out.BOX: 0.5 + 0.4 * slot[..., 15:19],
      out.BOX_CONFIDENCE: slot[..., 20],
    }

  source = training.StudentOnly(batches.MemorySource(DEV, seed=5))
  step = situations.compile_eval_step(predict)
  found = situations.evaluate(
    situations.Evaluator(step, {}, {}, mesh, 8), source
  )
  rng = np.random.default_rng(0)
  shape = (sizes.num_verbs, schema.MAX_ROLES)
  listed = predictions.listed_frames(
    situations.Evaluator(
      predictions.compile_frames_step(predict), {}, {}, mesh, 8
    ),
    source,
    verbs=predictions.listed_verbs(found.verb_scores),
    frames=rng.integers(-1, sizes.num_roles, shape).astype(np.int32),
  )
  return {
    "sums": found.totals.sums,
    "noun": found.frames.noun,
    "box": found.frames.box,
    "listed noun": listed.noun,
    "listed box": listed.box,
  }


def _frames(path: str) -> None:
  import numpy as np

  from mipd_jax.devices import distributed, sharding

  found = frames(sharding.make_mesh())
  if distributed.is_first():
    np.savez(path, **found)


def _agree() -> None:
  """What processes share with each other, one line each."""
  import jax

  from input_pipeline.io.errors import InputError
  from mipd_jax.devices import distributed

  index = jax.process_index()
  print("all", distributed.all_of(index == 0), distributed.all_of(True))
  print("any", distributed.any_of(index == 1), distributed.any_of(False))
  distributed.check_equal("config", "the same")

  def fails():
    if index == 1:
      raise InputError("the cache is missing here", "copy it")
    return index

  for work in (
    lambda: distributed.check_equal("config", f"of {index}"),
    lambda: distributed.agreed(fails),
  ):
    try:
      work()
    except InputError as error:
      print("problem", error.problem)
  print("agreed", distributed.agreed(lambda: index))


def main(mode: str, coordinator: str, count: str, index: str, *rest: str):
  from mipd_jax.devices import distributed

  distributed.initialize(coordinator, int(count), int(index))
  {"train": _train, "agree": _agree, "frames": _frames}[mode](*rest)


if __name__ == "__main__":
  main(*sys.argv[1:])
