"""Folders in buckets (gs://...), copied to this machine and back.

Caches and datasets are read at random, many small pieces at a time, which a
bucket is too slow for; so a folder there is copied once to a fast disk.
"""

import concurrent.futures
import os
import pathlib
from collections.abc import Iterator

from input_pipeline.io import atomic, lock, paths
from input_pipeline.io.errors import InputError
from input_pipeline.io.progress import Progress

# Below it the copies lie, under the bucket's name; the home folder's cache if
# it is not set.
PLACE = "MIPD_LOCAL"
_THREADS = 32


def local(where: str | os.PathLike[str]) -> pathlib.Path:
  """Where a folder lies on this machine: itself, or a bucket's copy."""
  if not paths.is_remote(where):
    return pathlib.Path(where)
  place = os.environ.get(PLACE) or "~/.cache/mipd_jax/buckets"
  scheme, _, rest = os.fspath(where).partition("://")
  return pathlib.Path(place).expanduser() / scheme / rest


def fetch(where: str | os.PathLike[str], last: str = "") -> pathlib.Path:
  """Copies what this machine lacks of a bucket's folder.

  Files of equal size count as the same: nothing here changes a file once it
  is whole. A copy that was stopped continues.

  Args:
    where: gs://BUCKET/FOLDER; a local folder is returned as it is.
    last: name of a file that is copied after all others, because its being
      there means that all are.

  Returns:
    The folder on this machine.

  Raises:
    InputError: there is no such folder, or the bucket cannot be read.
  """
  if not paths.is_remote(where):
    return pathlib.Path(where)
  here = local(where)
  try:
    found = dict(_files(paths.path(where)))
  except Exception as error:  # every backend has errors of its own
    raise _cannot("read", where, error) from error
  if not found:
    raise InputError(f"{where}: no such folder, or nothing in it", "mend it")
  missing = [n for n, size in found.items() if _size(here / n) != size]
  _copy_all(paths.path(where), here, missing, last, f"fetch {here.name}")
  return here


def upload(where: str | os.PathLike[str], last: str = "") -> None:
  """Copies what a bucket's folder lacks of this machine's copy of it."""
  here, there = local(where), paths.path(where)
  found = {
    str(p.relative_to(here)): p.stat().st_size
    for p in sorted(here.rglob("*"))
    if p.is_file() and not lock.is_lock(p.name)
  }
  try:
    have = dict(_files(there)) if there.exists() else {}
  except Exception as error:
    raise _cannot("read", where, error) from error
  missing = [n for n, size in found.items() if have.get(n) != size]
  _copy_all(here, there, missing, last, f"upload {here.name}")


def _files(folder: paths.AnyPath, prefix: str = "") -> Iterator[tuple]:
  """(name below the folder, bytes) of all files but locks."""
  for path in sorted(folder.iterdir()):
    name = prefix + path.name
    if path.is_dir():
      yield from _files(path, f"{name}/")
    elif not lock.is_lock(path.name):
      yield name, path.stat().length


def _size(path: pathlib.Path) -> int | None:
  return path.stat().st_size if path.is_file() else None


def _copy_all(source, target, names: list[str], last: str, what: str) -> None:
  def copy(name: str) -> None:
    if paths.is_remote(target):  # appears whole or not at all
      (target / name).parent.mkdir(parents=True, exist_ok=True)
      atomic.copy(source / name, target / name)
      return
    with atomic.replacing(target / name) as temporary:
      atomic.copy(source / name, temporary)

  first = [name for name in names if name != last]
  with (
    concurrent.futures.ThreadPoolExecutor(_THREADS) as pool,
    Progress(what, len(names), "files") as progress,
  ):
    try:
      for _ in pool.map(copy, first):
        progress.advance()
      if last in names:
        copy(last)
        progress.advance()
    except Exception as error:
      raise _cannot("copy", source, error) from error


def _cannot(verb: str, where: object, error: Exception) -> InputError:
  return InputError(
    f"cannot {verb} {where}: {error}",
    "check the bucket's name and this machine's right to it (`gcloud storage "
    "ls`), and the space on the disk; the same command continues",
  )
