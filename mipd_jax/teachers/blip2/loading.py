"""Loads a BLIP-2 from Hugging Face's format, strictly and frugally."""

import os
import pathlib
from typing import Any

import jax.numpy as jnp
from jax.sharding import Mesh

from input_pipeline.io.errors import InputError
from mipd_jax.teachers.blip2 import config as configs
from mipd_jax.teachers.blip2 import sharding_rules, weights
from mipd_jax.teachers.blip2.model import Blip2, check_tokenizer
from mipd_jax.teachers.blip2.module import build
from mipd_jax.teachers.checkpoints import hf_config, hf_weights
from mipd_jax.teachers.checkpoints import tokenizer as tokenizers

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

  Weights are read, cast and placed one by one, so that about one copy of the
  model in `dtype` is all the memory it takes.

  Args:
    folder_or_id: a folder with config.json, *.safetensors and, if there are
      any, tokenizer files; or an id such as "Salesforce/blip2-flan-t5-xl"
      that was downloaded before.
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
  # Before gigabytes are read.
  check_tokenizer(str(folder), config, words)
  place = sharding_rules.placer(config, mesh)
  params, files = weights.read(folder, template, config, dtype, place)
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
