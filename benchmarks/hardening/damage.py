"""Damage to one file, as by disks, copies, editors and strangers."""

import io
import json
import os
import pathlib
import pickle
import random
import struct
import zipfile
from collections.abc import Callable, Sequence

# Damage to a file whose intact content the run knows.
ANY = ("flip", "cut", "zeros", "blocks", "swap", "delete", "empty", "tail")
# Damage that a reader can notice without knowing the intact content.
PLAIN = ("delete", "empty", "cut", "nul")
_BLOCK = 4096


def flip(path: pathlib.Path, rng: random.Random) -> str:
  """Flips one bit, or eight."""
  content = bytearray(path.read_bytes())
  places = [rng.randrange(8 * len(content)) for _ in range(rng.choice([1, 8]))]
  for place in places:
    content[place // 8] ^= 1 << place % 8
  path.write_bytes(content)
  return f"{len(places)} bits flipped, the first in byte {places[0] // 8}"


def cut(path: pathlib.Path, rng: random.Random) -> str:
  """Truncates the file."""
  size = path.stat().st_size
  kept = rng.randrange(1, max(size - 1, 2))
  os.truncate(path, kept)
  return f"cut to {kept} of {size} bytes"


def zeros(path: pathlib.Path, rng: random.Random) -> str:
  """Overwrites a stretch of up to one block with zeros."""
  content = bytearray(path.read_bytes())
  first = rng.randrange(len(content))
  last = min(len(content), first + rng.randint(1, _BLOCK))
  content[first:last] = bytes(last - first)
  path.write_bytes(content)
  return f"bytes {first} to {last - 1} are zeros"


def nul(path: pathlib.Path, rng: random.Random) -> str:
  """Overwrites the whole file with zeros, as after a lost write."""
  del rng
  size = path.stat().st_size
  path.write_bytes(bytes(size))
  return f"all {size} bytes are zeros"


def blocks(path: pathlib.Path, rng: random.Random) -> str:
  """Exchanges two stretches of equal length."""
  content = bytearray(path.read_bytes())
  length = max(1, min(_BLOCK, len(content) // 4))
  first = rng.randrange(max(1, len(content) // 2 - length + 1))
  second = len(content) // 2 + rng.randrange(
    max(1, len(content) - len(content) // 2 - length + 1)
  )
  a, b = slice(first, first + length), slice(second, second + length)
  content[a], content[b] = content[b], content[a]
  path.write_bytes(content)
  return f"{length} bytes at {first} and {second} exchanged"


def delete(path: pathlib.Path, rng: random.Random) -> str:
  del rng
  path.unlink()
  return "deleted"


def empty(path: pathlib.Path, rng: random.Random) -> str:
  del rng
  path.write_bytes(b"")
  return "emptied"


def tail(path: pathlib.Path, rng: random.Random) -> str:
  """Appends bytes."""
  count = rng.randint(1, 300)
  with path.open("ab") as file:
    file.write(rng.randbytes(count))
  return f"{count} bytes more at the end"


def swap(
  path: pathlib.Path, rng: random.Random, others: Sequence[pathlib.Path]
) -> str:
  """Exchanges the contents of two files of one kind."""
  others = [
    other
    for other in others
    if other != path and other.read_bytes() != path.read_bytes()
  ]
  if not others:
    return zeros(path, rng)
  other = rng.choice(others)
  mine, its = path.read_bytes(), other.read_bytes()
  path.write_bytes(its)
  other.write_bytes(mine)
  return f"exchanged with {other.name} of {other.parent.name}"


_PLAIN: dict[str, Callable[[pathlib.Path, random.Random], str]] = {
  "flip": flip,
  "cut": cut,
  "zeros": zeros,
  "nul": nul,
  "blocks": blocks,
  "delete": delete,
  "empty": empty,
  "tail": tail,
}


def apply(
  path: pathlib.Path,
  how: str,
  rng: random.Random,
  others: Sequence[pathlib.Path] = (),
  *,
  keep_time: bool = False,
) -> str:
  """Damages a file.

  Args:
    path: the file.
    how: one of `ANY` or `PLAIN`, or 'hostile:NAME' with a name of
      `hostile_names`.
    rng: draws place and amount.
    others: files of the same kind, for 'swap'.
    keep_time: whether to keep the modification time, like a failing disk.

  Returns:
    A description of the damage.
  """
  before = path.stat() if path.exists() else None
  if how == "swap":
    said = swap(path, rng, others)
  elif how.startswith("hostile:"):
    said = _hostile(path, how.removeprefix("hostile:"), rng)
  elif before and not before.st_size and how != "delete":
    said = tail(path, rng)  # an empty file has nothing to flip
  else:
    said = _PLAIN[how](path, rng)
  if keep_time and before and path.exists():
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    said += ", time kept"
  return said


def _first_value(text: str, value: str) -> str:
  """JSON text in which the first key, or first item, has another value."""
  content = json.loads(text.splitlines()[0] if "\n{" in text else text)
  mark = "a value that stands nowhere else"
  if isinstance(content, dict) and content:
    content[next(iter(content))] = mark
  elif isinstance(content, list) and content:
    content[0] = mark
  else:
    content = [mark]
  return json.dumps(content).replace(json.dumps(mark), value)


def _doubled(text: str) -> str:
  """JSON text in which the first key of an object is repeated."""
  content = json.loads(text.splitlines()[0] if "\n{" in text else text)
  if not isinstance(content, dict) or not content:
    return '{"a": 1, "a": 2}'
  key, value = next(iter(content.items()))
  again = f"{json.dumps(key)}: {json.dumps(value)}, "
  return "{" + again + json.dumps(content)[1:]


# Replacements of a whole JSON file, whatever was in it.
_JSON_WHOLE: dict[str, Callable[[str], bytes]] = {
  "object": lambda _: b"{}",
  "list": lambda _: b"[]",
  "null": lambda _: b"null",
  "text": lambda _: b'"text"',
  "number": lambda _: b"12",
  "deep": lambda _: b"[" * 200_000 + b"]" * 200_000,
  "utf16": lambda text: text.encode("utf-16"),
  "latin1": lambda text: b"\xff\xfe\xe4" + text.encode(),
  "page": lambda _: b"<!DOCTYPE html><title>Sign in</title>",
  "pointer": lambda _: b"version https://git-lfs.github.com/spec/v1\n",
}
# One value in it is another.
_JSON_VALUE: dict[str, Callable[[str], bytes]] = {
  name: lambda text, value=value: _first_value(text, value).encode()
  for name, value in {
    "value_null": "null",
    "value_list": "[]",
    "value_text": '"<script>alert(1)</script>"',
    "value_nan": "NaN",
    "value_negative": "-1",
    "value_infinite": "1e999",
    "value_digits": "9" * 5000,
    "value_deep": "[" * 100_000 + "]" * 100_000,
  }.items()
} | {
  "doubled": lambda text: _doubled(text).encode(),
  "bom": lambda text: b"\xef\xbb\xbf" + text.encode(),
}
_YAML: dict[str, Callable[[str], bytes]] = {
  "aliases": lambda _: (
    "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"a{i}: &a{i} [{f'*a{i - 1},' * 9}]\n" for i in range(1, 12))
    + "nouns: *a11\n"
  ).encode(),
  "python": lambda _: (
    b"nouns: [!!python/object/apply:os.system ['touch hacked']]\n"
  ),
  "deep": lambda _: b"[" * 20_000,
  "binary": lambda _: bytes(range(256)) * 20,
  "tab": lambda text: text.replace("  ", "\t").encode(),
  "list": lambda _: b"- [1, 2]\n- {a: b}\n",
  "null": lambda _: b"verbs:\nnouns:\n",
}
_SAFETENSORS = (
  "header_long",
  "header_text",
  "header_deep",
  "offsets",
  "negative",
  "lost_tensor",
  "nan",
)
_PICKLES = ("runs_code", "no_zip", "negative_offset", "bomb", "wrong_types")


class _RunsCode:
  """A pickle that makes a file if it is loaded without care."""

  def __reduce__(self):
    return (os.system, ("touch hacked",))


def hostile_names(path: pathlib.PurePath, *, known: bool) -> tuple[str, ...]:
  """Kinds of hostile content for a file of this name.

  Args:
    path: the file.
    known: whether the run knows its intact content; then any other valid
      content is damage, too.
  """
  if path.suffix in (".yaml", ".yml"):
    return tuple(_YAML)
  if path.suffix == ".safetensors":
    names = [x for x in _SAFETENSORS if known or x != "nan"]
    return tuple(names)
  if path.suffix == ".bin":
    return _PICKLES
  if path.suffix in (".json", ".jsonl") or path.name in ("metrics",):
    return (*_JSON_WHOLE, *(_JSON_VALUE if known else ()))
  return ("garbage",)


def _hostile(path: pathlib.Path, name: str, rng: random.Random) -> str:
  if path.suffix in (".yaml", ".yml"):
    content = _YAML[name](path.read_text())
  elif path.suffix == ".safetensors":
    content = _safetensors(path.read_bytes(), name)
  elif path.suffix == ".bin":
    content = _torch(name)
    path.with_name("model.safetensors").unlink(missing_ok=True)
  elif name == "garbage":
    content = rng.randbytes(2000)
  else:
    make = _JSON_WHOLE.get(name) or _JSON_VALUE[name]
    text = path.read_text(errors="replace") if path.exists() else "{}"
    content = make(text)
  path.write_bytes(content)
  return f"hostile content {name!r}"


def _safetensors(content: bytes, name: str) -> bytes:
  size = struct.unpack("<Q", content[:8])[0]
  header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
  if name == "header_long":
    return struct.pack("<Q", 2**62) + content[8:]
  if name == "header_text":
    return struct.pack("<Q", size) + b"x" * size + data
  if name == "header_deep":
    deep = b"[" * 50_000
    return struct.pack("<Q", len(deep)) + deep + data
  first = next(key for key in header if key != "__metadata__")
  if name == "offsets":
    header[first]["data_offsets"] = [0, 2**50]
  elif name == "negative":
    header[first]["shape"] = [-4, -4]
  elif name == "lost_tensor":
    del header[first]
  elif name == "nan":
    data = struct.pack("<f", float("nan")) * (len(data) // 4)
  text = json.dumps(header).encode()
  return struct.pack("<Q", len(text)) + text + data


def _torch(name: str) -> bytes:
  """The content of a hostile pytorch_model.bin."""
  if name == "no_zip":
    return pickle.dumps({"weight": _RunsCode()})
  target = io.BytesIO()
  with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
    if name == "runs_code":
      archive.writestr("archive/data.pkl", pickle.dumps(_RunsCode()))
    elif name == "wrong_types":
      archive.writestr("archive/data.pkl", pickle.dumps({1: [None], "a": 2}))
    elif name == "negative_offset":
      archive.writestr("archive/data.pkl", _tensor_pickle(-4096))
      archive.writestr("archive/data/0", bytes(64))
    else:
      archive.writestr("archive/data.pkl", _tensor_pickle(0))
      archive.writestr("archive/data/0", bytes(2**26))
    archive.writestr("archive/version", "3\n")
  return target.getvalue()


def _tensor_pickle(offset: int) -> bytes:
  """{"weight": a tensor of 16 floats} in torch's format, written by hand."""

  def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()

  def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)

  storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n"
  storage += text("0") + text("cpu") + number(16) + b"tQ"
  shape, stride = b"(" + number(16) + b"t", b"(" + number(1) + b"t"
  rebuilt = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage
  rebuilt += number(offset) + shape + stride + b"\x89}tR"
  return b"\x80\x02}" + text("weight") + rebuilt + b"s."
