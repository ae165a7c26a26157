"""How every command starts and ends: one message, one exit code.

0          done
2          bad input, a full disk, a folder that cannot be written: one
           message with the remedy
130, 143   stopped by Ctrl-C, by SIGTERM: one line; the same command
           continues

A command stops within seconds of Ctrl-C or SIGTERM. Python runs its signal
handlers between two of its own instructions, so a compilation or a long read
inside a library can delay them for minutes. The system's own handler wakes a
thread at once; that thread ends the process if the main thread has not left in
time. Ending like this is as safe as `kill -9`: files appear whole or not at
all, and the same command continues.
"""

import atexit
import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import NoReturn

from input_pipeline.io import errors

NUMBERS = (signal.SIGINT, signal.SIGTERM)
# Seconds in which the main thread must clean up and leave.
GRACE = 3.0
_TICK = 0.05


class Stopped(KeyboardInterrupt):
  """A signal asked the command to stop; `number` says which."""

  def __init__(self, number: int):
    super().__init__(signal.Signals(number).name)
    self.number = number


def exit_code(number: int) -> int:
  """The exit code that shells give a process ended by a signal: 130, 143."""
  return 128 + number


class _Heeded:
  """The signal handling of this process; `HEEDED` is the only instance.

  Attributes:
    received: the last signal of `NUMBERS`; None before the first.
  """

  def __init__(self):
    self.received: int | None = None
    self._handler: Callable[[int], None] | None = None
    self._previous: dict[int, object] = {}
    self._grace: float | None = GRACE
    self._deadline: float | None = None
    self._seen_to = self._raises = self._said = self._installed = False

  def install(self) -> None:
    """Handles the signals from now on; called by the main thread."""
    if self._installed:
      return
    self._installed = True
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    for number in NUMBERS:
      # A process started with a signal ignored (nohup, &) keeps ignoring it.
      if signal.getsignal(number) is not signal.SIG_IGN:
        signal.signal(number, self._notice)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    # A forked child would wake this process's thread.
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
    threading.Thread(target=self._watch, args=(reader,), daemon=True).start()
    atexit.register(self._end)

  @staticmethod
  def _end() -> None:
    """Ignores signals once the work is done, so its exit code stays.

    Python restores the system's handlers while it ends, and a signal at that
    moment would end the process without a message.
    """
    for number in NUMBERS:
      signal.signal(number, signal.SIG_IGN)

  @contextlib.contextmanager
  def raising(self) -> Iterator[None]:
    """Inside, a signal raises `Stopped`; outside it ends the process."""
    self._raises, before = True, self._raises
    try:
      yield
    finally:
      self._raises = before

  @contextlib.contextmanager
  def handled(
    self, handler: Callable[[int], None], grace: float | None
  ) -> Iterator[None]:
    """Inside, the first signal calls `handler`; the second raises.

    Args:
      handler: called in the main thread with the signal's number.
      grace: seconds after which the process ends anyway, unless `see_to` has
        been called; None: never.
    """
    self._handler, self._grace = handler, grace
    self._seen_to = False
    # Inside another program: its handlers are restored afterwards.
    self._previous = (
      {}
      if self._installed
      else {n: signal.signal(n, self._notice) for n in NUMBERS}
    )
    try:
      yield
    finally:
      self._handler = None
      self._restore()

  def _restore(self) -> None:
    while self._previous:
      number, handler = self._previous.popitem()
      # None: a handler that was not set from Python and cannot be set again.
      signal.signal(number, signal.SIG_DFL if handler is None else handler)

  def see_to(self) -> None:
    """The handler is dealing with the signal: removes the deadline."""
    self._seen_to, self._deadline = True, None

  def _notice(self, number: int, frame: object) -> None:
    del frame
    self.received = number
    handler, self._handler = self._handler, None
    if handler is not None:
      self._set_deadline(self._grace)
      self._restore()  # those of another program
      handler(number)
      return
    self.say(number)
    self._seen_to = False
    self._set_deadline(GRACE)
    if not self._raises:
      os._exit(exit_code(number))
    raise Stopped(number)

  def say(self, number: int) -> None:
    """Prints the one line; silences what libraries print while they end."""
    if self._said:
      return
    self._said = True
    name = signal.Signals(number).name
    line = f"\nStopped by {name}. The same command continues.\n"
    if not self._installed:  # inside another program
      print(line.strip(), file=sys.stderr)
      return
    with contextlib.suppress(OSError):
      os.write(2, line.encode())
      nothing = os.open(os.devnull, os.O_WRONLY)
      os.dup2(nothing, 2)
      os.close(nothing)

  def _watch(self, reader: int) -> None:
    """Ends the process if the main thread does not leave in time."""
    while True:
      waiting = self._deadline is not None
      if select.select([reader], [], [], _TICK if waiting else None)[0]:
        number = os.read(reader, 1)[0]
        if number in NUMBERS:
          self.received = number
          # Only until the main thread runs the handler, which sets its own.
          if self._deadline is None and not self._seen_to:
            self._set_deadline(GRACE if self._handler is None else self._grace)
      deadline = self._deadline
      if deadline is not None and time.monotonic() > deadline:
        self.say(self.received)
        os._exit(exit_code(self.received))

  def _set_deadline(self, seconds: float | None) -> None:
    self._deadline = None if seconds is None else time.monotonic() + seconds


HEEDED = _Heeded()

BAD_INPUT = 2


def start(main: Callable[[], int | None]) -> NoReturn:
  """Runs `main` and leaves with its exit code.

  Errors that a user can mend, and signals, end in one message on standard
  error, never in a traceback.
  """
  HEEDED.install()
  leave(guarded(main))


def leave(code: int) -> NoReturn:
  """Ends the process; after a signal, without waiting for any thread."""
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
    if HEEDED.received is not None:  # a library turned it into another error
      return stopped(HEEDED.received)
    input_error = errors.of_system(error)
    if input_error is None:
      raise
    print(f"error: {input_error}", file=sys.stderr)
    return BAD_INPUT


def stopped(number: int | None = None) -> int:
  """Says that a signal stopped the command; returns the exit code.

  Args:
    number: the signal's number; None: the one received, or SIGTERM if another
      process of the run received it.
  """
  number = number or HEEDED.received or signal.SIGTERM
  HEEDED.say(number)
  return exit_code(number)


@contextlib.contextmanager
def _without_closed_loops() -> Iterator[None]:
  """Drops errors of TensorStore's threads that repeat a failed save.

  A save that fails closes its event loop while other files are being written;
  each of these then reports the closed loop. A writer on a full disk reports
  it once more when it is closed.
  """
  before = sys.unraisablehook

  def hook(unraisable: "sys.UnraisableHookArgs") -> None:
    error = unraisable.exc_value
    is_full = error is not None and errors.is_full(error)
    if not is_full and str(error) != "Event loop is closed":
      before(unraisable)

  sys.unraisablehook = hook
  yield
  # Stays after an error: threads still run while the process ends.
  sys.unraisablehook = before
