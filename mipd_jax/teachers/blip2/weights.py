"""BLIP-2's weights in Hugging Face's format: read strictly, and written.

Names and shapes are compared before anything is read, and each tensor is cast
and placed before the next is read: a model of 4 billion parameters is never
in memory twice.
"""

import contextlib
import copy
import math
import os
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from input_pipeline.io.atomic import replacing
from input_pipeline.io.errors import InputError
from input_pipeline.io.progress import Progress
from mipd_jax.teachers.blip2 import config as configs
from mipd_jax.teachers.blip2 import sharding_rules
from mipd_jax.teachers.blip2.model import Blip2, check_tokenizer
from mipd_jax.teachers.blip2.module import build
from mipd_jax.teachers.checkpoints import hf_config, hf_weights
from mipd_jax.teachers.checkpoints import tokenizer as tokenizers

# Not weights, or never used: transformers skips the same on loading.
_IGNORED = re.compile(
  r"(^|\.)position_ids$"
  r"|decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\."
  r"|^language_model\.model\.decoder\.version$"
)
_FLOATS = ("F16", "BF16", "F32", "F64")
# Number of values from which reading shows its progress.
_LARGE = 500_000_000

Path = tuple[str, ...]
Place = Callable[[Path, np.ndarray], jax.Array]


def read(
  folder: pathlib.Path, template: Mapping, config: Any, dtype: Any, place: Place
) -> tuple[dict, list[pathlib.Path]]:
  """Reads a checkpoint folder into a tree of the template's shapes.

  Args:
    folder: with model.safetensors or its shards and their index.
    template: from `module.build`.
    config: transformers' Blip2Config.
    dtype: of the parameters.
    place: (path, array) -> the placed array.

  Returns:
    The tree, and its files.

  Raises:
    InputError: weights are missing, left over, or of another shape or type
      (the message lists them all), or a file cannot be read.
  """
  files = hf_weights.weight_files(folder)
  wanted = {
    hf_weights.torch_name(path): (path, leaf)
    for path, leaf in flax.traverse_util.flatten_dict(template).items()
  }
  with contextlib.ExitStack() as stack:
    file_of = _open(stack, files)
    chosen, copies = _match(file_of, wanted, config, folder)
    total = sum(math.prod(leaf.shape) for _, leaf in wanted.values())
    progress = _progress(stack, folder, len(wanted), total)
    flat = {}
    for name, (path, leaf) in wanted.items():
      source = chosen[name]
      tensor = file_of[source].get_tensor(source)
      _check_copies(file_of, copies[name], source, tensor, folder)
      array = _to_flax(path, leaf, tensor, dtype, folder)
      flat[path] = place(path, array)
      if progress:
        progress.advance()
  return flax.traverse_util.unflatten_dict(flat), files


def write_checkpoint(
  folder: str | os.PathLike, config: Any, params: Mapping
) -> None:
  """Writes config.json and model.safetensors, as transformers does.

  `load` and torch's Blip2ForConditionalGeneration read them.

  Args:
    folder: made when absent.
    config: transformers' Blip2Config.
    params: a tree of `module.build`'s shapes, stored in its own dtypes.
  """
  folder = pathlib.Path(folder)
  config = copy.deepcopy(config)
  config.architectures = [configs.ARCHITECTURE]
  with replacing(folder / "model.safetensors") as path:
    hf_weights.write(path, params)
  with replacing(folder / "config.json") as path:
    path.write_text(config.to_json_string())


def ties(config: Any) -> dict[str, str]:
  """Other names under which torch may save a tensor -> its own name."""
  text, prefix = config.text_config, "language_model."
  if text.model_type == configs.T5:
    own = "shared.weight"
    copies = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"]
  else:
    own, copies = "model.decoder.embed_tokens.weight", []
  if text.tie_word_embeddings:
    copies.append("lm_head.weight")
  return {prefix + name: prefix + own for name in copies}


def _open(stack: contextlib.ExitStack, files: list) -> dict[str, Any]:
  """Tensor's name -> the open file that has it; reads no tensor."""
  file_of = {}
  for path in files:
    file = stack.enter_context(hf_weights.open_tensors(path))
    hf_weights.refuse_repeats(path, file_of, file.keys())
    file_of |= dict.fromkeys(file.keys(), file)
  return file_of


def _match(file_of, wanted, config, folder):
  """The tensor to take for each parameter, and the copies that must equal it.

  A tied weight may be saved under one or several of its names.
  """
  copies = {name: [] for name in wanted}
  for other, own in ties(config).items():
    if other in file_of:
      copies[own].append(other)
  chosen, missing, wrong = {}, [], []
  for name, (path, leaf) in wanted.items():
    names = [name] if name in file_of else copies[name][:1]
    if not names:
      missing.append(name)
      continue
    chosen[name] = names[0]
    header = file_of[names[0]].get_slice(names[0])
    shape, kind = tuple(header.get_shape()), header.get_dtype()
    if shape != _torch_shape(path, leaf.shape) or kind not in _FLOATS:
      expected = _torch_shape(path, leaf.shape)
      wrong.append(f"{names[0]} {shape} {kind}, wanted {expected} of floats")
  used = {*chosen.values(), *(n for some in copies.values() for n in some)}
  unexpected = [n for n in file_of if n not in used and not _IGNORED.search(n)]
  hf_weights.refuse_misfits(
    str(folder),
    {
      "missing": missing,
      "unexpected": unexpected,
      "of another shape or type": wrong,
    },
  )
  return chosen, copies


def _check_copies(file_of, names, source, tensor, folder) -> None:
  for name in names:
    if name == source:
      continue
    if not np.array_equal(file_of[name].get_tensor(name), tensor):
      raise InputError(
        f"{folder}: {name} and {source} are one weight in this model, but "
        "differ in the files",
        "use the config.json and the weights of one and the same model "
        "(tie_word_embeddings of text_config says what is shared)",
      )


def _torch_shape(path: Path, shape: tuple[int, ...]) -> tuple[int, ...]:
  """The shape of `hf_weights.to_torch`'s array, without making one."""
  if path[-1] != "kernel":
    return tuple(shape)
  *window, into, out = shape
  return (out, into, *window)


def _to_flax(path, leaf, tensor, dtype, folder) -> np.ndarray:
  shape = jax.ShapeDtypeStruct(leaf.shape, dtype)
  one = flax.traverse_util.unflatten_dict({path: shape})
  name = hf_weights.torch_name(path)
  tree = hf_weights.to_flax({name: tensor}, one, source=str(folder))
  return flax.traverse_util.flatten_dict(tree)[path]


def _progress(stack, folder, tensors: int, values: int) -> Progress | None:
  if values < _LARGE:
    return None
  return stack.enter_context(
    Progress(f"load {folder.name}", tensors, "tensors")
  )


_TOKENIZER_FILES = (
  "tokenizer.json",
  "tokenizer_config.json",
  "spiece.model",
  "vocab.json",
)


def load(
  folder_or_id: str | os.PathLike,
  dtype: Any = jnp.float32,
  *,
  mesh: Mesh | None = None,
) -> Blip2:
  """Loads a BLIP-2 from a folder, or by id from the local cache.

  Weights are read, cast and placed one by one, so it takes the memory of about
  one copy of the model in `dtype`.

  Args:
    folder_or_id: a folder with config.json, *.safetensors and, if there are
      any, tokenizer files; or the id of a downloaded model, such as
      "Salesforce/blip2-flan-t5-xl".
    dtype: of the parameters and of the arithmetic, a floating one. T5 was
      not trained for float16 and may overflow there; bfloat16 is fine.
    mesh: with axes "data" and "model": parameters are laid over it by
      `rules`; on the default device if None.

  Raises:
    InputError: a file is missing or unreadable, the model is another, weights
      and config or tokenizer and vocabulary do not fit together, or dtype is
      not floating.
  """
  _check_dtype(dtype)
  folder = hf_weights.find(folder_or_id)
  config = configs.read(folder)
  dtype = jnp.dtype(dtype)
  with hf_config.building(folder / "config.json"):
    module, template = build(config, dtype)
  words = _read_tokenizer(folder)
  mean, std = hf_config.pixel_normalisation(
    folder, config.vision_config.image_size
  )
  # Checked before gigabytes are read.
  check_tokenizer(str(folder), config, words)
  place = sharding_rules.placer(config, mesh)
  params, files = read(folder, template, config, dtype, place)
  return Blip2(
    name=str(folder_or_id),
    revision=hf_weights.revision(files),
    module=module,
    config=config,
    params=params,
    tokenizer=words,
    mean=mean,
    std=std,
  )


def _check_dtype(dtype: Any) -> None:
  try:
    floating = jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
  except TypeError:
    floating = False
  if not floating:
    raise InputError(
      f"dtype {dtype!r} is not a floating one", "use float32 or bfloat16"
    )


def _read_tokenizer(folder: pathlib.Path) -> tokenizers.Tokenizer | None:
  if not any((folder / name).exists() for name in _TOKENIZER_FILES):
    return None
  return tokenizers.load(folder)
