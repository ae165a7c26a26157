"""Entries of a JSON list one after another, however long the list is."""

import json
import pathlib
from collections.abc import Iterator
from typing import Any

from input_pipeline.errors import InputError

_PIECE = 1 << 20  # characters read at a time
# An error further from the end than this is no entry that is still to come.
_TAIL = 4096
_UNTERMINATED = "Unterminated string"
_SPACE = " \t\n\r"


def entries(path: str | pathlib.Path) -> Iterator[dict[str, Any]]:
  """Yields the objects of the list that a file holds.

  Never more than one entry and a piece of the file are in memory.

  Raises:
    InputError: the file is missing, cut off, no JSON, or no list of objects.
  """
  try:
    with open(path, encoding="utf-8") as file:
      yield from _Reader(path, file).entries()
  except FileNotFoundError:
    raise InputError(f"{path} is missing", "put the file there") from None
  except IsADirectoryError:
    raise InputError(f"{path} is a folder", "give a file") from None
  except UnicodeDecodeError as error:
    raise InputError(
      f"{path} is not UTF-8 text: byte {error.start}",
      "copy or make the file again",
    ) from None


class _Reader:
  """Reads a file piece by piece and parses what is there."""

  def __init__(self, path: str | pathlib.Path, file):
    self._path, self._file = path, file
    self._text, self._at = "", 0
    self._decode = json.JSONDecoder().raw_decode
    self._done = 0  # entries

  def entries(self) -> Iterator[dict[str, Any]]:
    """See `entries` above."""
    if self._take() != "[":
      raise InputError(
        f"{self._path} holds no list of entries",
        "give a JSON list with one object per image",
      )
    mark = self._take() if self._next() == "]" else ","
    while mark == ",":
      if self._next() != "{":
        raise self._broken("an object is missing")
      yield self._entry()
      self._done += 1
      mark = self._take()
    if mark != "]":
      raise self._broken("a comma or the end of the list is missing")
    if self._next():
      raise self._broken("something follows the list")

  def _take(self) -> str:
    """The next character that is no space; '' at the end."""
    found = self._next()
    self._at += 1
    return found

  def _next(self) -> str:
    """The next character that is no space, without taking it; '' at the end."""
    while True:
      while self._at < len(self._text) and self._text[self._at] in _SPACE:
        self._at += 1
      if self._at < len(self._text):
        return self._text[self._at]
      if not self._more():
        return ""

  def _more(self) -> bool:
    piece = self._file.read(max(_PIECE, len(self._text) - self._at))
    self._text, self._at = self._text[self._at :] + piece, 0
    return bool(piece)

  def _entry(self) -> dict[str, Any]:
    while True:
      try:
        found, self._at = self._decode(self._text, self._at)
        return found
      except json.JSONDecodeError as error:
        near_end = error.pos >= len(self._text) - _TAIL
        unfinished = near_end or error.msg.startswith(_UNTERMINATED)
        if not (unfinished and self._more()):
          raise self._broken(error.msg) from None
      except RecursionError:
        raise self._broken("it is nested too deeply") from None

  def _broken(self, what: str) -> InputError:
    return InputError(
      f"{self._path} is cut off or is not JSON: {what}, after entry "
      f"{self._done} (counted from 1)",
      "copy or make the file again",
    )
