"""Reads PyTorch's own weight files (`pytorch_model.bin`) without PyTorch.

Older checkpoints on the Hugging Face hub, among them openai's CLIP L/14-336,
have nothing else. Such a file is a zip archive: `data.pkl` is a pickled dict
of tensors that name their storages, `data/KEY` are the storages' bytes.

Nothing in the file is trusted. Our own small machine reads the pickle and
knows only dicts, tuples, numbers, texts and tensors, so no code can run and no
number can make it reserve memory. PyTorch does not compress members: a
compressed one, which could inflate without bound, is refused. Every tensor's
extent is compared with its storage when the file is opened.
"""

import dataclasses
import math
import pathlib
import pickletools
import zipfile
from collections.abc import Callable, KeysView
from typing import Any

import ml_dtypes
import numpy as np

from input_pipeline.io.errors import InputError

# Class of a storage -> dtype, and its name in safetensors.
_STORAGES = {
  "FloatStorage": (np.float32, "F32"),
  "DoubleStorage": (np.float64, "F64"),
  "HalfStorage": (np.float16, "F16"),
  "BFloat16Storage": (ml_dtypes.bfloat16, "BF16"),
  "LongStorage": (np.int64, "I64"),
  "IntStorage": (np.int32, "I32"),
  "ShortStorage": (np.int16, "I16"),
  "CharStorage": (np.int8, "I8"),
  "ByteStorage": (np.uint8, "U8"),
  "BoolStorage": (np.bool_, "BOOL"),
}
_REMEDY = (
  "convert it on a machine with PyTorch: AutoModel.from_pretrained(ID)"
  ".save_pretrained(FOLDER, safe_serialization=True)"
)
# A tensor takes about 200 bytes of the pickle; a file has some thousands.
_MOST_PICKLE = 1 << 22
_MOST_AXES = 16
_HEADER = 30  # bytes of a zip member's header without its name


@dataclasses.dataclass(frozen=True)
class _Storage:
  kind: str
  key: str
  count: int

  @property
  def dtype(self) -> np.dtype:
    return np.dtype(_STORAGES[self.kind][0])


@dataclasses.dataclass(frozen=True)
class _Tensor:
  """A tensor that is still in the file; also its header, as safetensors'."""

  storage: _Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]

  def get_shape(self) -> list[int]:
    return list(self.shape)

  def get_dtype(self) -> str:
    return _STORAGES[self.storage.kind][1]

  @property
  def end(self) -> int:
    """One past the last used element of the storage."""
    if 0 in self.shape:
      return self.offset
    steps = zip(self.shape, self.strides, strict=True)
    return self.offset + sum((n - 1) * step for n, step in steps) + 1


class TorchFile:
  """One file, with the reading half of `safetensors.safe_open`'s interface.

  Attributes:
    path: of the file.
  """

  def __init__(self, path: str | pathlib.Path):
    """Reads names and shapes, no tensor.

    Raises:
      InputError: it is not such a file, is damaged, or holds more than tensors.
    """
    self.path = pathlib.Path(path)
    self._zip: zipfile.ZipFile | None = None
    try:
      self._zip = zipfile.ZipFile(self.path)
      self._members = _members(self._zip, self.path.stat().st_size)
      self._prefix, content = self._content()
      self._tensors = _checked(content)
      for name, tensor in self._tensors.items():
        self._check_bytes(name, tensor)
    except _Refused as error:
      self._close()
      raise InputError(f"{self.path}: {error}", _REMEDY) from None
    except Exception as error:  # zipfile and pickletools raise many types
      self._close()
      if isinstance(error, InputError):
        raise
      raise InputError(
        f"{self.path}: not a weight file of PyTorch 1.6 or later, or cut off "
        f"({error})",
        f"fetch it again, or {_REMEDY}",
      ) from error

  def __enter__(self) -> "TorchFile":
    return self

  def __exit__(self, *_: Any) -> None:
    self._close()

  def keys(self) -> KeysView[str]:
    return self._tensors.keys()

  def get_slice(self, name: str) -> _Tensor:
    """Shape and dtype of a tensor."""
    return self._tensors[name]

  def get_tensor(self, name: str) -> np.ndarray:
    """A contiguous array.

    Raises:
      InputError: its bytes cannot be read; zip's checksum is compared.
    """
    tensor = self._tensors[name]
    dtype = tensor.storage.dtype
    if 0 in tensor.shape:
      return np.zeros(tensor.shape, dtype)
    try:
      data = self._zip.read(self._members[self._place(tensor)])
    except Exception as error:  # zipfile raises many types
      raise InputError(
        f"{self.path}: the bytes of {name} cannot be read ({error})",
        "fetch the file again",
      ) from error
    values = np.frombuffer(data, dtype, count=len(data) // dtype.itemsize)
    # The extent was checked: as_strided would read beyond it.
    view = np.lib.stride_tricks.as_strided(
      values[tensor.offset :],
      tensor.shape,
      # PyTorch writes any stride along an axis of one element.
      [
        step * dtype.itemsize if n > 1 else 0
        for n, step in zip(tensor.shape, tensor.strides, strict=True)
      ],
      writeable=False,
    )
    return view.copy(order="C")

  def _content(self) -> tuple[str, Any]:
    """The archive's folder with "/", and what data.pkl holds."""
    pickles = [n for n in self._members if n.endswith("/data.pkl")]
    if len(pickles) != 1:
      raise ValueError(f"{len(pickles)} members are named data.pkl")
    prefix = pickles[0].removesuffix("data.pkl")
    if self._members[pickles[0]].file_size > _MOST_PICKLE:
      raise _Refused(f"its data.pkl has more than {_MOST_PICKLE} bytes")
    order = self._members.get(f"{prefix}byteorder")
    if order and self._zip.read(order) != b"little":
      raise _Refused("its numbers are not in little-endian order")
    return prefix, _Machine().run(self._zip.read(self._members[pickles[0]]))

  def _place(self, tensor: _Tensor) -> str:
    return f"{self._prefix}data/{tensor.storage.key}"

  def _check_bytes(self, name: str, tensor: _Tensor) -> None:
    place, storage = self._place(tensor), tensor.storage
    if place not in self._members:
      raise InputError(
        f"{self.path}: the bytes of {name} cannot be read (there is no member "
        f"{place})",
        "fetch the file again",
      )
    have = self._members[place].file_size // storage.dtype.itemsize
    if tensor.end > have or storage.count > have:
      raise InputError(
        f"{self.path}: {name} is larger than its bytes", "fetch it again"
      )
    # Views that repeat elements (stride 0) could be larger than any memory.
    size = math.prod(tensor.shape)
    if size > have:
      raise InputError(
        f"{self.path}: {name} is larger than its bytes: it repeats {have} "
        f"numbers to {size}",
        _REMEDY,
      )

  def _close(self) -> None:
    if self._zip is not None:
      self._zip.close()


class _Refused(Exception):
  """A whole file that does not hold tensors as PyTorch writes them."""


def _members(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
  """Name -> member of an archive whose members lie apart, stored as is."""
  members: dict[str, zipfile.ZipInfo] = {}
  for member in archive.infolist():
    name = member.filename
    if name in members:
      raise _Refused(f"two members are named {name!r}")
    if name.startswith("/") or ".." in name.split("/"):
      raise _Refused(f"a member is named {name!r}")
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
      raise _Refused(f"{name} is compressed or encrypted")
    if member.file_size != member.compress_size:
      raise _Refused(f"{name} is stored, but with two sizes")
    members[name] = member
  # The latest end of each member is the start of the next.
  ordered = sorted(members.values(), key=lambda member: member.header_offset)
  ends = [member.header_offset for member in ordered[1:]] + [size]
  for member, end in zip(ordered, ends, strict=False):
    if member.header_offset + _HEADER + member.file_size > end:
      raise _Refused(f"{member.filename} overlaps what comes after it")
  return members


def _checked(content: Any) -> dict[str, _Tensor]:
  if not isinstance(content, dict):
    raise _Refused("not a dict of tensors")
  strange = [n for n, x in content.items() if not isinstance(x, _Tensor)]
  if strange:
    more = ", ..." if len(strange) > 5 else ""
    listed = ", ".join(map(_shown, strange[:5]))
    raise _Refused(f"not tensors: {listed}{more}")
  return content


def _shown(value: Any) -> str:
  """A short form; never a whole tuple, which may nest without bound."""
  if isinstance(value, str | int | float | _Global):
    return f"{value!s:.80}"
  return f"a {type(value).__name__}"


def _is_count(value: Any) -> bool:
  return type(value) is int and 0 <= value < 2**63


def _counts(values: Any) -> bool:
  return isinstance(values, tuple) and all(map(_is_count, values))


@dataclasses.dataclass(frozen=True)
class _Global:
  """A name of Python's in the pickle; never looked up."""

  module: str
  name: str

  def __str__(self) -> str:
    return f"{self.module}.{self.name}"


def _ordered_dict(pairs: Any = (), *_: Any) -> dict:
  result: dict = {}
  for key, value in pairs:
    _put(result, key, value)
  return result


def _rebuild_tensor(
  storage: Any, offset: Any, shape: Any, strides: Any, *_: Any
) -> _Tensor:
  fits = isinstance(storage, _Storage) and _is_count(offset)
  if not fits or not _counts(shape) or not _counts(strides):
    raise _Refused("a tensor's place, shape or strides are not whole numbers")
  if len(shape) != len(strides) or len(shape) > _MOST_AXES:
    raise _Refused(f"a tensor has {len(shape)} axes and {len(strides)} strides")
  if math.prod(filter(None, shape)) >= 2**60:  # numpy's limit, with 8 bytes
    raise _Refused(f"a tensor has the shape {shape!s:.80}")
  return _Tensor(storage, offset, shape, strides)


def _rebuild_parameter(tensor: Any, *_: Any) -> _Tensor:
  if not isinstance(tensor, _Tensor):
    raise _Refused("a parameter is not a tensor")
  return tensor


_KNOWN: dict[tuple[str, str], Callable] = {
  ("collections", "OrderedDict"): _ordered_dict,
  ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
  ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
}


def _put(target: Any, key: Any, value: Any) -> None:
  if not isinstance(target, dict) or type(key) is not str:
    raise _Refused("not a dict of tensors by name")
  if key in target:
    raise _Refused(f"two tensors are named {_shown(key)}")
  target[key] = value


_VALUES = (
  "BININT",
  "BININT1",
  "BININT2",
  "LONG1",
  "BINFLOAT",
  "BINUNICODE",
  "SHORT_BINUNICODE",
  "BINUNICODE8",
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_SHORT_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()


class _Machine:
  """The pickle machine's instructions that PyTorch uses, and no others."""

  def __init__(self) -> None:
    self._stack: list[Any] = []
    self._memo: dict[int, Any] = {}

  def run(self, data: bytes) -> Any:
    """The content of the pickle.

    Raises:
      _Refused: it holds more than a dict of tensors needs.
      ValueError, IndexError, KeyError: it is cut off or damaged.
    """
    try:
      for code, argument, _ in pickletools.genops(data):
        if code.name == "STOP":
          return self._stack.pop()
        self._do(code.name, argument)
    except ValueError as error:
      raise ValueError(f"its pickle is truncated: {error}") from error
    raise ValueError("its pickle is truncated")

  def _do(self, name: str, argument: Any) -> None:
    stack = self._stack
    if name in _VALUES:
      stack.append(argument)
    elif name in _CONSTANTS:
      stack.append(_CONSTANTS[name])
    elif name in _EMPTY:
      stack.append(_EMPTY[name]())
    elif name in _SHORT_TUPLES:
      stack.append(tuple(self._take(_SHORT_TUPLES[name])))
    elif name == "MARK":
      stack.append(_MARK)
    elif name == "TUPLE":
      stack.append(tuple(self._to_mark()))
    elif name in ("BINPUT", "LONG_BINPUT"):
      self._memo[argument] = stack[-1]
    elif name == "MEMOIZE":
      self._memo[len(self._memo)] = stack[-1]
    elif name in ("BINGET", "LONG_BINGET"):
      stack.append(self._memo[argument])
    elif name == "GLOBAL":
      stack.append(_Global(*argument.split(" ", 1)))
    elif name == "STACK_GLOBAL":
      names = self._take(2)
      if not all(type(part) is str for part in names):
        raise _Refused("a name in its pickle is not a text")
      stack.append(_Global(*names))
    elif name == "BINPERSID":
      stack.append(_storage(stack.pop()))
    elif name == "REDUCE":
      self._reduce(*self._take(2))
    elif name in ("SETITEM", "SETITEMS"):
      pairs = self._take(2) if name == "SETITEM" else self._to_mark()
      for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        _put(stack[-1], key, value)
    elif name in ("APPEND", "APPENDS"):
      values = self._take(1) if name == "APPEND" else self._to_mark()
      if type(stack[-1]) is not list:
        raise _Refused("holds more than a dict of tensors")
      stack[-1].extend(values)
    elif name == "BUILD":
      # `state_dict` carries versions of its modules, which tensors do not need.
      self._take(1)
      if type(stack[-1]) is not dict:
        raise _Refused("holds objects with a state, not only tensors")
    elif name not in ("PROTO", "FRAME"):
      raise _Refused(f"holds a pickle's {name}, not only tensors")

  def _reduce(self, function: Any, arguments: Any) -> None:
    if not isinstance(function, _Global):
      raise _Refused("calls what is no function, not only tensors")
    call = _KNOWN.get((function.module, function.name))
    if call is None:
      raise _Refused(f"holds a {function}, not only tensors")
    if type(arguments) is not tuple:
      raise _Refused(f"{function} has no tuple of arguments")
    try:
      self._stack.append(call(*arguments))
    except (TypeError, ValueError) as error:
      raise _Refused(f"{function} has other arguments ({error})") from None

  def _take(self, count: int) -> list[Any]:
    if len(self._stack) < count:
      raise ValueError("an instruction lacks its values")
    taken = self._stack[-count:]
    del self._stack[-count:]
    if any(value is _MARK for value in taken):
      raise ValueError("an instruction lacks its values")
    return taken

  def _to_mark(self) -> list[Any]:
    taken = []
    while (value := self._stack.pop()) is not _MARK:
      taken.append(value)
    return taken[::-1]


def _storage(name: Any) -> _Storage:
  """("storage", class, key, device, elements) -> the place of the bytes."""
  if type(name) is not tuple or len(name) < 5 or name[0] != "storage":
    raise _Refused("refers to something else than a storage")
  kind, key, count = name[1], name[2], name[4]
  known = isinstance(kind, _Global) and kind.module == "torch"
  if not known or kind.name not in _STORAGES:
    raise _Refused(f"holds a storage of {_shown(kind)}, not only tensors")
  if type(key) is not str or not key.isascii() or not key.isdigit():
    raise _Refused(f"a storage's key is {_shown(key)}, not a number")
  if not _is_count(count):
    raise _Refused(f"a storage has {_shown(count)} elements")
  return _Storage(kind.name, key, count)
