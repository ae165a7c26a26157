"""Strict reading of language models in Hugging Face format, without PyTorch.

The networks are transformers' own Flax classes, or `llama` where these would
ignore a setting that PyTorch's use: the model would run and write nonsense.
Weights are read here, so that none is silently missing, left over or random.
"""

import pathlib
import re
from collections.abc import Mapping
from typing import Any

import flax
import jax.numpy as jnp
import numpy as np

from input_pipeline.io.errors import InputError
from mipd_jax.teachers.checkpoints import hf_config, hf_fields, hf_weights
from mipd_jax.teachers.language import llama

Tree = dict[str, Any]

# Leftovers that are not weights: masks and tables, which Flax computes itself
# (also sinusoidal positions: Pegasus, Marian).
_BUFFER = re.compile(
  r"(attn|attention)\.(bias|masked_bias)$|rotary_emb\.inv_freq$"
  r"|position_ids$|embed_positions\.weight$"
  r"|EncDecAttention\.relative_attention_bias\.weight$"
)
# The names of one embedding; checkpoints keep any one of them.
_SHARED = re.compile(
  r"(^|\.)(shared|embed_tokens|wte|word_embeddings|lm_head)\.weight$"
)
# Rotary models: no weight has the length of a text, but masks and scores grow
# with its square. Prompts and texts are far shorter.
_ROTARY = (*hf_fields.LLAMA_KINDS, "gemma", "gptj")
_ROTARY_LENGTH = 2048
# Gemma's first configs say gelu for the approximate one.
_GELUS = ("gelu_pytorch_tanh", "gelu", "gelu_new")


def build(folder: pathlib.Path, dtype: Any = jnp.float32) -> Any:
  """The Flax model of a folder's config.json, without parameters.

  Returns:
    A FlaxPreTrainedModel made with `_do_init=False`, or our own `Llama` where
    transformers' would ignore a setting; `params_shape_tree` has the shapes.

  Raises:
    InputError: no config.json, an architecture without a Flax class that
      generates text, an unknown or unsupported field, or an invalid number.
  """
  from transformers.models.auto.configuration_auto import CONFIG_MAPPING
  from transformers.models.auto.modeling_flax_auto import (
    FLAX_MODEL_FOR_CAUSAL_LM_MAPPING,
    FLAX_MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
  )

  path = folder / "config.json"
  content = hf_config.read(folder)
  kind = content.get("model_type")
  if type(kind) is not str or kind not in CONFIG_MAPPING:
    raise _no_class(path, kind)
  rope = None
  if kind in (*hf_fields.LLAMA_KINDS, "gemma"):
    rope = llama.read_rope(content, str(path))
  config = hf_config.make(CONFIG_MAPPING[kind], content, path)
  # BART and its like are in both; as a whole they are encoder and decoder.
  mappings = [
    FLAX_MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    FLAX_MODEL_FOR_CAUSAL_LM_MAPPING,
  ]
  classes = [m[type(config)] for m in mappings if type(config) in m]
  if not classes and kind not in hf_fields.LLAMA_KINDS:
    raise _no_class(path, kind)
  hf_fields.check_language(config, str(path))
  if kind in hf_fields.STRICT:
    heeded = (hf_fields.SCALES, "rope_parameters", "head_dim")
    hf_config.check_known(content, config, str(path), heeded=heeded)
  hf_fields.settle_t5_head(config, content, folder)
  if hf_fields.scales_outputs(config) is False:
    config.tie_word_embeddings = False
  unheeded = _unheeded(config, rope)
  _fit_lengths(config)
  if kind in hf_fields.LLAMA_KINDS and (unheeded or not classes):
    return llama.Llama(config, rope, dtype)
  if unheeded:
    raise InputError(
      f"{path}: transformers' Flax {kind} does not heed {unheeded}, so the "
      "model would write nonsense",
      "choose a Llama, SmolLM2, Qwen2, Mistral, or Flan-T5",
    )
  with hf_config.building(path):
    return classes[0](config, dtype=dtype, _do_init=False)


def _no_class(path: pathlib.Path, kind: Any) -> InputError:
  return InputError(
    f"{path}: model_type {kind!r:.80} has no Flax class that generates text",
    "choose a model of type t5, bart, gpt2, opt, llama, qwen2, gemma or "
    "mistral",
  )


def _unheeded(config: Any, rope: llama.Rope | None) -> str:
  """The settings that transformers' Flax class would ignore; "" if none.

  modeling_flax_{llama,mistral,gemma}.py: rotary positions have the base
  10000, whatever the config says; Mistral's windows are one token longer than
  in PyTorch; Gemma's activation is tanh's GELU unless hidden_activation says
  otherwise. modeling_flax_gpt2.py: scores are always
  divided by the root of a head's width, and by nothing else.
  """
  kind = config.model_type
  wanted: dict[str, tuple] = {}
  if kind in ("llama", "mistral"):
    own = config.hidden_size // config.num_attention_heads
    wanted["head_dim"] = (None, own)
  if kind == "llama":
    wanted["mlp_bias"] = (False,)
  if kind == "gemma":
    own = config.hidden_activation
    wanted["hidden_act"] = _GELUS if own in (None, *_GELUS) else (own,)
  if kind == "gpt2":
    wanted["scale_attn_weights"] = (True,)
    wanted["scale_attn_by_inverse_layer_idx"] = (False,)
    wanted["add_cross_attention"] = (False,)
  other = [
    f"{name}={getattr(config, name)!r}"
    for name, values in wanted.items()
    if getattr(config, name, values[0]) not in values
  ]
  if kind == "mistral" and (config.sliding_window or _ROTARY_LENGTH) < min(
    config.max_position_embeddings, _ROTARY_LENGTH
  ):
    other.append(f"sliding_window={config.sliding_window!r}")
  if rope is not None and not rope.is_plain:
    other.append(f"rope_theta={rope.base!r} of type {rope.kind!r}")
  return ", ".join(other)


def _fit_lengths(config: Any) -> None:
  if config.model_type in _ROTARY:
    config.max_position_embeddings = min(
      config.max_position_embeddings, _ROTARY_LENGTH
    )
  if config.model_type == "mistral":
    # Without a window Flax's mask would keep only the diagonal.
    longest = config.max_position_embeddings
    config.sliding_window = min(config.sliding_window or longest, longest)


def read(folder: pathlib.Path, model: Any) -> tuple[Tree, str]:
  """The weights of a folder, exactly those of the model.

  Args:
    folder: with weights in a format of `hf_weights`.
    model: from `build`, of the same folder.

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
  config = model.config
  scales = getattr(config, hf_fields.SCALES, None)
  tied = bool(getattr(config, "tie_word_embeddings", False))
  if tied and scales is None:
    _refuse_other_head(folder, tensors, names)
  # With transformers 5 the weights decide whether a T5's head is tied.
  tensors = _untied(tensors, names, tied=tied or scales is not None)
  tree = hf_weights.to_flax(tensors, wanted, source=str(folder))
  if scales and not tied:
    tree["lm_head"]["kernel"] *= np.float32(config.d_model**-0.5)
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


def _refuse_other_head(
  folder: pathlib.Path, tensors: Mapping[str, np.ndarray], wanted: list[str]
) -> None:
  """Raises InputError if a tied head exists and differs from the embedding."""
  have = [n for n in wanted if n in tensors and _SHARED.search(n)]
  heads = [n for n in have if "lm_head" in n]
  for head in heads:
    for name in set(have) - set(heads):
      if not np.array_equal(tensors[head], tensors[name]):
        raise InputError(
          f"{folder}: by config.json {head} is {name} (tie_word_embeddings), "
          "but they differ in the files",
          "set tie_word_embeddings to false if the model has a head of its "
          "own; else use the config.json and the weights of one model",
        )


def _untied(
  tensors: dict[str, np.ndarray], wanted: list[str], *, tied: bool
) -> dict[str, np.ndarray]:
  """Gives one embedding all the names of the Flax class.

  Encoder and decoder always share theirs, the head does if `tied`. A second
  copy is accepted only if it is equal.
  """

  def shares(name: str) -> bool:
    return bool(_SHARED.search(name)) and (tied or "lm_head" not in name)

  have = [n for n in tensors if shares(n)]
  missing = [n for n in wanted if shares(n) and n not in tensors]
  # The wanted name first: copies under other names are only compared.
  have.sort(key=lambda name: (name not in wanted, "lm_head" in name, name))
  if not have:
    return tensors
  source = tensors[have[0]]
  result = {**tensors, **dict.fromkeys(missing, source)}
  for name in have:
    if name not in wanted and np.array_equal(tensors[name], source):
      del result[name]
  return result
