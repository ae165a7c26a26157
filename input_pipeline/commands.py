"""How every command begins and ends: one message, one exit code."""

import os
import sys
from collections.abc import Callable
from typing import NoReturn

from input_pipeline import errors

# Exit code of what a user can mend.
BAD_INPUT = 2


def start(main: Callable[[], int | None]) -> NoReturn:
  """Runs `main` and leaves with its exit code.

  What a user can mend (bad input, a full disk, a folder that cannot be
  written) ends in one message on standard error and exit code 2, never in a
  traceback.
  """
  sys.exit(guarded(main))


def guarded(main: Callable[[], int | None]) -> int:
  """The exit code of `main`; see `start`."""
  try:
    return main() or 0
  except errors.InputError as error:
    _say(error)
    return BAD_INPUT
  except BrokenPipeError:  # | head
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
  except Exception as error:
    found = errors.of_system(error)
    if found is None:
      raise
    _say(found)
    return BAD_INPUT


def _say(error: Exception) -> None:
  print(f"error: {error}", file=sys.stderr)
