"""Progress in logs: a line every ten seconds, rate and time left."""

import io
import sys

import pytest

from input_pipeline.io import progress


class Clock:
  """A clock that moves only on demand."""

  def __init__(self):
    self.now = 1000.0

  def monotonic(self):
    return self.now


@pytest.fixture
def clock(monkeypatch):
  found = Clock()
  monkeypatch.setattr(progress, "time", found)
  return found


def _lines(capsys):
  return capsys.readouterr().err.splitlines()


def test_a_line_every_ten_seconds_and_at_the_end(clock, capsys):
  with progress.Progress("train", 100, "steps") as bar:
    for _ in range(100):
      clock.now += 0.5
      bar.advance(note="loss 1.5")
  lines = _lines(capsys)
  assert [line.split()[1] for line in lines] == [
    *("20/100", "40/100", "60/100", "80/100", "100/100"),
    "100/100",
  ]
  assert lines[0] == (
    "train: 20/100 steps, 2 steps/s, 0:10 so far, 0:40 left loss 1.5"
  )
  assert "0:50 so far, 0:00 left" in lines[-1]


def test_rate_is_of_what_follows_the_first_result(clock, capsys):
  """Compilation before the first step does not slow the forecast."""
  with progress.Progress("train", 100, "steps") as bar:
    clock.now += 300
    bar.advance()
    for _ in range(10):
      clock.now += 1
      bar.advance()
  first, second, *_ = _lines(capsys)
  assert "1/100" in first and "? left" in first
  assert "1 steps/s, 5:10 so far, 1:29 left" in second


def test_what_an_earlier_run_did_is_no_speed(clock, capsys):
  with progress.Progress("train", 1000, "steps", done=900) as bar:
    for _ in range(3):
      clock.now += 10
      bar.advance(10)
  assert _lines(capsys)[-1] == (
    "train: 930/1000 steps, 1 steps/s, 0:30 so far, 1:10 left"
  )


def test_long_times_have_hours(clock, capsys):
  with progress.Progress("train", 10_000, "steps") as bar:
    bar.advance()
    clock.now += 3661
    bar.advance(3661)
  assert "1:01:01 so far, 1:45:38 left" in _lines(capsys)[0]


def test_after_an_error_nothing_is_claimed(clock, capsys):
  with (
    pytest.raises(KeyError),
    progress.Progress("train", 10, "steps") as bar,
  ):
    bar.advance()
    raise KeyError
  assert _lines(capsys) == []


def test_terminal_has_a_live_bar(clock, monkeypatch):
  class Terminal(io.StringIO):
    def isatty(self):
      return True

  screen = Terminal()
  monkeypatch.setattr(sys, "stderr", screen)
  monkeypatch.setenv("TERM", "xterm")
  monkeypatch.setattr(progress, "LINE_EVERY_SECONDS", 0)
  with progress.Progress("encode", 4, "images") as bar:
    for _ in range(4):
      clock.now += 1
      bar.advance()
  shown = screen.getvalue()
  assert "encode" in shown and "4/4" in shown
  assert "images, " not in shown  # no lines of the log beside the bar
