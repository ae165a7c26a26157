"""Hugging Face checkpoints: weights in PyTorch's layout <-> flax trees.

Read are, in this order, safetensors, flax_model.msgpack and pytorch_model.bin,
whole or in shards; written is safetensors. PyTorch is not needed. The names
follow the rules of transformers' own Flax classes: a flax leaf `kernel` is a
PyTorch `weight`, transposed (linear [out, in] <-> [in, out], convolution
[O, I, H, W] <-> [H, W, I, O]); `scale` and `embedding` are a `weight` as it
is; any other leaf keeps its name.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import flax
import numpy as np

from input_pipeline.errors import InputError
from mipd_jax.teachers.torch_files import TorchFile

# In the order of preference.
_SINGLE = ("model.safetensors", "flax_model.msgpack", "pytorch_model.bin")
_INDEX = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_RENAMED = {"kernel": "weight", "scale": "weight", "embedding": "weight"}

# openai/CLIP clip.py, `Normalize`, and transformers' BlipImageProcessor.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)

Tree = Mapping[str, Any]


def find(folder_or_id: str | os.PathLike) -> pathlib.Path:
  """A folder as it is, or that of an id in the local Hugging Face cache.

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


def read_config(folder: pathlib.Path) -> dict[str, Any]:
  """The content of a checkpoint folder's config.json.

  Raises:
    InputError: it is absent or no JSON object.
  """
  return _read_json(
    folder / "config.json", "give a folder with the model's config.json"
  )


def pixel_normalisation(folder: pathlib.Path) -> tuple[tuple, tuple]:
  """Mean and std of RGB, of pixels on a scale of 0 to 1.

  Those of preprocessor_config.json, else openai's: BLIP-2 has them too.
  """
  path = folder / "preprocessor_config.json"
  if not path.exists():
    return MEAN, STD
  content = _read_json(path, "download the file again, or delete it")
  mean, std = content.get("image_mean", MEAN), content.get("image_std", STD)
  return tuple(mean), tuple(std)


def _read_json(path: pathlib.Path, remedy: str) -> dict[str, Any]:
  try:
    content = json.loads(path.read_text())
  except (OSError, ValueError) as error:
    raise InputError(f"{path}: {error}", remedy) from error
  if not isinstance(content, dict):
    raise InputError(f"{path}: not an object of settings", remedy)
  return content


def weight_files(folder: str | os.PathLike) -> list[pathlib.Path]:
  """The weight files of a checkpoint: one, or those of its index.

  Raises:
    InputError: there is no weight file, or the index names an absent one.
  """
  folder = pathlib.Path(folder)
  names = (_SINGLE[0], _INDEX[0], *_SINGLE[1:], _INDEX[1])
  found = [name for name in names if (folder / name).exists()]
  if not found:
    have = sorted(p.name for p in folder.glob("*")) if folder.is_dir() else []
    raise InputError(
      f"{folder}: no weights, none of {', '.join(names)} (there: {have})",
      "give a checkpoint folder in Hugging Face format",
    )
  first = folder / found[0]
  return _listed(first) if first.name in _INDEX else [first]


def _listed(index: pathlib.Path) -> list[pathlib.Path]:
  """The files of an index."""
  try:
    names = json.loads(index.read_text())["weight_map"].values()
  except (ValueError, KeyError, AttributeError) as error:
    raise InputError(
      f"{index}: not an index of weights ({error})", "download the file again"
    ) from error
  files = [index.parent / name for name in sorted(set(names))]
  absent = [path.name for path in files if not path.exists()]
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
  from safetensors import SafetensorError, safe_open

  if path.suffix == ".bin":
    return TorchFile(path)
  try:
    return safe_open(path, "np")
  except (SafetensorError, OSError) as error:
    raise InputError(
      f"{path}: cannot be read as safetensors ({error})",
      "the file is cut off or of another format: fetch it again",
    ) from error


def read(
  folder: str | os.PathLike,
) -> tuple[dict[str, np.ndarray], list[pathlib.Path]]:
  """All tensors of a checkpoint folder by PyTorch name, and their files.

  Raises:
    InputError: no weights, or a file that is cut off or of another format.
  """
  files = weight_files(folder)
  if files[0].suffix == ".msgpack":
    return to_torch(_restore(files[0])), files
  tensors: dict[str, np.ndarray] = {}
  for path in files:
    with open_tensors(path) as file:
      for name in file.keys():  # noqa: SIM118 - safe_open is no dict
        tensors[name] = file.get_tensor(name)
  return tensors, files


def _restore(path: pathlib.Path) -> Tree:
  try:
    return flax.serialization.msgpack_restore(path.read_bytes())
  except Exception as error:  # msgpack raises what it likes
    raise InputError(
      f"{path}: cannot be read as flax weights ({error})",
      "the file is cut off or of another format: fetch it again",
    ) from error


def write(path: str | os.PathLike, tree: Tree) -> None:
  """Writes a flax tree as one safetensors file in PyTorch's layout."""
  from safetensors.numpy import save_file

  # transformers refuses files whose metadata do not name the framework.
  save_file(to_torch(tree), path, metadata={"format": "pt"})
  pathlib.Path(path).chmod(0o644)  # safetensors lets the owner alone read it


def revision(files: Iterable[pathlib.Path]) -> str:
  """sha256 over the files' bytes, in order: which weights these are."""
  digest = hashlib.sha256()
  for path in files:
    with open(path, "rb") as file:
      while block := file.read(1 << 24):
        digest.update(block)
  return digest.hexdigest()


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
    source: what the tensors were read from, for messages.
    ignore: last parts of names that may be there without being used.

  Returns:
    A nested dict of numpy arrays.

  Raises:
    InputError: weights are missing, left over, or of another shape; the
      message lists them all.
  """
  left = dict(tensors)
  missing, misshapen, flat = [], [], {}
  for path, wanted in flax.traverse_util.flatten_dict(template).items():
    name = torch_name(path)
    if name not in left:
      missing.append(name)
      continue
    array = _transposed(path, left.pop(name), to_torch=False)
    if array.shape != tuple(wanted.shape):
      misshapen.append(f"{name} {array.shape}, wanted {tuple(wanted.shape)}")
    flat[path] = array.astype(wanted.dtype)
  unexpected = [n for n in left if n.rsplit(".", 1)[-1] not in ignore]
  refuse_misfits(
    source,
    {
      "missing": missing,
      "unexpected": unexpected,
      "of another shape": misshapen,
    },
  )
  return flax.traverse_util.unflatten_dict(flat)


def refuse_misfits(source: str, problems: Mapping[str, list[str]]) -> None:
  """Raises one InputError with all names, by what is wrong; none is fine."""
  told = [
    f"{len(names)} {kind}: {', '.join(sorted(names))}"
    for kind, names in problems.items()
    if names
  ]
  if told:
    raise InputError(
      f"{source}: the weights do not fit config.json; " + "; ".join(told),
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
