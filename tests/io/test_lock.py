"""One run at a time in a folder; locks of processes that have ended."""

import concurrent.futures
import dataclasses
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time

import pytest

from input_pipeline.io import lock
from input_pipeline.io.errors import InputError
from tests.fakes import fake_bucket

FIRST = f"{lock.LOCK}.0-of-1"
# A number that Linux gives to no process.
_NO_PID = 2**22 + 1


def _leave(folder, name=FIRST, **changes):
  """A lock as a process left it that says of itself what `changes` say."""
  folder.mkdir(parents=True, exist_ok=True)
  holder = dataclasses.asdict(lock.Holder.here("training")) | changes
  (folder / name).write_text(json.dumps(holder))
  return holder


@pytest.mark.parametrize("where", ["tmp", "bucket"])
def test_the_second_is_told_who_holds_it(tmp_path, where, monkeypatch):
  folder = tmp_path / "run"
  if where == "bucket":
    fake_bucket.install(monkeypatch, tmp_path)
    folder = "gs://bucket/run"
  with lock.holding(folder, "training"):
    with (
      pytest.raises(InputError, match="run is in use by process") as caught,
      lock.holding(folder, "training"),
    ):
      pass
    holder = lock.Holder.here("")
    said = f"process {os.getpid()} on {holder.host} since {holder.since[:13]}"
    assert said in str(caught.value) and "(training)" in str(caught.value)
    assert "wait until" in caught.value.remedy
  with lock.holding(folder, "training"):
    pass
  assert not [p.name for p in tmp_path.rglob("*") if p.is_file()]


def test_it_is_given_back_after_an_error(tmp_path):
  with pytest.raises(KeyboardInterrupt), lock.holding(tmp_path, "training"):
    raise KeyboardInterrupt
  assert list(tmp_path.iterdir()) == []


def test_members_of_one_run_share_and_other_runs_do_not(tmp_path):
  with (
    lock.holding(tmp_path, "preparing", index=0, count=3),
    lock.holding(tmp_path, "preparing", index=2, count=3),
  ):
    for index, count in ((0, 3), (2, 3), (0, 1), (1, 2), (0, 2)):
      with (
        pytest.raises(InputError, match="in use by process"),
        lock.holding(tmp_path, "preparing", index=index, count=count),
      ):
        pass
    with lock.holding(tmp_path, "preparing", index=1, count=3):
      assert len(list(tmp_path.iterdir())) == 3
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [FIRST, f"{lock.LOCK}.4-of-5"])
@pytest.mark.parametrize(
  "changes",
  [
    {"pid": _NO_PID},
    {"pid": 10**30},
    {"pid": -1},
    {"started": "1"},  # the number is used again
    {"boot": "before", "host": "renamed since"},
  ],
  ids=str,
)
def test_a_lock_of_a_process_that_has_ended(
  tmp_path, name, changes, monkeypatch, caplog
):
  monkeypatch.setattr(lock, "_is_local_disk", lambda folder: True)
  _leave(tmp_path, name, **changes)
  with lock.holding(tmp_path, "training"):
    assert [p.name for p in tmp_path.iterdir()] == [FIRST]
  assert "ended without removing its lock" in caplog.text
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
  "changes",
  [
    {"host": "elsewhere", "boot": "another"},
    {"boot": "before"},  # two machines may have one name
    {"namespace": "pid:[1]"},  # another container
    {"host": "elsewhere", "boot": ""},
  ],
  ids=str,
)
def test_a_lock_of_another_machine_is_watched(
  tmp_path, changes, monkeypatch, caplog
):
  """Its process number means nothing here; signs of life do."""
  monkeypatch.setattr(lock, "_is_local_disk", lambda folder: False)
  monkeypatch.setattr(lock, "_WATCH", 0.5)
  holder = _leave(tmp_path, pid=_NO_PID, **changes)
  mine = lock.Holder(**{n: holder[n] for n in lock._FORM})
  monkeypatch.setattr(lock, "_BEAT", 0.05)
  ended = threading.Event()
  other = threading.Thread(
    target=lock._beat, args=(tmp_path / FIRST, mine, ended)
  )
  other.start()
  try:
    with (
      pytest.raises(InputError, match=f"on {holder['host']}") as caught,
      lock.holding(tmp_path, "training"),
    ):
      pass
  finally:
    ended.set()
    other.join()
  assert f"delete {tmp_path / FIRST}" in caught.value.remedy
  assert (tmp_path / FIRST).exists()
  # Its machine was taken back: the next run goes on.
  with lock.holding(tmp_path, "training"):
    assert "watching for up to" in caplog.text
  assert list(tmp_path.iterdir()) == []


def test_a_lock_shows_signs_of_life(tmp_path, monkeypatch):
  monkeypatch.setattr(lock, "_BEAT", 0.02)
  with lock.holding(tmp_path, "training"):
    texts = set()
    for _ in range(200):
      texts.add((tmp_path / FIRST).read_text())
      if len(texts) > 2:
        break
      time.sleep(0.02)
    assert len(texts) > 2
    # Deleted by a person: not ours any more, and not made again.
    (tmp_path / FIRST).unlink()
    time.sleep(0.1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "12"}', "\0" * 40])
def test_a_lock_that_makes_no_sense(tmp_path, text, monkeypatch):
  monkeypatch.setattr(lock, "_WRITING", 0.01)
  (tmp_path / FIRST).write_text(text)
  with (
    pytest.raises(InputError, match=FIRST) as caught,
    lock.holding(tmp_path, "training"),
  ):
    pass
  assert f"delete {tmp_path / FIRST}" in caught.value.remedy


@pytest.mark.parametrize("links", [True, False])
def test_a_full_disk_leaves_no_lock(tmp_path, links, monkeypatch):
  """Half a lock would keep every later run out."""
  if not links:

    def refused(*_):
      raise PermissionError

    monkeypatch.setattr(lock.os, "link", refused)
    # So that the plain way is reached, its first file is written whole.
    monkeypatch.setattr(lock.pathlib.Path, "write_text", lambda *_: None)
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
  try:
    with (
      pytest.raises(OSError, match="too large"),
      lock.holding(tmp_path, "training"),
    ):
      pass
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert list(tmp_path.iterdir()) == []
  monkeypatch.undo()
  with lock.holding(tmp_path, "training"):
    pass


def test_without_links_and_turns(tmp_path, monkeypatch):
  """As on some network disks, and where /tmp cannot be written."""

  def refused(*_):
    raise PermissionError

  monkeypatch.setattr(lock.os, "link", refused)
  monkeypatch.setattr(lock.fcntl, "flock", refused)
  with lock.holding(tmp_path, "training"):
    with pytest.raises(InputError), lock.holding(tmp_path, "training"):
      pass
    assert [p.name for p in tmp_path.iterdir()] == [FIRST]


def test_of_many_one_gets_it(tmp_path):
  """They find the lock of a process that has ended, all at once."""
  _leave(tmp_path, pid=_NO_PID)
  inside = []

  def enter(_):
    try:
      with lock.holding(tmp_path, "training"):
        inside.append(1)
        while len(inside) + len(refused) < 16:
          pass
    except InputError:
      refused.append(1)

  refused: list[int] = []
  with concurrent.futures.ThreadPoolExecutor(16) as pool:
    list(pool.map(enter, range(16)))
  assert (len(inside), len(refused)) == (1, 15)


_HOLDS = """
import sys, time
from input_pipeline.io import lock
with lock.holding(sys.argv[1], "training"):
  print("in", flush=True)
  time.sleep(60)
"""


def test_a_killed_process_that_nobody_has_buried(tmp_path):
  with subprocess.Popen(
    [sys.executable, "-c", _HOLDS, str(tmp_path)],
    stdout=subprocess.PIPE,
    cwd=os.path.dirname(
      os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    ),
  ) as process:
    assert process.stdout.read(2) == b"in"
    with (
      pytest.raises(InputError, match=f"process {process.pid} on"),
      lock.holding(tmp_path, "training"),
    ):
      pass
    process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    with lock.holding(tmp_path, "training"):
      pass
