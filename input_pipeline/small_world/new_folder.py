"""Writing the folder of a small world of either kind."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from input_pipeline.io import atomic
from input_pipeline.io.errors import InputError


@contextlib.contextmanager
def new_folder(out: str | os.PathLike) -> Iterator[pathlib.Path]:
  """Yields a folder to fill; it is renamed to `out` when it is complete.

  Raises:
    InputError: `out` exists already, or cannot be written.
  """
  out = pathlib.Path(out)
  if out.exists():
    raise InputError(
      f"{out} exists already", "give another folder, or delete this one first"
    )
  try:
    with atomic.new_folder(out) as part:
      yield part
  except OSError as error:
    raise InputError(
      f"{out}: cannot be written: {error.strerror or error}",
      "give a folder on a disk with about 100 MB free that you may write to",
    ) from error


def write_json(path: pathlib.Path, content: Any) -> None:
  """Writes one line of JSON."""
  path.write_text(json.dumps(content) + "\n")
