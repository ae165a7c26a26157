"""The stages of the main job, and the order they run in."""

from mipd_jax.config import Config


def run(config: Config, mode: str) -> None:
  """Runs one stage, or all of them, each reusing what exists.

  Args:
    config: the run.
    mode: prepare, train, eval or all.
  """
  from mipd_jax.stages import evaluate, prepare, train

  train.make_mesh(config)  # complains of sizes before anything long
  if mode in ("all", "prepare"):
    prepared = prepare.prepare(config)
  else:
    prepared = prepare.open_prepared(config)
  complete = True
  if mode in ("all", "train"):
    complete = train.train(config, prepared)
  if mode == "eval" or (mode == "all" and complete):
    evaluate.evaluate(config, prepared)
