"""Hugging Face checkpoints: weights in PyTorch's layout <-> flax trees.

It reads, in this order, safetensors, flax_model.msgpack and pytorch_model.bin,
whole or in shards, and writes safetensors. PyTorch is not needed. The names
follow the rules of transformers' own Flax classes: a flax leaf `kernel` is a
PyTorch `weight`, transposed (linear [out, in] <-> [in, out], convolution
[O, I, H, W] <-> [H, W, I, O]); `scale` and `embedding` are an unchanged
`weight`; any other leaf keeps its name.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import flax
import ml_dtypes
import numpy as np

from input_pipeline.io import json_files
from input_pipeline.io.errors import InputError
from mipd_jax.teachers.checkpoints.torch_files import TorchFile

# In the order of preference.
_SINGLE = ("model.safetensors", "flax_model.msgpack", "pytorch_model.bin")
_INDEX = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
# Bytes of a number -> its exponent bits, all set if it is infinite or NaN.
_EXPONENTS = {
  np.dtype(np.float16): (np.uint16, 0x7C00),
  np.dtype(ml_dtypes.bfloat16): (np.uint16, 0x7F80),
  np.dtype(np.float32): (np.uint32, 0x7F800000),
  np.dtype(np.float64): (np.uint64, 0x7FF0000000000000),
}
# safetensors' types that numpy has; others are small floats.
_KINDS = frozenset(
  "F64 F32 F16 BF16 I64 I32 I16 I8 U64 U32 U16 U8 BOOL C64".split()  # noqa: SIM905
)
_PIECE = 1 << 20
_MOST_HEADER = 100_000_000  # bytes; safetensors' own limit
_AGAIN = "the file is cut off or of another format: fetch it again"
# Files besides the weights that a model's output depends on.
_BESIDE = (
  "config.json",
  "preprocessor_config.json",
  "processor_config.json",
  "generation_config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "added_tokens.json",
  "vocab.json",
  "merges.txt",
  "spiece.model",
  "tokenizer.model",
  "chat_template.jinja",
)
# Fields of config.json about its origin.
_ORIGIN = ("_name_or_path", "transformers_version")
_RENAMED = {"kernel": "weight", "scale": "weight", "embedding": "weight"}

Tree = Mapping[str, Any]


def find(folder_or_id: str | os.PathLike) -> pathlib.Path:
  """The folder of a checkpoint, given as a folder or as a cached id.

  Raises:
    InputError: it is neither.
  """
  folder = pathlib.Path(folder_or_id)
  if folder.is_dir():
    return folder
  from huggingface_hub import snapshot_download

  try:
    return pathlib.Path(
      snapshot_download(str(folder_or_id), local_files_only=True)
    )
  except Exception as error:
    raise InputError(
      f"{folder_or_id}: neither a folder nor in the Hugging Face cache",
      f"give a checkpoint folder, or first run: hf download {folder_or_id}",
    ) from error


def weight_files(folder: str | os.PathLike) -> list[pathlib.Path]:
  """The weight files of a checkpoint: one, or those in its index.

  Raises:
    InputError: there is no weight file, or the index names an absent one.
  """
  folder = pathlib.Path(folder)
  names = (_SINGLE[0], _INDEX[0], *_SINGLE[1:], _INDEX[1])
  present = [name for name in names if (folder / name).exists()]
  if not present:
    have = sorted(p.name for p in folder.glob("*")) if folder.is_dir() else []
    raise InputError(
      f"{folder}: no weights, none of {', '.join(names)} (there: {have})",
      "give a checkpoint folder in Hugging Face format",
    )
  first = folder / present[0]
  return _listed(first) if first.name in _INDEX else [first]


def _listed(index: pathlib.Path) -> list[pathlib.Path]:
  """The files of an index, all beside it."""
  again = "download the index and the missing files into the folder"
  form = {"weight_map": {str: str}}
  names = sorted(
    set(json_files.read(index, form, again)["weight_map"].values())
  )
  if not names:
    raise InputError(f"{index}: names no files", again)
  odd = [n for n in names if n in ("", ".", "..") or pathlib.Path(n).name != n]
  if odd:
    raise InputError(
      f"{index}: names files that are not beside it: {odd[:5]}", again
    )
  files = [index.parent / name for name in names]
  absent = [path.name for path in files if not path.is_file()]
  if absent:
    raise InputError(
      f"{index.parent}: {index.name} names files that are not there: {absent}",
      "download the missing files into the folder",
    )
  return files


def open_tensors(path: pathlib.Path) -> Any:
  """A weight file with the reading half of `safe_open`'s interface.

  A context manager with `keys`, `get_slice` and `get_tensor`; tensors are
  read when asked for.

  Raises:
    InputError: the file is cut off or of another format.
  """
  return TorchFile(path) if path.suffix == ".bin" else _SafeFile(path)


class _SafeFile:
  """`safetensors.safe_open` whose errors are all InputErrors."""

  def __init__(self, path: pathlib.Path):
    from safetensors import safe_open

    self._path = path
    _check_header(path)
    try:
      self._file = safe_open(path, "np")
    except Exception as error:  # SafetensorError, OSError and others
      raise self._broken(error) from error

  def __enter__(self) -> "_SafeFile":
    return self

  def __exit__(self, *error: Any) -> None:
    self._file.__exit__(*error)

  def keys(self) -> list[str]:
    return list(self._file.keys())

  def get_slice(self, name: str) -> Any:
    return self._asked(self._file.get_slice, name)

  def get_tensor(self, name: str) -> np.ndarray:
    kind = self.get_slice(name).get_dtype()
    if kind not in _KINDS:
      raise InputError(
        f"{self._path}: {name} is of type {kind}, which is not read here",
        "use a checkpoint in float32, bfloat16 or float16",
      )
    return self._asked(self._file.get_tensor, name)

  def _asked(self, ask: Any, name: str) -> Any:
    try:
      return ask(name)
    except Exception as error:  # SafetensorError, OSError and others
      raise self._broken(f"{name}: {error}") from error

  def _broken(self, problem: Any) -> InputError:
    return InputError(
      f"{self._path}: cannot be read as safetensors ({problem})", _AGAIN
    )


def _check_header(path: pathlib.Path) -> None:
  """Refuses a header that names a tensor twice: readers take the last."""
  try:
    with open(path, "rb") as file:
      length = int.from_bytes(file.read(8), "little")
      if length > min(_MOST_HEADER, path.stat().st_size - 8):
        raise InputError(
          f"{path}: cannot be read as safetensors (its header has {length} "
          "bytes)",
          _AGAIN,
        )
      header = file.read(length).decode()
  except (OSError, UnicodeDecodeError) as error:
    raise InputError(
      f"{path}: cannot be read as safetensors ({error})", _AGAIN
    ) from error
  where = f"{path}: its header"
  json_files.parse(header, where, {str: {str: object}}, _AGAIN)


def names(folder: str | os.PathLike) -> set[str]:
  """PyTorch's names of all tensors of a folder; only headers are read."""
  files = weight_files(folder)
  if files[0].suffix == ".msgpack":
    return set(to_torch(_restore(files[0])))
  tensors: set[str] = set()
  for path in files:
    with open_tensors(path) as file:
      tensors.update(file.keys())
  return tensors


def read(
  folder: str | os.PathLike,
) -> tuple[dict[str, np.ndarray], list[pathlib.Path]]:
  """All tensors of a checkpoint folder by PyTorch name, and their files.

  Raises:
    InputError: no weights, a file that is cut off or of another format, or
      two files that have a tensor of the same name.
  """
  files = weight_files(folder)
  if files[0].suffix == ".msgpack":
    return to_torch(_restore(files[0])), files
  tensors: dict[str, np.ndarray] = {}
  for path in files:
    with open_tensors(path) as file:
      refuse_repeats(path, tensors, file.keys())
      for name in file.keys():  # noqa: SIM118 - it is no dict
        tensors[name] = file.get_tensor(name)
  return tensors, files


def refuse_repeats(
  path: pathlib.Path, before: Iterable[str], names: Iterable[str]
) -> None:
  """Raises InputError if a file repeats tensors of another one."""
  twice = sorted(set(before) & set(names))
  if twice:
    raise InputError(
      f"{path}: its tensors are in another file of the index, too: "
      f"{', '.join(twice[:5])}",
      "download the files and their index again",
    )


def _restore(path: pathlib.Path) -> Tree:
  try:
    tree = flax.serialization.msgpack_restore(path.read_bytes())
    flat = flax.traverse_util.flatten_dict(tree)
    paths = [torch_name(keys) for keys in flat]
    if not all(isinstance(leaf, np.ndarray) for leaf in flat.values()):
      raise ValueError("not all leaves are arrays")
    if len(set(paths)) < len(paths):
      raise ValueError("two arrays have one name in PyTorch's layout")
  except Exception as error:  # msgpack raises many types
    raise InputError(
      f"{path}: cannot be read as flax weights ({error})", _AGAIN
    ) from error
  return tree


def write(path: str | os.PathLike, tree: Tree) -> None:
  """Writes a flax tree as one safetensors file in PyTorch's layout."""
  from safetensors.numpy import save_file

  # transformers refuses files whose metadata do not name the framework.
  save_file(to_torch(tree), path, metadata={"format": "pt"})
  pathlib.Path(path).chmod(0o644)  # safetensors makes it owner-only


def revision(files: Iterable[pathlib.Path]) -> str:
  """sha256 of a model: of its weights, settings and tokenizer.

  Args:
    files: of the weights. The settings and the tokenizer beside them count
      too; JSON by its content, however it is spaced.
  """
  files = list(files)
  digest = hashlib.sha256()
  for path in files:
    with open(path, "rb") as file:
      while block := file.read(1 << 24):
        digest.update(block)
  for name in _BESIDE:
    path = files[0].parent / name
    if path.exists():
      digest.update(name.encode() + b"\0" + _content(path))
  return digest.hexdigest()


def all_finite(array: np.ndarray) -> bool:
  """Whether no number of an array is NaN or infinite.

  Checks the exponents' bits: for bfloat16, many times faster than numpy's
  `isfinite`. Arrays that are not floating are finite.
  """
  array = np.asarray(array)
  if array.dtype not in _EXPONENTS or not array.size:
    return True
  kind, exponent = _EXPONENTS[array.dtype]
  # In memory order, piece by piece: no copy of the whole.
  bits = array.ravel(order="K").view(kind)
  return all(
    (bits[start : start + _PIECE] & kind(exponent)).max() < exponent
    for start in range(0, len(bits), _PIECE)
  )


def _content(path: pathlib.Path) -> bytes:
  """The content of a file beside the weights, without notes on its origin."""
  data = path.read_bytes()
  if path.suffix != ".json":
    return data
  try:
    content = json.loads(data)
  except (ValueError, RecursionError):  # its reader raises the error
    return data
  if isinstance(content, dict):
    content = {k: v for k, v in content.items() if k not in _ORIGIN}
  return json.dumps(content, sort_keys=True).encode()


def to_flax(
  tensors: Mapping[str, np.ndarray],
  template: Tree,
  *,
  source: str,
  ignore: tuple[str, ...] = ("position_ids",),
) -> dict[str, Any]:
  """PyTorch tensors -> a flax tree of exactly the template's shapes.

  Args:
    tensors: by PyTorch name.
    template: tree of arrays or `jax.ShapeDtypeStruct`; gives shapes, dtypes.
    source: origin of the tensors, for messages.
    ignore: last parts of names that may be left unused.

  Returns:
    A nested dict of numpy arrays.

  Raises:
    InputError: weights are missing, left over, of another shape or type, or
      not finite; the message lists them all.
  """
  left = dict(tensors)
  missing, misshapen, mistyped, flat = [], [], [], {}
  for path, wanted in flax.traverse_util.flatten_dict(template).items():
    name = torch_name(path)
    if name not in left:
      missing.append(name)
      continue
    array = _transposed(path, left.pop(name), to_torch=False)
    if array.shape != tuple(wanted.shape):
      misshapen.append(f"{name} {array.shape}, wanted {tuple(wanted.shape)}")
    elif array.dtype not in _EXPONENTS:
      mistyped.append(f"{name} {array.dtype}, wanted floats")
    else:
      flat[path] = array.astype(wanted.dtype)
  unexpected = [n for n in left if n.rsplit(".", 1)[-1] not in ignore]
  refuse_misfits(
    source,
    {
      "missing": missing,
      "unexpected": unexpected,
      "of another shape": misshapen,
      "of another type": mistyped,
    },
  )
  _refuse_infinite(source, tensors, flat)
  return flax.traverse_util.unflatten_dict(flat)


def _refuse_infinite(
  source: str, tensors: Mapping[str, np.ndarray], flat: Mapping
) -> None:
  bad, large = [], []
  for path, array in flat.items():
    if not all_finite(array):
      name = torch_name(path)
      (large if all_finite(tensors[name]) else bad).append(name)
  if bad:
    raise InputError(
      f"{source}: weights that are NaN or infinite: {', '.join(sorted(bad))}",
      "the file is damaged, or the model's training failed: fetch it again",
    )
  if large:
    raise InputError(
      f"{source}: weights too large for {next(iter(flat.values())).dtype}: "
      f"{', '.join(sorted(large))}",
      "use float32 or bfloat16",
    )


def refuse_misfits(source: str, problems: Mapping[str, list[str]]) -> None:
  """Raises one InputError with all names by problem, if there are any."""
  listed = [
    f"{len(names)} {kind}: {', '.join(sorted(names))}"
    for kind, names in problems.items()
    if names
  ]
  if listed:
    raise InputError(
      f"{source}: the weights do not fit config.json; " + "; ".join(listed),
      "use the config.json and the weights of one and the same model",
    )


def to_torch(tree: Tree) -> dict[str, np.ndarray]:
  """A flax tree -> contiguous numpy tensors by PyTorch name."""
  tensors = {}
  for path, leaf in flax.traverse_util.flatten_dict(tree).items():
    array = _transposed(path, np.asarray(leaf), to_torch=True)
    # Not np.ascontiguousarray, which makes a scalar one-dimensional.
    tensors[torch_name(path)] = array.copy(order="C")
  return tensors


def torch_name(path: tuple[str, ...]) -> str:
  """A flax path's PyTorch name: ("a", "kernel") -> "a.weight"."""
  return ".".join((*path[:-1], _RENAMED.get(path[-1], path[-1])))


def _transposed(
  path: tuple[str, ...], array: np.ndarray, *, to_torch: bool
) -> np.ndarray:
  if path[-1] != "kernel" or array.ndim not in (2, 4):
    return array
  if array.ndim == 2:
    return array.T
  return array.transpose((3, 2, 0, 1) if to_torch else (2, 3, 1, 0))
