"""Paths on this machine and in buckets (gs://...)."""

import os
import pathlib

from etils import epath

from input_pipeline.io.errors import InputError

AnyPath = pathlib.Path | epath.Path
_SCHEME, _BUCKETS = "://", "gs://"


def is_remote(where: str | os.PathLike[str]) -> bool:
  """Whether a path is a URL such as gs://bucket/folder."""
  return _SCHEME in os.fspath(where)


def absolute(where: str | os.PathLike[str]) -> AnyPath:
  """`path`, made absolute if it is on this machine."""
  return path(where) if is_remote(where) else pathlib.Path(where).absolute()


def path(where: str | os.PathLike[str]) -> AnyPath:
  """A pathlib path on this machine, or an epath path in a bucket.

  epath has the same methods, but no locks, links or modes, and renaming a
  folder copies it. Write files with `atomic.replacing`, which handles both.

  Raises:
    InputError: it is a URL other than gs://.
  """
  if not is_remote(where):
    return pathlib.Path(where)
  if not os.fspath(where).startswith(_BUCKETS):
    raise InputError(
      f"{os.fspath(where)} is neither on this machine nor in a {_BUCKETS} "
      "bucket",
      "copy it to this machine first",
    )
  return epath.Path(where)
