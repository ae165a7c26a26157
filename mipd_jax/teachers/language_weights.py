"""Strict reading of language models in Hugging Face format, without PyTorch.

The networks are transformers' own Flax classes; only their weights are read
here, so that nothing is missing, left over or left at random in silence.
Settings that a Flax class passes over, although PyTorch's heeds them, are
refused: such a model would run and write nonsense.
"""

import pathlib
import re
from collections.abc import Mapping
from typing import Any

import flax
import jax.numpy as jnp
import numpy as np

from input_pipeline.errors import InputError
from mipd_jax.teachers import hf_weights

Tree = dict[str, Any]

# Leftovers that are no weights: masks and tables, which Flax makes itself
# (positions too, where they are waves: Pegasus, Marian).
_BUFFER = re.compile(
  r"(attn|attention)\.(bias|masked_bias)$|rotary_emb\.inv_freq$"
  r"|position_ids$|embed_positions\.weight$"
)
# One embedding under its many names; checkpoints keep any one of them.
_SHARED = re.compile(
  r"(^|\.)(shared|embed_tokens|wte|word_embeddings|lm_head)\.weight$"
)
# Rotary models: no weight has the length of a text, but Flax lays out causal
# masks of its square. Prompts and texts are far shorter.
_ROTARY = ("llama", "mistral", "gemma", "gptj")
_ROTARY_LENGTH = 2048


def build(folder: pathlib.Path, dtype: Any = jnp.float32) -> Any:
  """The Flax model of a folder's config.json, without parameters.

  Returns:
    A FlaxPreTrainedModel made with `_do_init=False`: its
    `params_shape_tree` says what is wanted.

  Raises:
    InputError: no config.json, an architecture without a Flax class that
      generates text, or a setting that the Flax class passes over.
  """
  from transformers import AutoConfig
  from transformers.models.auto.modeling_flax_auto import (
    FLAX_MODEL_FOR_CAUSAL_LM_MAPPING,
    FLAX_MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
  )

  path = folder / "config.json"
  hf_weights.read_config(folder)
  try:
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
  except Exception as error:  # transformers raises many types
    raise InputError(
      f"{path}: {error}", "give a folder with the model's config.json"
    ) from error
  # BART and its like are in both; as a whole they are encoder and decoder.
  mappings = [
    FLAX_MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    FLAX_MODEL_FOR_CAUSAL_LM_MAPPING,
  ]
  found = [m[type(config)] for m in mappings if type(config) in m]
  if not found:
    raise InputError(
      f"{path}: model_type {config.model_type!r} has no Flax class that "
      "generates text",
      "choose a model of type t5, bart, gpt2, opt, llama, gemma or mistral",
    )
  _check_heeded(config, path)
  _fit_lengths(config)
  return found[0](config, dtype=dtype, _do_init=False)


def _check_heeded(config: Any, path: pathlib.Path) -> None:
  """Raises where transformers' Flax class would pass over a setting.

  modeling_flax_{llama,mistral,gemma}.py: rotary positions have the base
  10000, whatever the config says.
  """
  if config.model_type not in ("llama", "mistral", "gemma"):
    return
  wanted = {"rope_theta": (10000.0,), "rope_scaling": (None,)}
  if config.model_type != "gemma":
    own = config.hidden_size // config.num_attention_heads
    wanted["head_dim"] = (None, own)
  if config.model_type == "llama":
    wanted["mlp_bias"] = (False,)
  other = {
    name: getattr(config, name, values[0])
    for name, values in wanted.items()
    if getattr(config, name, values[0]) not in values
  }
  if other:
    told = ", ".join(f"{name}={value!r}" for name, value in other.items())
    raise InputError(
      f"{path}: transformers' Flax {config.model_type} does not heed {told}, "
      "so the model would write nonsense",
      "choose a model with plain rotary positions of base 10000 (Llama 1 and "
      "2, TinyLlama, Mistral 7B v0.1, Gemma 1), or Flan-T5",
    )


def _fit_lengths(config: Any) -> None:
  if config.model_type in _ROTARY:
    config.max_position_embeddings = min(
      config.max_position_embeddings, _ROTARY_LENGTH
    )
  if config.model_type == "mistral":
    # With no window Flax's mask would keep nothing but the diagonal.
    longest = config.max_position_embeddings
    config.sliding_window = min(config.sliding_window or longest, longest)


def read(folder: pathlib.Path, model: Any) -> tuple[Tree, str]:
  """The weights of a folder, exactly those that the model wants.

  Args:
    folder: with weights as `hf_weights` knows them.
    model: from `build`.

  Returns:
    A nested dict of numpy arrays in float32, and the sha256 of the files.

  Raises:
    InputError: weights are missing, left over or of another shape; the
      message lists all of them.
  """
  wanted = flax.core.unfreeze(model.params_shape_tree)
  tensors, files = hf_weights.read(folder)
  names = [
    hf_weights.torch_name(path)
    for path in flax.traverse_util.flatten_dict(wanted)
  ]
  tensors = _renamed(tensors, names, model.base_model_prefix)
  tensors = _untied(tensors, names, model.config)
  tree = hf_weights.to_flax(tensors, wanted, source=str(folder))
  return tree, hf_weights.revision(files)


def _renamed(
  tensors: Mapping[str, np.ndarray], wanted: list[str], prefix: str
) -> dict[str, np.ndarray]:
  """Adds the prefix that the earliest checkpoints lack; drops buffers."""
  kept = {}
  for name, tensor in tensors.items():
    longer = f"{prefix}.{name}"
    if name not in wanted and longer in wanted:
      name = longer
    if name in wanted or not _BUFFER.search(name):
      kept[name] = tensor
  return kept


def _untied(
  tensors: dict[str, np.ndarray], wanted: list[str], config: Any
) -> dict[str, np.ndarray]:
  """Gives one embedding the names under which the Flax class wants it.

  Encoder and decoder share theirs always, the head where the config says so.
  A second copy counts as the same only if it is equal.
  """
  tied = bool(getattr(config, "tie_word_embeddings", False))

  def shares(name: str) -> bool:
    return bool(_SHARED.search(name)) and (tied or "lm_head" not in name)

  have = [n for n in tensors if shares(n)]
  missing = [n for n in wanted if shares(n) and n not in tensors]
  # The wanted name first: a copy under another one is only compared.
  have.sort(key=lambda name: (name not in wanted, "lm_head" in name, name))
  if not have:
    return tensors
  source = tensors[have[0]]
  result = {**tensors, **dict.fromkeys(missing, source)}
  for name in have:
    if name not in wanted and np.array_equal(tensors[name], source):
      del result[name]
  return result
