"""The command line: flags, logging, exit codes; the work is in `stages`.

python -m mipd_jax.main --config=configs/synthetic.py
  [--workdir=DIR] [--mode=all|prepare|train|eval]
  [--coordinator=HOST:PORT|auto] [--num_processes=N --process_id=I]
"""

import os
import sys
from collections.abc import Sequence

# Before TensorFlow is imported: its start-up lines say nothing to a user.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

from absl import app, flags, logging
from ml_collections import config_flags

from input_pipeline.errors import InputError

# Compiled programs, so that a second run starts at once.
_COMPILED = "runs/compiled"
MODES = ("all", "prepare", "train", "eval")

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
  """Returns the exit code: 0 done or stopped by a signal, 2 bad input."""
  if len(argv) > 1:
    logging.error("unexpected argument %r; see --helpshort", argv[1])
    return 2
  # Heavy imports wait until the flags are known to be good.
  from mipd_jax import compilation, stages
  from mipd_jax import config as config_lib
  from mipd_jax.training.divergence import DivergedError

  try:
    values = _config_values()
    config = config_lib.unpack(values)
    compilation.set_up(_COMPILED, quick=config.quick_compile)
    from mipd_jax import distributed  # imports jax, which reads what is set up

    distributed.initialize(
      _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value
    )
    distributed.check_equal("config", f"{config} {_MODE.value}")
    stages.run(config, _MODE.value)
  except (InputError, DivergedError) as error:
    logging.error("%s", error)
    return 1 if isinstance(error, DivergedError) else 2
  return 0


def _config_values():
  values = _CONFIG.value
  try:
    if _WORKDIR.value:
      values.workdir = _WORKDIR.value
    else:
      _ = values.workdir  # config_flags tells of a missing file only now
  except OSError as error:
    reason = " ".join(str(error.__cause__).split())
    raise InputError(
      f"--config: {reason}",
      "name one of configs/*.py, from the repository's root",
    ) from error
  return values


def _parse(argv: Sequence[str]) -> list[str]:
  """Parses flags; what is wrong with them becomes one message, exit code 2.

  config_flags lets errors of config files through as they come, some wrapped
  in others, so the InputError is looked for in the chain.
  """
  try:
    return flags.FLAGS(argv)
  except (flags.Error, AttributeError, KeyError, TypeError) as error:
    found = error
    while found and not isinstance(found, InputError):
      found = found.__cause__ or found.__context__
    if found is None:
      said = " ".join(str(error).replace("\\n", " ").split()).strip("'\"\\")
      if not isinstance(error, flags.Error):
        about = [arg for arg in argv[1:] if arg.startswith("--config.")]
        said = f"one of {about} names no field of the config: {said}"
      found = InputError(said, "see --helpshort, and mipd_jax/config.py")
    print(found, file=sys.stderr)  # logging is not set up yet
    sys.exit(2)


# Libraries that tell every file they touch, or which chips are not there.
_CHATTY = ("orbax", "tensorflow", "xla_bridge")


def _worth_showing(record) -> bool:
  """Of chatty libraries only warnings are shown."""
  chatty = any(name in record.pathname for name in _CHATTY)
  return not chatty or record.levelno >= logging.converter.STANDARD_WARNING


def run() -> None:
  """Entry point of the console script."""
  logging.set_verbosity(logging.INFO)
  logging.use_absl_handler()
  logging.get_absl_handler().addFilter(_worth_showing)
  flags.mark_flag_as_required("config")
  app.run(lambda argv: sys.exit(main(argv)), flags_parser=_parse)


if __name__ == "__main__":
  run()
