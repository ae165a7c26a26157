"""The config of a BLIP-2 checkpoint: found, read, and checked to be ours."""

import pathlib
from typing import Any

from input_pipeline.errors import InputError
from mipd_jax.teachers import hf_weights

ARCHITECTURE = "Blip2ForConditionalGeneration"
T5, OPT = "t5", "opt"
# Blip2Model is the same weights under another torch class.
_ARCHITECTURES = (ARCHITECTURE, "Blip2Model")


def read(folder: pathlib.Path) -> Any:
  """The Blip2Config of a folder.

  Raises:
    InputError: config.json is absent or broken, or is of another model.
  """
  from transformers import Blip2Config

  path = folder / "config.json"
  content = hf_weights.read_config(folder)
  _check_kind(path, content)
  config = Blip2Config.from_dict(content)
  check(config, str(path))
  return config


def check(config: Any, source: str) -> None:
  """Raises InputError if a Blip2Config asks for what is not built here."""
  text, qformer = config.text_config, config.qformer_config
  problem = None
  if text.model_type not in (T5, OPT):
    problem = f"the language model is {text.model_type!r}, not t5 or opt"
  elif qformer.use_qformer_text_input:
    problem = "the Q-Former reads text (use_qformer_text_input)"
  elif qformer.position_embedding_type != "absolute":
    problem = f"Q-Former positions are {qformer.position_embedding_type!r}"
  elif text.model_type == OPT and text.word_embed_proj_dim != text.hidden_size:
    problem = "OPT's word_embed_proj_dim is not its hidden_size"
  problem = problem or _bad_activation(config) or _bad_heads(config)
  if problem:
    raise InputError(
      f"{source}: {problem}",
      "give a BLIP-2 with T5 or OPT for conditional generation, such as "
      "Salesforce/blip2-flan-t5-xl or Salesforce/blip2-opt-2.7b",
    )


def _bad_activation(config: Any) -> str | None:
  from transformers.modeling_flax_utils import ACT2FN

  text = config.text_config
  named = [config.vision_config.hidden_act, config.qformer_config.hidden_act]
  named.append(
    text.dense_act_fn if text.model_type == T5 else text.activation_function
  )
  unknown = [name for name in named if name not in ACT2FN]
  known = ", ".join(sorted(ACT2FN))
  return f"activations {unknown} are none of {known}" if unknown else None


def _bad_heads(config: Any) -> str | None:
  parts = [config.vision_config, config.qformer_config]
  if config.text_config.model_type == OPT:  # T5 names its heads' width
    parts.append(config.text_config)
  for part in parts:
    if part.hidden_size % part.num_attention_heads:
      return (
        f"{part.model_type}: {part.num_attention_heads} heads do not divide "
        f"a width of {part.hidden_size}"
      )
  return None


def num_image_tokens(config: Any) -> int:
  """A class token and a square grid of patches."""
  vision = config.vision_config
  return (vision.image_size // vision.patch_size) ** 2 + 1


def max_text_length(config: Any) -> int:
  """The most tokens that a prompt may have: OPT's images take positions too.

  T5 knows distances and no positions; it was trained on 512 tokens.
  """
  text = config.text_config
  if text.model_type == OPT:
    return text.max_position_embeddings - config.num_query_tokens
  return getattr(text, "n_positions", 512)


def end_tokens(config: Any) -> tuple[int, ...]:
  """Ids that end an answer: eos_token_id of the text config, one or several.

  torch's `generate` reads the same place; BLIP-2's OPT has a line feed there.

  Raises:
    InputError: the text config has none.
  """
  eos = config.text_config.eos_token_id
  if eos is None:
    raise InputError(
      "the text config has no eos_token_id",
      "set eos_token_id in text_config of config.json",
    )
  return tuple(eos) if isinstance(eos, (list, tuple)) else (eos,)


def _check_kind(path: pathlib.Path, content: dict) -> None:
  """Before transformers reads it: its complaints about others are obscure."""
  remedy = "give the folder of a BLIP-2 checkpoint for conditional generation"
  if content.get("model_type") != "blip-2":
    raise InputError(
      f"{path}: model_type is {content.get('model_type')!r}, not 'blip-2'",
      remedy,
    )
  named = content.get("architectures") or [ARCHITECTURE]
  if not set(named) & set(_ARCHITECTURES):
    raise InputError(f"{path}: architectures are {named}", remedy)
  kind = (content.get("text_config") or {}).get("model_type", OPT)
  if kind not in (T5, OPT):
    raise InputError(
      f"{path}: the language model is {kind!r}, not t5 or opt", remedy
    )
