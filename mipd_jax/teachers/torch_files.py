"""Reads PyTorch's own weight files (`pytorch_model.bin`) without PyTorch.

Older checkpoints on the Hugging Face hub, among them openai's CLIP L/14-336,
have nothing else. Such a file is a zip archive: `data.pkl` is a pickled dict
of tensors that name their storages, `data/KEY` are the storages' bytes. Only
what a dict of tensors needs is unpickled; anything else is refused, so that a
file from the internet cannot run code.
"""

import collections
import dataclasses
import pathlib
import pickle
import zipfile
from collections.abc import KeysView
from typing import Any

import ml_dtypes
import numpy as np

from input_pipeline.errors import InputError

# Class of a storage -> dtype, and the name that safetensors gives it.
_STORAGES = {
  "FloatStorage": (np.float32, "F32"),
  "DoubleStorage": (np.float64, "F64"),
  "HalfStorage": (np.float16, "F16"),
  "BFloat16Storage": (ml_dtypes.bfloat16, "BF16"),
  "LongStorage": (np.int64, "I64"),
  "IntStorage": (np.int32, "I32"),
  "ByteStorage": (np.uint8, "U8"),
  "BoolStorage": (np.bool_, "BOOL"),
}
_REMEDY = (
  "convert it on a machine with PyTorch: AutoModel.from_pretrained(ID)"
  ".save_pretrained(FOLDER, safe_serialization=True)"
)


@dataclasses.dataclass(frozen=True)
class _Storage:
  kind: str
  key: str


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
    """One past the last element of the storage that is used."""
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
    """Reads the names and shapes; no tensor yet.

    Raises:
      InputError: it is not such a file, or holds more than tensors.
    """
    self.path = pathlib.Path(path)
    try:
      self._zip = zipfile.ZipFile(self.path)
      (pickled,) = (
        name for name in self._zip.namelist() if name.endswith("/data.pkl")
      )
      self._prefix = pickled.removesuffix("data.pkl")
      with self._zip.open(pickled) as file:
        content = _Unpickler(file).load()
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
      raise InputError(
        f"{self.path}: not a weight file of PyTorch 1.6 or later, or cut off "
        f"({error})",
        f"fetch it again, or {_REMEDY}",
      ) from error
    except pickle.UnpicklingError as error:
      raise InputError(f"{self.path}: {error}", _REMEDY) from error
    if not isinstance(content, dict):
      raise InputError(f"{self.path}: not a dict of tensors", _REMEDY)
    strange = [n for n, x in content.items() if not isinstance(x, _Tensor)]
    if strange:
      raise InputError(f"{self.path}: not tensors: {strange}", _REMEDY)
    self._tensors: dict[str, _Tensor] = content

  def __enter__(self) -> "TorchFile":
    return self

  def __exit__(self, *_: Any) -> None:
    self._zip.close()

  def keys(self) -> KeysView[str]:
    return self._tensors.keys()

  def get_slice(self, name: str) -> _Tensor:
    """Shape and dtype of a tensor."""
    return self._tensors[name]

  def get_tensor(self, name: str) -> np.ndarray:
    """A contiguous array.

    Raises:
      InputError: its bytes are not all there.
    """
    tensor = self._tensors[name]
    dtype = np.dtype(_STORAGES[tensor.storage.kind][0])
    try:
      data = self._zip.read(f"{self._prefix}data/{tensor.storage.key}")
    except (KeyError, OSError, zipfile.BadZipFile) as error:
      raise InputError(
        f"{self.path}: the bytes of {name} cannot be read ({error})",
        "fetch the file again",
      ) from error
    values = np.frombuffer(data, dtype, count=len(data) // dtype.itemsize)
    # Also because as_strided would read whatever lies behind them.
    if tensor.end > len(values) or min((0, *tensor.strides)) < 0:
      raise InputError(
        f"{self.path}: {name} is larger than its bytes", "fetch it again"
      )
    view = np.lib.stride_tricks.as_strided(
      values[tensor.offset :],
      tensor.shape,
      [step * dtype.itemsize for step in tensor.strides],
      writeable=False,
    )
    return view.copy(order="C")


def _rebuild_tensor(storage, offset, shape, strides, *_) -> _Tensor:
  return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(tensor, *_) -> _Tensor:
  return tensor


class _Unpickler(pickle.Unpickler):
  """Knows tensors and dicts only."""

  def find_class(self, module: str, name: str) -> Any:
    known = {
      ("collections", "OrderedDict"): collections.OrderedDict,
      ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
      ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    }
    if (module, name) in known:
      return known[module, name]
    if module == "torch" and name in _STORAGES:
      return name
    raise pickle.UnpicklingError(f"holds a {module}.{name}, not only tensors")

  def persistent_load(self, pid: Any) -> _Storage:
    what, kind, key, *_ = pid
    if what != "storage" or kind not in _STORAGES:
      raise pickle.UnpicklingError(f"holds a {what} of {kind}")
    return _Storage(kind, key)
