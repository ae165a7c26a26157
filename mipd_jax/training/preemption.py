"""Notices SIGTERM, so that the loop can save and leave."""

import signal
import types


class Preemption:
  """Context in which SIGTERM and SIGINT set `requested` once.

  A second signal acts as usual, so that a stuck run can still be stopped.
  """

  _SIGNALS = (signal.SIGTERM, signal.SIGINT)

  def __init__(self):
    self.requested = False
    self._previous: dict[int, object] = {}

  def __enter__(self) -> "Preemption":
    for number in self._SIGNALS:
      self._previous[number] = signal.signal(number, self._notice)
    return self

  def __exit__(self, *_) -> None:
    self._restore()

  def _notice(self, number: int, frame: types.FrameType | None) -> None:
    del number, frame
    self.requested = True
    self._restore()

  def _restore(self) -> None:
    while self._previous:
      number, handler = self._previous.popitem()
      # None: a handler that was not set from Python and cannot be set again.
      signal.signal(number, signal.SIG_DFL if handler is None else handler)
