"""Folders in buckets (gs://...), copied to this machine and back.

Caches and datasets are read in many small pieces, in random order. A bucket is
too slow for that, so its folder is copied once to a fast disk.
"""

import concurrent.futures
import os
import pathlib
from collections.abc import Iterator

from input_pipeline.io import atomic, lock, paths
from input_pipeline.io.errors import InputError
from input_pipeline.io.progress import Progress

# Environment variable: the folder that holds the copies, each under its
# bucket's name. The home folder's cache if it is not set.
PLACE = "MIPD_LOCAL"
_THREADS = 32


def local(where: str | os.PathLike[str]) -> pathlib.Path:
  """The local folder: `where` itself, or the copy of a bucket's folder."""
  if not paths.is_remote(where):
    return pathlib.Path(where)
  place = os.environ.get(PLACE) or "~/.cache/mipd_jax/buckets"
  scheme, _, rest = os.fspath(where).partition("://")
  return pathlib.Path(place).expanduser() / scheme / rest


def fetch(where: str | os.PathLike[str], last: str = "") -> pathlib.Path:
  """Copies the files of a bucket's folder that this machine lacks.

  Files of equal size count as equal, because no file changes once it is
  whole. A copy that was stopped continues.

  Args:
    where: gs://BUCKET/FOLDER; a local folder is returned as it is.
    last: name of a file that is copied after all others; its presence means
      that all are there.

  Returns:
    The folder on this machine.

  Raises:
    InputError: there is no such folder, or the bucket cannot be read.
  """
  if not paths.is_remote(where):
    return pathlib.Path(where)
  here = local(where)
  try:
    sizes = dict(_files(paths.path(where)))
  except Exception as error:  # every backend has errors of its own
    raise _cannot("read", where, error) from error
  if not sizes:
    raise InputError(
      f"{where}: no such folder, or nothing in it",
      "check the names of the bucket and the folder",
    )
  missing = [n for n, size in sizes.items() if _size(here / n) != size]
  _copy_all(paths.path(where), here, missing, last, f"fetch {here.name}")
  return here


def upload(where: str | os.PathLike[str], last: str = "") -> None:
  """Copies the files of the local copy that a bucket's folder lacks."""
  here, there = local(where), paths.path(where)
  sizes = {
    str(p.relative_to(here)): p.stat().st_size
    for p in sorted(here.rglob("*"))
    if p.is_file() and not lock.is_lock(p.name)
  }
  try:
    have = dict(_files(there)) if there.exists() else {}
  except Exception as error:
    raise _cannot("read", where, error) from error
  missing = [n for n, size in sizes.items() if have.get(n) != size]
  _copy_all(here, there, missing, last, f"upload {here.name}")


def _files(folder: paths.AnyPath, prefix: str = "") -> Iterator[tuple]:
  """(path below the folder, size in bytes) of all files except locks."""
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
    "check the bucket's name, this machine's access to it (`gcloud storage "
    "ls`) and the free disk space; the same command continues",
  )
