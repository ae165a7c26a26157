"""Checks of the fields of language models' configs.

They are the same for BLIP-2's language model and for models that write
rationales. See `hf_config` for reading, and for the class of a rule.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

from input_pipeline.io.errors import InputError
from mipd_jax.teachers.checkpoints import hf_config, hf_weights
from mipd_jax.teachers.checkpoints.hf_config import (
  COUNT,
  EPSILON,
  LAYERS,
  SWITCH,
)

# Kinds that scale a tied decoder's output as T5 does.
T5_KINDS = ("t5", "longt5", "mt5")
LLAMA_KINDS = ("llama", "mistral", "qwen2")
# Kinds whose unknown fields are refused.
STRICT = (*T5_KINDS, *LLAMA_KINDS, "opt", "gemma")
# Kinds with a field for the width of a head.
_OWN_HEADS = (*T5_KINDS, *LLAMA_KINDS, "gemma")
# Names of T5's embedding in files.
_T5_EMBEDDINGS = (
  "shared.weight",
  "encoder.embed_tokens.weight",
  "decoder.embed_tokens.weight",
)
SCALES = "scale_decoder_outputs"


def check_t5(text: Any, source: str, part: str = "") -> None:
  """Raises InputError for invalid fields of a T5's config."""
  buckets = hf_config.Rule(
    "a whole number of 4 or more",
    lambda value: COUNT.fits(value) and value >= 4,
  )
  number = "relative_attention_num_buckets"
  hf_config.check(text, {"vocab_size": COUNT, number: buckets}, source, part)
  one = hf_config.token(text.vocab_size)
  rules = {
    "d_model": COUNT,
    "d_ff": COUNT,
    "d_kv": COUNT,
    "num_heads": COUNT,
    "num_layers": LAYERS,
    "num_decoder_layers": LAYERS,
    "relative_attention_max_distance": hf_config.Rule(
      f"a whole number above half of {number}",
      lambda value: COUNT.fits(value) and 2 * value > getattr(text, number),
    ),
    "layer_norm_epsilon": EPSILON,
    "dense_act_fn": hf_config.activation(),
    "is_gated_act": SWITCH,
    "tie_word_embeddings": SWITCH,
    "pad_token_id": one,
    "decoder_start_token_id": one,
    "eos_token_id": hf_config.token(text.vocab_size, several=True),
  }
  hf_config.check(text, rules, source, part)
  name = text.feed_forward_proj
  wanted = (name.split("-")[-1], name.startswith("gated-"))
  stated = (text.dense_act_fn, text.is_gated_act)
  # By name, gated-gelu is the approximate one: gelu_new.
  if stated != wanted and (name, *stated) != ("gated-gelu", "gelu_new", True):
    raise InputError(
      f"{source}: {part and part + '.'}feed_forward_proj is {name!r:.80}, but "
      f"dense_act_fn is {stated[0]!r} and is_gated_act {stated[1]}",
      "give a folder with the model's own config.json",
    )
  if getattr(text, SCALES, None) is not None:
    hf_config.check(text, {SCALES: SWITCH}, source, part)


def check_opt(text: Any, source: str, part: str = "") -> None:
  """Raises InputError for invalid fields of an OPT's config."""
  hf_config.check(text, {"vocab_size": COUNT}, source, part)
  rules = {
    "hidden_size": COUNT,
    "ffn_dim": COUNT,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": COUNT,
    "max_position_embeddings": COUNT,
    "word_embed_proj_dim": COUNT,
    "activation_function": hf_config.activation(),
    "do_layer_norm_before": SWITCH,
    "tie_word_embeddings": SWITCH,
    "pad_token_id": hf_config.token(text.vocab_size),
    "eos_token_id": hf_config.token(text.vocab_size, several=True),
  }
  hf_config.check(text, rules, source, part)
  hf_config.check_heads(text, source, part)


def check_llama(config: Any, source: str) -> None:
  """Raises InputError for invalid fields of a Llama's config."""
  rules = {
    "vocab_size": COUNT,
    "hidden_size": COUNT,
    "intermediate_size": COUNT,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": COUNT,
    "num_key_value_heads": COUNT,
    "max_position_embeddings": COUNT,
    "rms_norm_eps": EPSILON,
    "hidden_act": hf_config.activation(),
    "tie_word_embeddings": SWITCH,
  }
  hf_config.check(config, rules, source)
  for name in ("head_dim", "sliding_window"):
    if getattr(config, name, None) is not None:
      hf_config.check(config, {name: COUNT}, source)
  if getattr(config, "head_dim", None) is None:
    hf_config.check_heads(config, source)
  for name in ("attention_bias", "mlp_bias"):
    if hasattr(config, name):
      hf_config.check(config, {name: SWITCH}, source)
  if config.model_type == "qwen2":
    hf_config.check(config, {"layer_types": _layer_types(config)}, source)
  width = getattr(config, "head_dim", None)
  width = width or config.hidden_size // config.num_attention_heads
  if width % 2:
    raise InputError(
      f"{source}: heads are {width} wide, rotary positions want pairs",
      "check head_dim, hidden_size and num_attention_heads in it",
    )
  heads, shared = config.num_attention_heads, config.num_key_value_heads
  if heads % shared:
    raise InputError(
      f"{source}: num_key_value_heads is {shared}, expected a divisor of "
      f"num_attention_heads, {heads}",
      "give a folder with the model's own config.json",
    )


def _layer_types(config: Any) -> hf_config.Rule:
  layers, kinds = config.num_hidden_layers, {"full_attention"}
  if config.sliding_window is not None:
    kinds.add("sliding_attention")
  return hf_config.Rule(
    f"{' or '.join(sorted(kinds))} for each of {layers} layers",
    lambda value: (
      isinstance(value, list | tuple)
      and len(value) == layers
      and all(kind in kinds for kind in value)
    ),
  )


def check_language(config: Any, source: str) -> None:
  """Raises InputError for invalid fields of any language model's config."""
  kind = config.model_type
  if kind in T5_KINDS:
    check_t5(config, source)
  elif kind == "opt":
    check_opt(config, source)
  elif kind in LLAMA_KINDS:
    check_llama(config, source)
  else:
    rules = {
      "vocab_size": COUNT,
      "hidden_size": COUNT,
      "num_hidden_layers": LAYERS,
      "num_attention_heads": COUNT,
    }
    hf_config.check(config, rules, source)
    if kind not in _OWN_HEADS:
      hf_config.check_heads(config, source)
  if getattr(config, "max_position_embeddings", None) is not None:
    hf_config.check(config, {"max_position_embeddings": COUNT}, source)


def settle_t5_head(
  config: Any,
  content: Mapping[str, Any],
  folder: pathlib.Path,
  prefix: str = "",
) -> None:
  """Decides from a folder's weights how a T5 computes its logits.

  Up to transformers 4, `tie_word_embeddings` told whether the output layer is
  the embedding, and also whether its input is scaled by d_model**-0.5.
  transformers 5 always writes true, beside `scale_decoder_outputs`, and ties
  unless the weights have a head of their own; its MT5 never scales. Sets both
  fields of `config`.

  Args:
    config: transformers' config of a T5.
    content: its part of config.json.
    folder: of the weights.
    prefix: of the weights' names.
  """
  version = str(content.get("transformers_version", "")).split(".")[0]
  newer = version.isdecimal() and int(version) >= 5
  if config.model_type not in T5_KINDS:
    return
  if config.model_type == "mt5" and newer and SCALES not in content:
    setattr(config, SCALES, False)
  if getattr(config, SCALES, None) is None:
    return
  names = hf_weights.names(folder)
  own = f"{prefix}lm_head.weight" in names
  config.tie_word_embeddings = not (
    own and names.intersection(prefix + name for name in _T5_EMBEDDINGS)
  )


def scales_outputs(config: Any) -> bool:
  """Whether a T5 scales its output layer's input by d_model**-0.5."""
  scales = getattr(config, SCALES, None)
  return config.tie_word_embeddings if scales is None else scales
