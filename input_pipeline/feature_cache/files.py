"""Files that are written whole or not at all, and what a full disk says."""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from input_pipeline.io import atomic, json_files, paths
from input_pipeline.io.errors import InputError, is_full

TEMPORARY = ".tmp"


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


def read_json(path: Path, shown: paths.AnyPath | None = None) -> object:
  """Parses a file of a cache; `shown` is its name in messages.

  Raises:
    InputError: it is damaged.
  """
  shown = shown or path
  try:
    return json_files.parse(json_files.read_text(path), str(path))
  except InputError as error:
    said = error.problem.removeprefix(f"{path} ")
    raise InputError(
      f"{shown} cannot be read: it {said}",
      "delete the cache folder and prepare it again",
    ) from error


def read_checked(path: Path, sha256: str | None) -> bytes:
  """The bytes of a small file; `sha256` is what they were when written.

  Raises:
    InputError: it cannot be read, or has other bytes.
  """
  try:
    data = path.read_bytes()
  except OSError as error:
    raise damaged(path, error.strerror or str(error)) from error
  if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
    raise damaged(path, "it is not what was written: its sha256 differs")
  return data


def damaged(path: Path, reason: str, records: Sequence[int] = ()) -> InputError:
  """The error for a file of a cache that can't be what it was."""
  which = f", record {', '.join(map(str, records[:5]))}" if records else ""
  return InputError(
    f"{path}{which} cannot be read: {reason}",
    "delete that file and prepare the cache again into the same folder",
  )
