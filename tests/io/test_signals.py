"""Ctrl-C and SIGTERM: within seconds, one line, the exit code of shells."""

import signal
import subprocess
import sys
import time

import pytest

# What the main thread does when the signal comes. `hold` is one call into C
# that lets no handler of Python run, as a compilation does.
_HOLD = "import hashlib; hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"
WORK = {
  "python": "time.sleep(60)",
  "in C": _HOLD,
  "swallowed": """
while True:
  try:
    time.sleep(60)
  except BaseException:
    pass
""",
  "made another error": """
try:
  time.sleep(60)
except BaseException as error:
  raise RuntimeError("wrapped") from error
""",
  "a thread that does not end": """
import threading
threading.Thread(target=time.sleep, args=(60,)).start()
time.sleep(60)
""",
  "cleaned up": """
try:
  time.sleep(60)
finally:
  print("cleaned", flush=True)
""",
}


def _stopped(code: str, *numbers: int) -> tuple[int, str, str, float]:
  """Exit code, both outputs, and seconds after the signals."""
  process = subprocess.Popen(
    [sys.executable, "-c", code],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  assert process.stdout.readline() == "ready\n"
  time.sleep(0.2)
  start = time.monotonic()
  for number in numbers:
    process.send_signal(number)
    time.sleep(0.3)
  out, err = process.communicate(timeout=30)
  return process.returncode, out, err, time.monotonic() - start


@pytest.mark.parametrize("what", WORK)
def test_a_command_stops_with_one_line(what):
  number = signal.SIGINT if what == "python" else signal.SIGTERM
  body = "\n  ".join(WORK[what].strip().splitlines())
  code = f"""
import time
from input_pipeline.io import commands
def main():
  print("ready", flush=True)
  {body}
commands.start(main)
"""
  status, out, err, seconds = _stopped(code, number)
  assert status == 128 + number
  name = signal.Signals(number).name
  assert err.strip() == f"Stopped by {name}. The same command continues."
  assert seconds < 6
  assert out.strip() == ("cleaned" if what == "cleaned up" else "")


_LOOP = """
import time
from input_pipeline.io import commands
from input_pipeline.io.commands import HEEDED
asked = []
def main():
  with HEEDED.handled(asked.append, {grace}):
    print("ready", flush=True)
    {body}
  return commands.stopped()
commands.start(main)
"""


@pytest.mark.parametrize(
  ("body", "numbers", "status", "said"),
  [
    # The loop notices, and saves for longer than the time to notice.
    (
      "while not asked: time.sleep(0.01)\n"
      "    HEEDED.see_to(); time.sleep(2.5); print('saved', flush=True)",
      [signal.SIGTERM],
      143,
      "saved",
    ),
    # It is held up in C.
    (_HOLD, [signal.SIGINT], 130, ""),
    # A second signal does not wait for the saving.
    (
      "while not asked: time.sleep(0.01)\n"
      "    HEEDED.see_to(); time.sleep(60); print('saved', flush=True)",
      [signal.SIGTERM, signal.SIGINT],
      130,
      "",
    ),
  ],
)
def test_a_loop_may_save_first(body, numbers, status, said):
  code = _LOOP.format(body=body, grace=1.5)
  found, out, err, seconds = _stopped(code, *numbers)
  assert (found, out.strip()) == (status, said)
  assert err.count("Stopped by SIG") == 1 and seconds < 6


def test_handlers_of_another_program_come_back():
  from input_pipeline.io.commands import HEEDED

  before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
  asked = []
  with HEEDED.handled(asked.append, None):
    signal.raise_signal(signal.SIGTERM)
    assert asked == [signal.SIGTERM]
    # The second is that program's own affair.
    assert signal.getsignal(signal.SIGTERM) == before[1]
  HEEDED.received = None
  after = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
  assert after == before


def test_what_ignores_a_signal_goes_on_ignoring_it():
  code = """
import signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
from input_pipeline.io import commands
def main():
  print("ready", flush=True)
  time.sleep(1)
  print("done")
commands.start(main)
"""
  status, out, _, _ = _stopped(code, signal.SIGINT)
  assert (status, out) == (0, "done\n")


def test_a_signal_while_python_ends_changes_nothing():
  code = """
import os, time
from input_pipeline.io import commands

class Late:
  def __del__(self, write=os.write, sleep=time.sleep):
    write(1, b"ready\\n")
    sleep(1.5)

late = Late()
commands.start(lambda: 0)
"""
  status, _, err, _ = _stopped(code, signal.SIGTERM)
  assert (status, err) == (0, "")
