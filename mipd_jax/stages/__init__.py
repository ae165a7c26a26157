"""The stages of the main job, and the order they run in."""

from input_pipeline.errors import InputError
from mipd_jax.config import Config


def run(config: Config, mode: str) -> bool:
  """Runs one stage, or all of them, each reusing what exists.

  Args:
    config: the run.
    mode: prepare, train, eval, report or all.

  Returns:
    True unless a signal stopped the training.
  """
  from mipd_jax import distributed
  from mipd_jax.stages import beside, evaluate, prepare, report, train

  train.make_mesh(config)  # complains of sizes before anything long
  if mode in ("all", "eval"):
    beside.read(config)  # of runs that are not there
    evaluate.check(config)  # of files that cannot be written
  if config.teacher.only and mode != "prepare":
    raise InputError(
      f"teacher.only={config.teacher.only!r} asks for a part of the cache, "
      f"but --mode={mode} needs all of it",
      "give --mode=prepare as well, or leave --config.teacher.only empty",
    )
  if mode in ("all", "prepare"):
    prepared = prepare.prepare(config)
    if prepared is None:  # a part of the cache was asked for and made
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
