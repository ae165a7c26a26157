"""Paths of this machine, and of buckets (gs://...)."""

import os
import pathlib

from etils import epath

AnyPath = pathlib.Path | epath.Path
_SCHEME = "://"


def is_remote(where: str | os.PathLike[str]) -> bool:
  """Whether a path is a URL such as gs://bucket/folder."""
  return _SCHEME in os.fspath(where)


def absolute(where: str | os.PathLike[str]) -> AnyPath:
  """`path`, from the root where it is of this machine."""
  return path(where) if is_remote(where) else pathlib.Path(where).absolute()


def path(where: str | os.PathLike[str]) -> AnyPath:
  """pathlib's path of this machine, or epath's of a bucket.

  epath's has the same methods, but no locks, links or modes, and renaming a
  folder copies it. Write files with `atomic.replacing`, which knows both.
  """
  return epath.Path(where) if is_remote(where) else pathlib.Path(where)
