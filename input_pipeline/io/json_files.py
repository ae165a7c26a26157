"""Strict reading of text and JSON files that others wrote.

Any fault of a file (missing, a folder, not UTF-8, truncated, a repeated key,
nested too deeply, a number of thousands of digits, another shape than
expected) becomes an `InputError` that names the file and the place in it. The
byte order mark that Windows editors write is not part of the text.
"""

import codecs
import collections
import contextlib
import hashlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from input_pipeline.io import paths
from input_pipeline.io.errors import InputError

_GZIP = b"\x1f\x8b"
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_AGAIN = "copy or download the file again"
# Key under which an object holds the digest of its other keys.
SEAL = "sha256"
_NAMES = {
  dict: "an object",
  list: "a list",
  str: "a text",
  int: "a whole number",
  float: "a number",
  bool: "true or false",
  type(None): "null",
}


def read_text(path: paths.AnyPath | str, remedy: str = _AGAIN) -> str:
  """The text of a UTF-8 file, without a byte order mark.

  Args:
    path: on this machine or in a bucket.
    remedy: what to do about a damaged file.

  Raises:
    InputError: it is missing, a folder, unreadable, or not UTF-8.
  """
  path = paths.path(path)
  with naming(path, remedy):
    content = path.read_bytes()
    if content[:2] == _GZIP:
      raise InputError(f"{path} is compressed by gzip", "unpack it: gunzip")
    if content[:2] in _UTF16 or b"\0" in content[:4]:
      raise InputError(
        f"{path} is UTF-16 text, or no text", f"save it as UTF-8, or {remedy}"
      )
    return content.decode("utf-8-sig")


@contextlib.contextmanager
def naming(path: paths.AnyPath | str, remedy: str = _AGAIN) -> Iterator[None]:
  """Inside, a text file that cannot be read is an InputError that names it."""
  try:
    yield
  except FileNotFoundError:
    raise InputError(f"{path} is missing", "put the file there") from None
  except IsADirectoryError:
    raise InputError(f"{path} is a folder", "give a file") from None
  except UnicodeDecodeError as error:
    raise InputError(
      f"{path} is not UTF-8 text: byte {error.start}", remedy
    ) from None
  except OSError as error:
    raise InputError(
      f"{path} cannot be read: {error.strerror or error}",
      "make it readable, or give another file",
    ) from None


def read(
  path: paths.AnyPath | str, form: Any = object, remedy: str = _AGAIN
) -> Any:
  """Parses a JSON file.

  Args:
    path: on this machine or in a bucket.
    form: the expected form, see `check`.
    remedy: what to do about a damaged file.

  Raises:
    InputError: it cannot be read, is not JSON, or has another form.
  """
  return parse(read_text(path, remedy), str(path), form, remedy)


def parse(
  text: str, where: str, form: Any = object, remedy: str = _AGAIN
) -> Any:
  """Parses a JSON text; `where` names it in messages. See `read`."""
  try:
    content = json.loads(text, object_pairs_hook=no_repeats)
  except json.JSONDecodeError as error:
    raise InputError(
      f"{where} is cut off or is not JSON: {error.msg} at line "
      f"{error.lineno}, column {error.colno}",
      remedy,
    ) from None
  except RepeatedKey as error:
    raise InputError(
      f"{where} has the key {error.args[0]!r} twice in one object",
      "keep one of the two entries",
    ) from None
  except RecursionError:
    raise InputError(f"{where} is nested too deeply", remedy) from None
  except ValueError:  # of int: more digits than Python converts
    raise InputError(
      f"{where} has a whole number of more than "
      f"{sys.get_int_max_str_digits()} digits",
      remedy,
    ) from None
  if SURROGATE.search(text) and has_half(content):
    raise InputError(
      f"{where} has half a character, such as \\ud83d without its other half",
      remedy,
    )
  check(content, form, where, remedy)
  return content


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
  """A copy of plain JSON values with a digest that reveals any change."""
  plain = json.loads(json.dumps(content))
  plain.pop(SEAL, None)
  text = json.dumps(plain, sort_keys=True)
  return plain | {SEAL: hashlib.sha256(text.encode()).hexdigest()}


def is_sealed(content: Any) -> bool:
  """Whether parsed JSON is an unchanged result of `sealed`."""
  return isinstance(content, dict) and content == sealed(content)


def check(content: Any, form: Any, where: str, remedy: str = _AGAIN) -> None:
  """Raises InputError if parsed JSON does not have a form.

  Args:
    content: the result of `json.loads`.
    form: `object` accepts anything; a type accepts its values (`float` also
      whole numbers, `int` no booleans); a tuple accepts any of its forms;
      `[form]` a list of it; `{str: form}` an object with any keys;
      `{"key": form, ...}` an object with at least these keys.
    where: names the content in the message, which adds the place in it.
    remedy: what to do about it.
  """
  wrong = _wrong(content, form, "")
  if wrong:
    place, expected, value = wrong
    raise InputError(
      f"{where}{place and ': ' + place} is {_shown(value)}, "
      f"expected {expected}",
      remedy,
    )


_MISSING = object()


def _wrong(value: Any, form: Any, place: str) -> tuple[str, str, Any] | None:
  """(place, what is expected, the value) of the first mismatch."""
  if form is object:
    return None
  if isinstance(form, tuple):
    misfits = [_wrong(value, one, place) for one in form]
    if None in misfits:
      return None
    # The form that fails deepest inside the value explains the fault best.
    best = max(misfits, key=lambda wrong: len(wrong[0]))
    if best[0] == place:
      return place, " or ".join(wrong[1] for wrong in misfits), value
    return best
  if isinstance(form, list):
    if not isinstance(value, list):
      return place, "a list", value
    parts = ((f"{place}[{i}]", x, form[0]) for i, x in enumerate(value))
  elif isinstance(form, dict):
    if not isinstance(value, dict):
      return place, "an object", value
    names = value if str in form else form
    parts = (
      (f"{place}.{name}".lstrip("."), value.get(name, _MISSING), one)
      for name in names
      for one in (form.get(name, form.get(str)),)
    )
  else:
    fits = isinstance(value, (int, float) if form is float else form)
    if fits and isinstance(value, bool) and form is not bool:
      fits = False
    return None if fits else (place, _NAMES[form], value)
  for part in parts:
    if misfit := _wrong(part[1], part[2], part[0]):
      return misfit
  return None


def _shown(value: Any) -> str:
  if value is _MISSING:
    return "missing"
  text = repr(value)
  return text if len(text) <= 60 else _NAMES[type(value)]


def has_half(content: Any) -> bool:
  """Whether parsed JSON has a lone surrogate, which cannot be written."""
  try:
    json.dumps(content, ensure_ascii=False).encode()
  except UnicodeEncodeError:
    return True
  return False


class RepeatedKey(Exception):
  """A JSON object names a key twice; json would silently drop the first."""


def no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  """`object_pairs_hook` of a JSON decoder; raises `RepeatedKey`."""
  content = dict(pairs)
  if len(content) < len(pairs):
    counts = collections.Counter(key for key, _ in pairs)
    raise RepeatedKey(counts.most_common(1)[0][0])
  return content
