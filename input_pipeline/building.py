"""What surrounds a build: quiet libraries, and room on the disk."""

import contextlib
import io
import logging
import pathlib
import shutil
from collections.abc import Iterator

from input_pipeline.errors import InputError

_FULL_DISK = "No space left on device"


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
  data_dir.mkdir(parents=True, exist_ok=True)
  free = shutil.disk_usage(data_dir).free
  if need > free:
    raise _full(data_dir, need, free)
  try:
    yield
  except Exception as error:
    # Libraries wrap the OSError, or only quote its text.
    if _FULL_DISK in str(error):
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
    f"{data_dir} has {free / 1e6:.0f} MB free, the dataset needs about "
    f"{need / 1e6:.0f} MB",
    "make room there, or choose another data directory",
  )
