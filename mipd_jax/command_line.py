"""Start, flags and errors of the command lines with --config."""

import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

import ml_collections
from absl import app, flags, logging

from input_pipeline.io import commands
from input_pipeline.io.commands import HEEDED
from input_pipeline.io.errors import InputError

_HELP = {"--help", "-help", "-h", "--helpshort", "-helpshort"}
# Libraries that log every file they touch, or absent chips.
_CHATTY = ("asyncio", "/clu/", "orbax", "tensorflow", "xla_bridge")


def start(main: Callable[[Sequence[str]], int]) -> NoReturn:
  """Parses flags, sets up logging, runs `main`, exits with what it returns.

  Errors and signals end as in `input_pipeline.io.commands`.
  """
  HEEDED.install()
  logging.set_verbosity(logging.INFO)
  logging.use_absl_handler()
  logging.get_absl_handler().addFilter(_worth_showing)
  flags.mark_flag_as_required("config")
  app.run(
    lambda argv: commands.leave(commands.guarded(lambda: main(argv))),
    flags_parser=_parse,
  )


def config_of(
  flag: flags.FlagHolder[ml_collections.ConfigDict],
) -> ml_collections.ConfigDict:
  """The config of --config.

  Raises:
    InputError: there is no such file.
  """
  values = flag.value
  try:
    values.get("name", None)  # config_flags reports a missing file only now
  except OSError as error:
    reason = " ".join(str(error.__cause__).split())
    raise InputError(
      f"--config: {reason}",
      "name one of configs/*.py, from the repository's root",
    ) from error
  return values


def _parse(argv: Sequence[str]) -> list[str]:
  """Parses flags; an error becomes one message with exit code 2.

  config_flags passes errors of config files on, some wrapped in others, so the
  InputError is searched in the chain. Help ends with exit code 0, where absl
  has 1.
  """
  if _HELP & set(argv[1:]):
    app.usage(shorthelp=True, writeto_stdout=True)
    sys.exit(0)
  try:
    return flags.FLAGS(argv)
  except (flags.Error, AttributeError, KeyError, TypeError) as error:
    cause = error
    while cause and not isinstance(cause, InputError):
      cause = cause.__cause__ or cause.__context__
    if cause is None:
      said = " ".join(str(error).replace("\\n", " ").split()).strip("'\"\\")
      if not isinstance(error, flags.Error):
        about = [arg for arg in argv[1:] if arg.startswith("--config.")]
        said = f"one of {about} names no field of the config: {said}"
      remedy = "--help lists the flags, mipd_jax/config.py the config's fields"
      if "--config must have a value" in said:
        remedy = "give one, such as --config=configs/synthetic.py:debug"
      cause = InputError(said, remedy)
    print(cause, file=sys.stderr)  # logging is not set up yet
    sys.exit(2)


def _worth_showing(record) -> bool:
  """False for a library's messages below a warning.

  And for tracebacks of their threads: the error is raised where the thread's
  result is awaited, and is reported once.
  """
  chatty = any(name in record.pathname for name in _CHATTY)
  if chatty and record.exc_info:
    return False
  return not chatty or record.levelno >= logging.converter.STANDARD_WARNING
