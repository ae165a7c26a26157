"""Locks: one run at a time may write a folder.

The lock is a small file in the folder that names the process. It is created
exclusively under its name, which needs no flock and so works on network disks
too, and it is deleted when the work ends. A killed process leaves its lock
behind. Its own machine notices at once (no such process, or one that started
at another time) and takes the lock over. Another machine watches the file for
a minute, because a living process rewrites it every few seconds.

Folders in buckets (gs://...) get the same file as an object. Exclusive
creation is not used there, so two processes that start within the same second
may both get the lock; later ones are refused.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import logging
import os
import pathlib
import socket
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator

from input_pipeline.io import atomic, json_files, paths
from input_pipeline.io.errors import InputError

# Beginning of a lock's name; the number of the process follows.
LOCK = ".in_use"
_FORM = {
  "what": str,
  "host": str,
  "boot": str,
  "namespace": str,
  "pid": int,
  "started": str,
  "since": str,
  "token": str,
}
_LINUX = pathlib.Path("/proc")
# Kinds of file systems that only one machine can have mounted.
_LOCAL_DISKS = "apfs btrfs ext2 ext3 ext4 f2fs overlay ramfs tmpfs xfs zfs"
# Seconds between two writes of a lock, and how long another machine waits for
# one. That is how a preempted machine is noticed.
_BEAT, _WATCH = 15.0, 60.0
# Seconds that a lock may be without contents while it is being written.
_WRITING = 1.0
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Holder:
  """The process that a lock names.

  Attributes:
    what: what it does, in a few words: "preparing a cache".
    host, boot, namespace: its machine, that machine's boot, and its
      container. Process numbers are unique only within all three.
    pid, started: its number, and when it started, since numbers are reused.
    since: when it took the lock, for people.
    token: unique to each lock.
  """

  what: str
  host: str
  boot: str
  namespace: str
  pid: int
  started: str
  since: str
  token: str

  @classmethod
  def here(cls, what: str) -> "Holder":
    """This process, now."""
    return cls(
      what,
      *_machine(),
      os.getpid(),
      _started(os.getpid()) or "",
      time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
      uuid.uuid4().hex,
    )

  def __str__(self) -> str:
    return f"process {self.pid} on {self.host} since {self.since} ({self.what})"


@contextlib.contextmanager
def holding(
  folder: str | os.PathLike[str], what: str, *, index: int = 0, count: int = 1
) -> Iterator[None]:
  """Keeps others out of a folder while the block runs.

  Args:
    folder: on this machine or in a bucket; made if absent.
    what: what this process does there, in a few words: "preparing a cache".
    index, count: number of this process among those that share the folder on
      purpose. Processes of the same index, or of other counts, are excluded.

  Raises:
    InputError: another process holds it; the message names the process.
    OSError: the folder cannot be written.
  """
  folder = paths.path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  path = folder / f"{LOCK}.{index}-of-{count}"
  mine = Holder.here(what)
  with _one_at_a_time(folder):
    _take(path, mine)
  ended = threading.Event()
  beating = threading.Thread(
    target=_beat, args=(path, mine, ended), daemon=True
  )
  beating.start()
  try:
    _refuse_other_counts(folder, count)
    yield
  finally:
    ended.set()
    beating.join()
    if _holder(path) == mine:
      path.unlink(missing_ok=True)


def refuse(
  folder: str | os.PathLike[str], *, index: int = 0, count: int = 1
) -> None:
  """Raises InputError if `holding` would; call it before long work."""
  folder = paths.path(folder)
  if folder.is_dir():
    _clear(folder / f"{LOCK}.{index}-of-{count}")
    _refuse_other_counts(folder, count)


def is_lock(name: str) -> bool:
  """Whether a file of this name is a lock, or one that is being written."""
  return name.startswith(LOCK + ".")


def _take(path: paths.AnyPath, mine: Holder) -> None:
  """Makes the lock; replaces one whose process has ended."""
  text = json.dumps(dataclasses.asdict(mine), indent=1) + "\n"
  if not _create(path, text):
    _clear(path)
    if not _create(path, text):
      _clear(path)  # another process was faster and holds it
      raise InputError(
        f"{path} appears and disappears: several processes start at once",
        "start one of them",
      )


def _beat(path: paths.AnyPath, mine: Holder, ended: threading.Event) -> None:
  """Rewrites the lock every few seconds until `ended` is set."""
  number = 0
  while not ended.wait(_BEAT):
    number += 1
    # A run goes on if the disk is unreachable for a moment.
    with contextlib.suppress(OSError, InputError):
      if _holder(path) != mine:
        return  # deleted or taken over: no longer ours
      content = dataclasses.asdict(mine) | {"beat": number}
      _replace(path, json.dumps(content, indent=1) + "\n")


def _replace(path: paths.AnyPath, text: str) -> None:
  if paths.is_remote(path):
    path.write_text(text)
    return
  temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
  try:
    temporary.write_text(text)
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


def _shows_life(path: paths.AnyPath, holder: Holder) -> bool:
  """Whether another machine rewrites its lock within a minute.

  False also if the lock disappears.
  """
  _log.warning(
    "%s is locked by %s: watching for up to %.0f s whether that still runs.",
    path.parent,
    holder,
    _WATCH,
  )
  before, until = _text(path), time.monotonic() + _WATCH
  while time.monotonic() < until:
    time.sleep(min(1.0, _WATCH / 10))
    if _text(path) != before:
      return path.exists()
  return False


def _text(path: paths.AnyPath) -> str:
  with contextlib.suppress(OSError):
    return path.read_bytes().decode("utf-8", "replace")
  return ""


def _create(path: paths.AnyPath, text: str) -> bool:
  """Makes a file unless it exists; atomically if the disk has links."""
  if paths.is_remote(path):
    if path.exists():
      return False
    path.write_text(text)
    return True
  temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
  try:
    temporary.write_text(text)  # a full disk is noticed here
    try:
      os.link(temporary, path)
    except FileExistsError:
      return False
    except OSError:  # a disk without links
      return _create_plainly(path, text)
  finally:
    temporary.unlink(missing_ok=True)
  return True


def _create_plainly(path: paths.AnyPath, text: str) -> bool:
  """Makes a file unless it exists; removes it if writing fails."""
  try:
    with path.open("x") as file:
      try:
        file.write(text)
        file.flush()
      except BaseException:
        path.unlink(missing_ok=True)
        raise
  except FileExistsError:
    return False
  return True


def _refuse_other_counts(folder: paths.AnyPath, count: int) -> None:
  """Refuses locks of other counts: those are of another run."""
  for path in sorted(folder.iterdir()):
    if not is_lock(path.name):
      continue
    if path.suffix == ".tmp":  # left by a killed process
      _sweep(path)
    elif not path.name.endswith(f"-of-{count}"):
      _clear(path)


def _sweep(temporary: paths.AnyPath) -> None:
  with contextlib.suppress(OSError):
    if time.time() - os.stat(temporary).st_mtime > 60:
      temporary.unlink(missing_ok=True)


def _clear(path: paths.AnyPath) -> None:
  """Deletes the lock of an ended process; InputError if it still runs."""
  holder = _holder(path)
  if holder is None:
    return
  lives = _lives(holder, path.parent)
  if lives is None:
    lives = _shows_life(path, holder)
  if not lives:
    _log.warning(
      "%s was in use by %s, which ended without removing its lock; going on.",
      path.parent,
      holder,
    )
    path.unlink(missing_ok=True)
    return
  raise InputError(
    f"{path.parent} is in use by {holder}",
    "wait until it has ended, or give another folder; if you know that it "
    f"has ended, delete {path}",
  )


def _holder(path: paths.AnyPath) -> Holder | None:
  """The process that a lock names; None if there is no lock.

  Raises:
    InputError: the file is not a lock's.
  """
  remedy = f"if no other process works in {path.parent}, delete {path}"
  until = time.monotonic() + _WRITING
  while True:
    if not path.exists():
      return None
    try:
      data = json_files.read(path, _FORM, remedy)
    except InputError:
      if not path.exists():
        return None
      if time.monotonic() > until:
        raise
      time.sleep(_WRITING / 10)
    else:
      return Holder(**{name: data[name] for name in _FORM})


def _lives(holder: Holder, folder: paths.AnyPath) -> bool | None:
  """Whether a holder still runs; None if that cannot be known."""
  machine = holder.host, holder.boot, holder.namespace
  if machine == _machine():
    started = _started(holder.pid) if holder.pid > 0 else None
    if started is None:
      return False
    return "" in (started, holder.started) or started == holder.started
  if holder.boot not in ("", _machine()[1]) and _is_local_disk(folder):
    return False  # from before this machine's last boot
  return None


def _machine() -> tuple[str, str, str]:
  """This host's name, the id of its boot, and the container."""
  boot = namespace = ""
  with contextlib.suppress(OSError):
    boot = (_LINUX / "sys/kernel/random/boot_id").read_text().strip()
    namespace = os.readlink(_LINUX / "self/ns/pid")
  return socket.gethostname(), boot, namespace


def _started(pid: int) -> str | None:
  """When a process started, as the system writes it.

  Returns:
    None if there is no such process, or it is a zombie; "" if the system does
    not say.
  """
  if not atomic.process_exists(pid):
    return None
  with contextlib.suppress(OSError):
    if _LINUX.is_dir():
      # Fields 3 to 52, after the command's name, which may hold anything.
      fields = (_LINUX / f"{pid}/stat").read_text().rpartition(")")[2].split()
      return None if fields[0] in "ZX" else fields[19]
    return subprocess.run(
      ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True
    ).stdout.strip()
  return ""


def _is_local_disk(folder: paths.AnyPath) -> bool:
  """Whether this folder's disk is one that only this machine can mount."""
  if paths.is_remote(folder):
    return False
  with contextlib.suppress(OSError, ValueError):
    device = os.stat(folder).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in (_LINUX / "self/mountinfo").read_text().splitlines():
      mount, _, disk = line.partition(" - ")
      if mount.split()[2] == wanted:
        return disk.split()[0] in _LOCAL_DISKS.split()
  return False


@contextlib.contextmanager
def _one_at_a_time(folder: paths.AnyPath) -> Iterator[None]:
  """Lets the processes of a machine examine a folder's locks in turn.

  Otherwise two of them could both take over the lock of a third that has
  ended. The system releases this flock when a process dies.
  """
  if paths.is_remote(folder):
    yield
    return
  name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
  place = pathlib.Path(tempfile.gettempdir()) / f"mipd_jax_{name}.turn"
  with contextlib.ExitStack() as stack:
    with contextlib.suppress(OSError):  # another user's: go on without
      file = stack.enter_context(place.open("a"))
      fcntl.flock(file, fcntl.LOCK_EX)
    yield
