"""What surrounds a build: quiet libraries, and room on the disk."""

import contextlib
import io
import logging
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from input_pipeline.io import errors
from input_pipeline.io.errors import InputError


def make_folder(
  folder: pathlib.Path,
  what: str = "datasets",
  argument: str = "--data-dir, or the folder of --config.dataset.folder",
) -> None:
  """Makes a folder and tries to write there, before anything long.

  Args:
    folder: where to.
    what: what will be written, for the message.
    argument: what names the folder on the command line.

  Raises:
    InputError: it cannot be made, or not written.
  """
  try:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
      pass
  except OSError as error:
    raise InputError(
      f"{folder}: {what} cannot be written there: {error.strerror or error}",
      f"give a folder that you may write to ({argument})",
    ) from None


@contextlib.contextmanager
def room_for(need: int, data_dir: pathlib.Path) -> Iterator[None]:
  """Makes a folder and says in words if the disk is too full for a build.

  Args:
    need: bytes that will be written there, about.
    data_dir: where to.

  Raises:
    InputError: at once where there is too little room, or later where the
      disk fills up all the same.
  """
  make_folder(data_dir)
  free = shutil.disk_usage(data_dir).free
  if need > free:
    raise _full(data_dir, need, free)
  try:
    yield
  except Exception as error:
    if errors.is_full(error) or errors.is_full(error.__cause__ or error):
      free = shutil.disk_usage(data_dir).free
      raise _full(data_dir, need, free) from error
    raise


@contextlib.contextmanager
def quiet() -> Iterator[None]:
  """Hides TFDS's talk of downloads (there are none), not its progress bars."""
  logger = logging.getLogger("absl")
  level = logger.level
  logger.setLevel(logging.ERROR)
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      yield
  finally:
    logger.setLevel(level)


def _full(data_dir: pathlib.Path, need: int, free: int) -> InputError:
  return InputError(
    f"{data_dir} has no room for the dataset, or a quota is reached: "
    f"{free / 1e6:.0f} MB are free, it needs about {need / 1e6:.0f} MB",
    "make room there, or choose another data directory",
  )
