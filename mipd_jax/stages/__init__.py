"""The stages of the main job, and the order they run in."""

import contextlib
from collections.abc import Iterator

from input_pipeline.io import atomic, lock, paths
from input_pipeline.io.errors import InputError
from mipd_jax.config import Config


def run(config: Config, mode: str) -> bool:
  """Runs one stage, or all of them, each reusing what exists.

  Args:
    config: the run.
    mode: prepare, train, eval, report or all.

  Returns:
    True unless a signal stopped the training.
  """
  from mipd_jax.stages import train

  train.make_mesh(config)  # raises for wrong sizes before long work
  if config.teacher.only and mode != "prepare":
    raise InputError(
      f"--config.teacher.only={config.teacher.only} asks for a part of the "
      f"cache, but --mode={mode} needs all of it",
      "give --mode=prepare as well, or leave --config.teacher.only out",
    )
  if mode == "prepare":
    return _run(config, mode)
  with _alone(config.workdir, mode):
    return _run(config, mode)


@contextlib.contextmanager
def _alone(workdir: str, mode: str) -> Iterator[None]:
  """Keeps other runs out of a work directory.

  Raises:
    InputError: another run is at work there, or it cannot be made or written;
      raised before long work.
  """
  import jax

  from mipd_jax.devices import distributed

  folder = paths.path(workdir)
  processes = {"index": jax.process_index(), "count": jax.process_count()}
  distributed.agreed(lambda: atomic.check_folder(workdir, "--workdir"))
  with contextlib.ExitStack() as stack:
    stack.callback(_remove_empty, folder)
    held = lock.holding(folder, f"main --mode={mode}", **processes)
    distributed.agreed(lambda: stack.enter_context(held))
    yield


def _remove_empty(folder: paths.AnyPath) -> None:
  """Removes the empty folder of a refused run."""
  if not paths.is_remote(folder):
    with contextlib.suppress(OSError):
      folder.rmdir()


def _run(config: Config, mode: str) -> bool:
  from mipd_jax.devices import distributed
  from mipd_jax.stages import evaluate, prepare, report, train

  if mode in ("all", "eval"):
    evaluate.read(config)  # raises for missing runs
    evaluate.check(config)  # raises for files that cannot be written
  if mode in ("all", "prepare"):
    prepared = prepare.prepare(config)
    if prepared is None:  # only a part of the cache was asked for
      return True
  else:
    prepared = distributed.agreed(lambda: prepare.open_prepared(config))
  complete = True
  if mode in ("all", "train"):
    complete = train.train(config, prepared)
  if mode == "eval" or (mode == "all" and complete):
    evaluate.evaluate(config, prepared)
  if mode == "report" or (mode == "all" and complete and report.fits(config)):
    report.report(config, prepared)
  return complete
