"""Streams the entries of a JSON list of any length."""

import codecs
import json
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

from input_pipeline.io import json_files
from input_pipeline.io.errors import InputError

_PIECE = 1 << 20  # characters read at a time
# An error further from the end than this is not an unfinished entry.
_TAIL = 4096
_UNTERMINATED = "Unterminated string"
_SPACE = " \t\n\r"
# First bytes of other formats in which detections are often kept.
_BINARY = (
  (b"MATLAB", "a MATLAB file"),
  (b"\x89HDF", "an HDF5 file (or MATLAB 7.3)"),
  (b"PK\x03\x04", "a zip archive (PyTorch's or numpy's)"),
  (b"\x80", "a Python pickle"),
  (b"\x93NUMPY", "a numpy array"),
  (b"\x1f\x8b", "a gzip file"),
)
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_AGAIN = "copy or make the file again"


def entries(path: str | pathlib.Path) -> Iterator[dict[str, Any]]:
  """Yields the objects of the list in a file.

  Only one entry and a piece of the file are in memory at a time.

  Raises:
    InputError: the file is missing, truncated, not JSON, or not a list of
      objects.
  """
  with json_files.naming(path, _AGAIN):
    _refuse_binary(path)
    with open(path, encoding="utf-8-sig") as file:
      yield from _Reader(path, file).entries()


def _refuse_binary(path: str | pathlib.Path) -> None:
  with open(path, "rb") as file:
    first = file.read(8)
  for start, what in _BINARY:
    if first.startswith(start):
      raise InputError(
        f"{path} is {what}, not JSON",
        "write its content as JSON; docs/hico_det.md shows the forms",
      )
  if first[:2] in _UTF16 or b"\0" in first:
    raise InputError(f"{path} is UTF-16 text, or no text", "save it as UTF-8")


class _Reader:
  """Reads and parses a file piece by piece."""

  def __init__(self, path: str | pathlib.Path, file):
    self._path, self._file = path, file
    self._text, self._at = "", 0
    self._decode = json.JSONDecoder(
      object_pairs_hook=json_files.no_repeats
    ).raw_decode
    self._done = 0  # entries

  def entries(self) -> Iterator[dict[str, Any]]:
    """See `entries` above."""
    if (first := self._take()) != "[":
      what = {"": " (it is empty)", "{": " (JSON lines, or an object?)"}
      raise InputError(
        f"{self._path} holds no list of entries{what.get(first, '')}",
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
    """Consumes the next character that is not a space; '' at the end."""
    character = self._next()
    self._at += 1
    return character

  def _next(self) -> str:
    """The next character that is not a space, not consumed; '' at the end."""
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
        entry, end = self._decode(self._text, self._at)
        break
      except json.JSONDecodeError as error:
        near_end = error.pos >= len(self._text) - _TAIL
        unfinished = near_end or error.msg.startswith(_UNTERMINATED)
        if not (unfinished and self._more()):
          raise self._broken(error.msg) from None
      except RecursionError:
        raise self._broken("it is nested too deeply") from None
      except json_files.RepeatedKey as error:
        raise InputError(
          f"{self._path} has the key {error.args[0]!r} twice in one object, "
          f"after entry {self._done} (counted from 1)",
          "keep one of the two",
        ) from None
      except ValueError:  # of int: more digits than Python converts
        digits = sys.get_int_max_str_digits()
        raise InputError(
          f"{self._path} has a whole number of more than {digits} digits, "
          f"after entry {self._done} (counted from 1)",
          _AGAIN,
        ) from None

    # Rare, so the text is searched first.
    if json_files.SURROGATE.search(self._text, self._at, end) and (
      json_files.has_half(entry)
    ):
      raise InputError(
        f"{self._path} has half a character, such as \\ud83d without its other "
        f"half, after entry {self._done} (counted from 1)",
        _AGAIN,
      )
    self._at = end
    return entry

  def _broken(self, what: str) -> InputError:
    return InputError(
      f"{self._path} is cut off or is not JSON: {what}, after entry "
      f"{self._done} (counted from 1)",
      _AGAIN,
    )
