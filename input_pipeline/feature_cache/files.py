"""Files that are written whole or not at all, and what a full disk says."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from input_pipeline import atomic
from input_pipeline.errors import InputError

TEMPORARY = ".tmp"
_FULL = {errno.ENOSPC: "full", errno.EDQUOT: "over quota", errno.EFBIG: "full"}
# array_record reports the system's words, without the number.
_FULL_WORDS = tuple(os.strerror(number) for number in _FULL)


def is_full(error: BaseException) -> bool:
  """Whether an error of Python or of array_record means: no more space."""
  if isinstance(error, OSError):
    return error.errno in _FULL
  return any(words in str(error) for words in _FULL_WORDS)


def full_disk(folder: Path, needed: int | None = None) -> InputError:
  """The error for a disk that has no space; `needed` in bytes."""
  free = "?"
  with contextlib.suppress(OSError):
    free = megabytes(shutil.disk_usage(folder).free)
  more = "" if needed is None else f"; {megabytes(needed)} are still to write"
  return InputError(
    f"no space left (or a file size limit reached) while writing the cache in "
    f"{folder}: {free} are free{more}",
    "free space there, or choose another cache folder; run the same command "
    "again and the finished shards are kept",
  )


def megabytes(size: int) -> str:
  return f"{size / 1e6:,.1f} MB"


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
  """Yields a temporary path; renames it to `path` if the block succeeds.

  The data is on the disk before the name is, and no temporary file stays
  behind when the block fails.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(path.name + TEMPORARY)
  try:
    yield temporary
    atomic.publish(temporary, path)
  except BaseException:
    temporary.unlink(missing_ok=True)
    raise


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
  """Runs `write(temporary)` and renames; a full disk raises InputError."""
  try:
    with whole(path) as temporary:
      write(temporary)
  except (OSError, RuntimeError) as error:
    if is_full(error):
      raise full_disk(path.parent) from error
    raise


def sha256(path: Path) -> str:
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, data: dict) -> None:
  text = json.dumps(data, indent=1, sort_keys=True) + "\n"
  write_whole(path, lambda temporary: temporary.write_text(text))


def read_json(path: Path) -> dict:
  try:
    return json.loads(path.read_text())
  except (OSError, ValueError) as error:
    raise InputError(
      f"{path} cannot be read: {error}",
      "delete the cache folder and prepare it again",
    ) from error
