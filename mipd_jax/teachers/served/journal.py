"""Answers of a server, kept one by one as they arrive.

A file that only grows: a line {"key", "answer"} for each. A process that is
killed while it writes leaves half a line at most, which the next one cuts off.
"""

import json
import os
import pathlib
import threading
import time
from typing import Any

from input_pipeline.io import json_files
from input_pipeline.io.errors import InputError

_FORM = {"key": str, "answer": object}
# Seconds between two calls that have the disk write out what it was given: a
# machine that loses its power loses the answers since.
_SYNC = 5.0


class Journal:
  """The answers of one file; any thread may add some."""

  def __init__(self, path: str | os.PathLike):
    """Reads what an earlier process kept.

    Raises:
      InputError: the file is damaged in other places than its end.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    self._answers = _read(path)
    self._file = path.open("a", encoding="ascii")
    self._lock = threading.Lock()
    self._synced = time.monotonic()

  def __contains__(self, key: str) -> bool:
    return key in self._answers

  def __getitem__(self, key: str) -> Any:
    return self._answers[key]

  def add(self, key: str, answer: Any) -> None:
    """Keeps an answer: when this returns, the system has it."""
    line = json.dumps({"key": key, "answer": answer}) + "\n"
    with self._lock:
      self._file.write(line)
      self._file.flush()
      if time.monotonic() - self._synced > _SYNC:
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()
      self._answers[key] = answer

  def close(self) -> None:
    self._file.close()


def _read(path: pathlib.Path) -> dict[str, Any]:
  """The answers of a file; cuts off half a line at its end."""
  if not path.exists():
    return {}
  remedy = "delete this file: its texts are asked again"
  with json_files.naming(path, remedy), path.open("r+b") as file:
    whole, _, rest = file.read().rpartition(b"\n")
    if rest:
      file.truncate(len(whole) + 1 if whole else 0)
  answers = {}
  for number, line in enumerate(whole.split(b"\n") if whole else (), 1):
    where = f"{path}, line {number}"
    try:
      text = line.decode("ascii")
    except UnicodeDecodeError:
      raise InputError(f"{where} is damaged", remedy) from None
    record = json_files.parse(text, where, _FORM, remedy)
    answers[record["key"]] = record["answer"]
  return answers
