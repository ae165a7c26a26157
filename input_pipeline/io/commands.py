"""How every command begins and ends: one message, one exit code.

0          done
2          bad input, a full disk, a folder that cannot be written: one
           message with the remedy
130, 143   stopped by Ctrl-C, by SIGTERM: one line; the same command
           continues
"""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import NoReturn

from input_pipeline.io import errors
from input_pipeline.io.signals import HEEDED, exit_code

BAD_INPUT = 2


def start(main: Callable[[], int | None]) -> NoReturn:
  """Runs `main` and leaves with its exit code.

  What a user can mend ends in one message on standard error, never in a
  traceback, and so does a signal.
  """
  HEEDED.install()
  leave(guarded(main))


def leave(code: int) -> NoReturn:
  """Ends the process; after a signal without waiting for any thread."""
  if HEEDED.received is not None:
    for stream in (sys.stdout, sys.stderr):
      with contextlib.suppress(OSError, ValueError):
        stream.flush()
    os._exit(code)
  sys.exit(code)


def guarded(main: Callable[[], int | None]) -> int:
  """The exit code of `main`; see `start`."""
  try:
    with HEEDED.raising(), _without_closed_loops():
      return main() or 0
  except errors.InputError as error:
    print(f"error: {error}", file=sys.stderr)
    return BAD_INPUT
  except KeyboardInterrupt as error:
    return stopped(getattr(error, "number", signal.SIGINT))
  except BrokenPipeError:  # | head
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
  except Exception as error:
    if HEEDED.received is not None:  # a library made something else of it
      return stopped(HEEDED.received)
    found = errors.of_system(error)
    if found is None:
      raise
    print(f"error: {found}", file=sys.stderr)
    return BAD_INPUT


def stopped(number: int | None = None) -> int:
  """Says that a signal stopped the command; returns the exit code.

  Args:
    number: of the signal; if None the one that came, or SIGTERM where it came
      to another process of the run.
  """
  number = number or HEEDED.received or signal.SIGTERM
  HEEDED.say(number)
  return exit_code(number)


@contextlib.contextmanager
def _without_closed_loops() -> Iterator[None]:
  """Drops what TensorStore's threads say of an event loop that has ended.

  A save that fails ends its loop while other files are being written; each
  then comes back to a closed loop, which is no news to anybody. Nor is a full
  disk that a writer meets once more when it is closed.
  """
  before = sys.unraisablehook

  def hook(found: "sys.UnraisableHookArgs") -> None:
    told = found.exc_value is not None and errors.is_full(found.exc_value)
    if not told and str(found.exc_value) != "Event loop is closed":
      before(found)

  sys.unraisablehook = hook
  yield
  # Kept while the process ends with an error; threads are not done by then.
  sys.unraisablehook = before
