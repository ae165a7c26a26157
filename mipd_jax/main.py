"""The command line: flags, logging, exit codes; the work is in `stages`.

python -m mipd_jax.main --config=configs/synthetic.py
  [--workdir=DIR] [--mode=all|prepare|train|eval|report|predict]
  [--images=GLOB --out=DIR [--vocabulary=words.yaml]]
  [--coordinator=HOST:PORT|auto] [--num_processes=N --process_id=I]
  [--config.FIELD=VALUE ...]

Configs, with words behind a colon, joined by commas:

  configs/synthetic.py   a small world, drawn and learnt from nothing
  configs/ov_swig.py     Ov-SWiG at true sizes
  configs/hico_det.py    unseen interactions; also small_world
    debug                every stage in about a minute
    mipd, reference, no_distillation   what is learnt; mipd if none is given
    jrg                  a language model writes the rationales

mipd_jax/config.py has every FIELD. Exit codes: 0 done, 1 a loss is not finite,
2 bad input, 130 and 143 stopped by Ctrl-C and SIGTERM.
"""

import os
from collections.abc import Sequence

from input_pipeline.io import commands
from input_pipeline.io.commands import HEEDED
from input_pipeline.io.errors import InputError

# Before TensorFlow is imported: hides its start-up lines.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

if __name__ == "__main__":  # before the slow imports
  HEEDED.install()

from absl import flags, logging
from ml_collections import config_flags

from mipd_jax import command_line

# Compiled programs, so that a second run starts at once.
_COMPILED = "runs/compiled"
PREDICT = "predict"
MODES = ("all", "prepare", "train", "eval", "report", PREDICT)

_CONFIG = config_flags.DEFINE_config_file(
  "config",
  None,
  "Config file, with a variant behind a colon.",
  lock_config=True,
)
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Where checkpoints and results go; the config's if empty."
)
_MODE = flags.DEFINE_enum("mode", "all", MODES, "Which stages to run.")
_IMAGES = flags.DEFINE_string(
  "images", "", "With --mode=predict: a file, a folder, or a pattern in quotes."
)
_OUT = flags.DEFINE_string(
  "out", "", "With --mode=predict: the folder that the results go to."
)
_VOCABULARY = flags.DEFINE_string(
  "vocabulary",
  "",
  "With --mode=predict: words.yaml (docs/predict.md); training's if empty.",
)
_COORDINATOR = flags.DEFINE_string(
  "coordinator",
  "",
  "Several processes: HOST:PORT of process 0, or auto (TPU pods, Slurm).",
)
_NUM_PROCESSES = flags.DEFINE_integer(
  "num_processes", 0, "With --coordinator=HOST:PORT: how many there are."
)
_PROCESS_ID = flags.DEFINE_integer(
  "process_id", -1, "With --coordinator=HOST:PORT: which one this is, from 0."
)


def main(argv: Sequence[str]) -> int:
  """Returns the exit code.

  0 done, 1 a loss is not finite, 2 bad input, 130 or 143 stopped by Ctrl-C or
  SIGTERM: the same command continues.
  """
  if len(argv) > 1:
    logging.error("unexpected argument %r; see --helpshort", argv[1])
    return 2
  # Heavy imports wait until the flags are checked.
  from mipd_jax import config as config_lib
  from mipd_jax import stages
  from mipd_jax.devices import compilation
  from mipd_jax.training.divergence import DivergedError

  _check_predict_flags()
  config = config_lib.unpack(_config_values())
  compilation.set_up(_COMPILED, quick=config.quick_compile)
  from mipd_jax.devices import distributed

  distributed.initialize(
    _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value
  )
  distributed.check_equal("config", f"{config} {_MODE.value}")
  if _MODE.value == PREDICT:
    from mipd_jax.stages import predict

    flag_values = (_IMAGES.value, _OUT.value, _VOCABULARY.value)
    predict.predict(config, predict.Request(*flag_values))
    return 0
  try:
    complete = stages.run(config, _MODE.value)
  except DivergedError as error:
    logging.error("%s", error)
    return 1
  return 0 if complete else commands.stopped()


def _check_predict_flags() -> None:
  """--images and --out belong to --mode=predict, and it needs both."""
  given = {flag.name: flag.value for flag in (_IMAGES, _OUT, _VOCABULARY)}
  if _MODE.value == PREDICT:
    wrong = [name for name in ("images", "out") if not given[name]]
    problem, remedy = "needs", "add it: --images='photos/*.jpg' --out=DIR"
  else:
    wrong = [name for name, value in given.items() if value]
    problem, remedy = "does not take", "leave it out, or --mode=predict"
  if wrong:
    raise InputError(f"--mode={_MODE.value} {problem} --{wrong[0]}", remedy)


def _config_values():
  values = command_line.config_of(_CONFIG)
  if _WORKDIR.value:
    values.workdir = _WORKDIR.value
  return values


if __name__ == "__main__":
  command_line.start(main)
