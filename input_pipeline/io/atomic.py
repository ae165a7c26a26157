"""Files and folders that are written whole or not at all.

A file being written has a temporary name that holds its machine and process.
The leftovers of a killed process are removed when another process first writes
to the same folder.
"""

import contextlib
import os
import pathlib
import re
import shutil
import socket
import tempfile
import zlib
from collections.abc import Iterator

from input_pipeline.io import paths
from input_pipeline.io.errors import InputError

_PIECE = 2**24
# This machine, as a part of temporary names.
_HOST = f"{zlib.crc32(socket.gethostname().encode()):08x}"
_LEFT = re.compile(rf"\..+\.{_HOST}-(\d+)\.(tmp(\..*)?|\w{{8}})")
# Folders from which this process has removed the leftovers of others.
_swept: set[tuple[int, pathlib.Path]] = set()


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
  """Yields a temporary path and renames it to `path` on success.

  The temporary file is on this machine: beside `path`, or in the temporary
  folder if `path` is in a bucket, where an upload appears whole or not at all.
  It keeps the suffix, by which image writers choose the format. Parent folders
  are made. An exception leaves nothing behind.
  """
  if paths.is_remote(path):
    with _uploading(paths.path(path)) as temporary:
      yield temporary
    return
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  _sweep(path.parent)
  tag = f"{_HOST}-{os.getpid()}"
  temporary = path.with_name(f".{path.stem}.{tag}.tmp{path.suffix}")
  try:
    yield temporary
    publish(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _uploading(path: paths.AnyPath) -> Iterator[pathlib.Path]:
  with tempfile.TemporaryDirectory() as folder:
    temporary = pathlib.Path(folder) / path.name
    yield temporary
    path.parent.mkdir(parents=True, exist_ok=True)
    copy(temporary, path)


@contextlib.contextmanager
def new_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields a temporary folder and renames it to `path` on success.

  It is beside `path`; parent folders are made. An exception leaves nothing
  behind.

  Raises:
    OSError: the folder cannot be made, or `path` exists.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  _sweep(path.parent)
  prefix = f".{path.name}.{_HOST}-{os.getpid()}."
  temporary = pathlib.Path(tempfile.mkdtemp(prefix=prefix, dir=path.parent))
  try:
    yield temporary
    temporary.chmod(0o755)
    temporary.rename(path)
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def _sweep(folder: pathlib.Path) -> None:
  """Removes leftovers of this machine's killed processes, once a process."""
  key = os.getpid(), folder.absolute()
  if key in _swept:
    return
  _swept.add(key)
  with contextlib.suppress(OSError):
    for entry in list(os.scandir(folder)):
      leftover = _LEFT.fullmatch(entry.name)
      if leftover is None or process_exists(int(leftover[1])):
        continue
      with contextlib.suppress(OSError):
        if entry.is_dir(follow_symlinks=False):
          shutil.rmtree(entry.path)
        else:
          os.unlink(entry.path)


def process_exists(pid: int) -> bool:
  """Whether this machine has such a process, even one of another user."""
  try:
    os.kill(pid, 0)
  except (ProcessLookupError, OverflowError):
    return False
  except OSError:  # another user's
    pass
  return True


def check_target(path: str | os.PathLike[str], flag: str) -> None:
  """Raises InputError if a file cannot be written; call it before long work.

  Args:
    path: the file to write later.
    flag: the command-line flag that gives it, for the message.
  """
  if paths.is_remote(path):
    return
  path = pathlib.Path(path)
  remedy = f"give another {flag}"
  if path.is_dir():
    raise InputError(f"{path} is a folder, {flag} names a file", remedy)
  parent = path.absolute().parent
  while not parent.exists() and parent != parent.parent:
    parent = parent.parent
  if not parent.is_dir():
    raise InputError(
      f"cannot write {path}: {parent} is a file, not a folder", remedy
    )
  if not os.access(parent, os.W_OK | os.X_OK):
    raise InputError(f"cannot write {path}: {parent} is not writable", remedy)


def check_folder(where: str | os.PathLike[str], flag: str) -> None:
  """Raises InputError unless a folder can be written, or made.

  Makes a folder in or beside it and removes that at once, so that long work
  does not end with nowhere to keep its results. For a bucket, only the form
  of the name is checked.

  Args:
    where: the folder.
    flag: what the user called it, such as "--out".
  """
  path = paths.absolute(where)
  if paths.is_remote(where):
    return
  there = path
  try:
    while not os.path.lexists(there):
      there = there.parent
    if not there.is_dir():
      what = "a link to nothing" if there.is_symlink() else "a file"
      raise InputError(
        f"{flag}={os.fspath(where)}: {there} is {what}", "name another folder"
      )
    with tempfile.TemporaryDirectory(dir=there) as probe:
      if there != path:  # the disk may also refuse the names
        pathlib.Path(probe, *path.relative_to(there).parts).mkdir(parents=True)
  except OSError as error:
    raise InputError(
      f"{flag}={os.fspath(where)} cannot be written: "
      f"{error.strerror or error} ({there})",
      "name another folder, or make this one writable",
    ) from error


def copy(source: paths.AnyPath, target: paths.AnyPath) -> None:
  """Copies a file piece by piece; either end may be in a bucket."""
  with source.open("rb") as reader, target.open("wb") as writer:
    shutil.copyfileobj(reader, writer, _PIECE)


def publish(temporary: pathlib.Path, path: pathlib.Path) -> None:
  """Renames a finished file to `path` once its data is on the disk."""
  descriptor = os.open(temporary, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)
  os.replace(temporary, path)
