"""Progress of long work: units done, rate, time left.

A live bar on a terminal; elsewhere (logs, CI) a line every ten seconds, so that
a log file stays readable.
"""

import sys
import time
import types
from collections.abc import Callable, Iterator, Sequence

from rich import progress as rich_progress
from rich.console import Console

from input_pipeline.io import ahead
from input_pipeline.io.ahead import Item, Result

LINE_EVERY_SECONDS = 10.0
_CHUNK = 64  # items that a thread takes at a time
_THREADS = 8  # they wait for the disk most of the time


class Progress:
  """Context manager that shows the progress of a piece of work.

  Args:
    what: a few words, such as "train".
    total: number of units.
    unit: their name, in the plural.
    done: units that an earlier run has done; the rate leaves them out.
  """

  def __init__(self, what: str, total: int, unit: str, done: int = 0):
    self._what, self._total, self._unit = what, total, unit
    self._done = self._first = self._before = done
    self._note = ""
    self._bar: rich_progress.Progress | None = None
    self._start = self._last_line = time.monotonic()
    self._first_advance: float | None = None

  def __enter__(self) -> "Progress":
    self._start = self._last_line = time.monotonic()
    if sys.stderr.isatty():
      self._bar = rich_progress.Progress(
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TextColumn("{task.fields[text]}"),
        console=Console(stderr=True),
      )
      self._bar.start()
      self._task = self._bar.add_task(
        self._what, total=self._total, completed=self._done, text=""
      )
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: types.TracebackType | None,
  ) -> None:
    if self._bar:
      self._bar.stop()
    elif kind is None:
      self._print()

  def advance(self, units: int = 1, note: str = "") -> None:
    """Adds units done; `note` is shown at the end of the line."""
    self._done += units
    if self._first_advance is None:
      # The time before the first result is compilation and reading ahead; the
      # rate is measured after it.
      self._first_advance = time.monotonic()
      self._first = self._done
    self._note = note or self._note
    if self._bar:
      self._bar.update(self._task, completed=self._done, text=self._text())
    elif time.monotonic() - self._last_line >= LINE_EVERY_SECONDS:
      self._print()

  def _text(self) -> str:
    elapsed = time.monotonic() - self._start
    if self._done >= self._total:  # nothing left to estimate: the average
      rate = (self._done - self._before) / max(elapsed, 1e-9)
    else:
      running = time.monotonic() - (self._first_advance or self._start)
      rate = (self._done - self._first) / max(running, 1e-9)
    left = (self._total - self._done) / rate if rate else float("inf")
    return (
      f"{rate:.3g} {self._unit}/s, {_clock(elapsed)} so far, "
      f"{_clock(left)} left {self._note}"
    ).rstrip()

  def _print(self) -> None:
    self._last_line = time.monotonic()
    print(
      f"{self._what}: {self._done}/{self._total} {self._unit}, {self._text()}",
      file=sys.stderr,
      flush=True,
    )


def _clock(seconds: float) -> str:
  if seconds == float("inf"):
    return "?"
  minutes, rest = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def each(
  items: Sequence[Item], function: Callable[[Item], Result], what: str
) -> Iterator[Result]:
  """Applies a function to each image on threads, with progress.

  Args:
    items: one for each image.
    function: reads the disk; runs on a thread.
    what: a few words, for the progress.

  Yields:
    The results, in the order of the items.
  """
  chunks = [items[i : i + _CHUNK] for i in range(0, len(items), _CHUNK)]

  def run(chunk: Sequence[Item]) -> list[Result]:
    return [function(item) for item in chunk]

  with Progress(what, len(items), "images") as progress:
    for results in ahead.in_order(run, chunks, _THREADS):
      yield from results
      progress.advance(len(results))
