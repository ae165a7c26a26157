"""Files that are written whole or not at all."""

import contextlib
import os
import pathlib
from collections.abc import Iterator


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
  """Yields a temporary name beside `path` and renames it when all went well.

  The temporary name keeps the suffix, from which image writers take the
  format. Parent folders are made. After an exception nothing is left.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
  try:
    yield temporary
    publish(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


def publish(temporary: pathlib.Path, path: pathlib.Path) -> None:
  """Gives a finished file its name, once its data is on the disk."""
  descriptor = os.open(temporary, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)
  os.replace(temporary, path)
