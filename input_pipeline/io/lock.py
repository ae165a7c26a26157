"""A folder that one run at a time may write: who holds it, and since when.

The lock is a small file in the folder that names the process. It is made with
a name of its own or not at all, which needs no flock and so works on network
disks too, and it is deleted when the work ends. A process that was killed
leaves its lock behind. On its own machine that is seen at once (no such
process, or one that started at another time) and the lock is taken over. From
another machine it shows in the file, which a living process writes anew every
few seconds: whoever wants the folder watches it for a minute.

Folders in buckets (gs://...) get the same file as an object. A bucket has no
exclusive creation here, so two processes that start within the same second
may both get it; later ones are refused.
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

from input_pipeline.io import json_files, paths
from input_pipeline.io.errors import InputError

# Files of this name, with the number of the process behind it.
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
# Seconds between the signs of life of a lock, and how long another machine
# waits for one. A machine that was taken back is found out by this.
_BEAT, _WATCH = 15.0, 60.0
# Seconds in which a lock that is being written gets its contents.
_WRITING = 1.0
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Holder:
  """The process that a lock names.

  Attributes:
    what: what it does, in a few words: "preparing a cache".
    host, boot, namespace: its machine, the start of that machine, and the
      container. Process numbers mean something only within all three.
    pid, started: its number, and when it started: numbers are used again.
    since: when it took the lock, for people.
    token: differs between any two locks.
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
    folder: of this machine or a bucket; made if absent.
    what: what this process does there, in a few words: "preparing a cache".
    index, count: of processes that share the folder on purpose, which one
      this is. They exclude processes of the same index and of other counts.

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
  """Raises InputError if `holding` would; to know before long work."""
  folder = paths.path(folder)
  if folder.is_dir():
    _clear(folder / f"{LOCK}.{index}-of-{count}")
    _refuse_other_counts(folder, count)


def is_lock(name: str) -> bool:
  """Whether a file of this name in a folder is a lock, or one half made."""
  return name.startswith(LOCK + ".")


def _take(path: paths.AnyPath, mine: Holder) -> None:
  """Makes the lock, in place of one whose process has ended."""
  text = json.dumps(dataclasses.asdict(mine), indent=1) + "\n"
  if not _create(path, text):
    _clear(path)
    if not _create(path, text):
      _clear(path)  # somebody was faster, and holds it
      raise InputError(
        f"{path} appears and disappears: several processes start at once",
        "start one of them",
      )


def _beat(path: paths.AnyPath, mine: Holder, ended: threading.Event) -> None:
  """Writes the lock anew every few seconds, until it has ended."""
  number = 0
  while not ended.wait(_BEAT):
    number += 1
    # A disk that is away for a moment is no reason to end a run.
    with contextlib.suppress(OSError, InputError):
      if _holder(path) != mine:
        return  # deleted, or taken over: not ours any more
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
  """Whether a lock of another machine is written within a minute, or goes."""
  _log.warning(
    "%s is locked by %s: watching for up to %.0f s whether that still runs.",
    *(path.parent, holder, _WATCH),
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
  """Makes a file unless it is there; whole at once where links are known."""
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
  """Makes a file unless it is there; none is left that is half written."""
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
  """Others of the same count are of this run; of another, of another run."""
  for path in sorted(folder.iterdir()):
    if not is_lock(path.name):
      continue
    if path.suffix == ".tmp":  # of a process that was killed
      _sweep(path)
    elif not path.name.endswith(f"-of-{count}"):
      _clear(path)


def _sweep(temporary: paths.AnyPath) -> None:
  with contextlib.suppress(OSError):
    if time.time() - os.stat(temporary).st_mtime > 60:
      temporary.unlink(missing_ok=True)


def _clear(path: paths.AnyPath) -> None:
  """Deletes the lock of a process that has ended; InputError if it lives."""
  holder = _holder(path)
  if holder is None:
    return
  lives = _lives(holder, path.parent)
  if lives is None:
    lives = _shows_life(path, holder)
  if not lives:
    _log.warning(
      "%s was in use by %s, which has ended without a word; going on.",
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
  """Who a lock names; None if there is no lock.

  Raises:
    InputError: the file says nothing that makes sense.
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
  """Whether a holder still runs; None where that cannot be known."""
  machine = holder.host, holder.boot, holder.namespace
  if machine == _machine():
    started = _started(holder.pid) if holder.pid > 0 else None
    if started is None:
      return False
    return "" in (started, holder.started) or started == holder.started
  if holder.boot not in ("", _machine()[1]) and _is_local_disk(folder):
    return False  # before this machine was started again
  return None


def _machine() -> tuple[str, str, str]:
  """This host's name, what marks its last start, and the container."""
  boot = namespace = ""
  with contextlib.suppress(OSError):
    boot = (_LINUX / "sys/kernel/random/boot_id").read_text().strip()
    namespace = os.readlink(_LINUX / "self/ns/pid")
  return socket.gethostname(), boot, namespace


def _started(pid: int) -> str | None:
  """When a process started, in words of the system.

  Returns:
    None if there is no such process, or it has ended and nobody has asked
    how; "" if the system won't tell.
  """
  try:
    os.kill(pid, 0)
  except (ProcessLookupError, OverflowError):
    return None
  except PermissionError:  # another user's
    pass
  with contextlib.suppress(OSError):
    if _LINUX.is_dir():
      # Behind the command's name, which may hold anything: fields 3 to 52.
      fields = (_LINUX / f"{pid}/stat").read_text().rpartition(")")[2].split()
      return None if fields[0] in "ZX" else fields[19]
    return subprocess.run(
      ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True
    ).stdout.strip()
  return ""


def _is_local_disk(folder: paths.AnyPath) -> bool:
  """Whether no other machine can have this folder's disk mounted."""
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
  """Lets the processes of a machine look at a folder's locks in turn.

  So that two of them don't take over one lock of a third that has ended. The
  system gives this up for a process that dies.
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
