"""The config of a BLIP-2 checkpoint: read, and checked to be supported."""

import pathlib
from typing import Any

from input_pipeline.io import json_files
from input_pipeline.io.errors import InputError
from mipd_jax.teachers.checkpoints import hf_config, hf_fields

ARCHITECTURE = "Blip2ForConditionalGeneration"
T5, OPT = "t5", "opt"
_PARTS = ("vision_config", "qformer_config", "text_config")
# Blip2Model is the same weights under another torch class.
_ARCHITECTURES = (ARCHITECTURE, "Blip2Model")


def read(folder: pathlib.Path) -> Any:
  """The Blip2Config of a folder.

  If config.json has T5's `scale_decoder_outputs` (transformers 5), the weights
  decide whether the output layer is tied and set `tie_word_embeddings`.

  Raises:
    InputError: config.json is absent or broken, or is of another model.
  """
  from transformers import Blip2Config

  path = folder / "config.json"
  content = hf_config.read(folder)
  _check_kind(path, content)
  config = hf_config.make(Blip2Config, content, path)
  check(config, str(path))
  hf_config.check_known(content, config, str(path), heeded=_PARTS)
  for part in _PARTS:
    hf_config.check_known(
      content.get(part) or {},
      getattr(config, part),
      str(path),
      part,
      heeded=(hf_fields.SCALES,) if part == "text_config" else (),
    )
  hf_fields.settle_t5_head(
    config.text_config,
    content.get("text_config") or {},
    folder,
    "language_model.",
  )
  return config


def check(config: Any, source: str) -> None:
  """Raises InputError if a Blip2Config asks for unsupported features."""
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
  elif text.model_type == OPT and not (
    text.enable_bias and text.layer_norm_elementwise_affine
  ):
    problem = "OPT is without biases or without the norms' own weights"
  problem = problem or _bad_activation(config)
  if problem:
    raise InputError(
      f"{source}: {problem}",
      "give a BLIP-2 with T5 or OPT for conditional generation, such as "
      "Salesforce/blip2-flan-t5-xl or Salesforce/blip2-opt-2.7b",
    )
  _check_numbers(config, source)


def _bad_activation(config: Any) -> str | None:
  known, text = hf_config.activation(), config.text_config
  named = [config.vision_config.hidden_act, config.qformer_config.hidden_act]
  named.append(
    text.dense_act_fn if text.model_type == T5 else text.activation_function
  )
  unknown = [name for name in named if not known.fits(name)]
  return f"activations {unknown} are none of {known.told}" if unknown else None


def _check_numbers(config: Any, source: str) -> None:
  count = hf_config.COUNT
  tower = {
    "hidden_size": count,
    "intermediate_size": count,
    "num_hidden_layers": hf_config.LAYERS,
    "num_attention_heads": count,
    "layer_norm_eps": hf_config.EPSILON,
  }
  vision, qformer, text = (getattr(config, part) for part in _PARTS)
  hf_config.check(config, {"num_query_tokens": count}, source)
  own = {"qkv_bias": hf_config.SWITCH}
  hf_config.check(vision, tower | own, source, _PARTS[0])
  hf_config.check_patches(vision, source, _PARTS[0])
  own = {"cross_attention_frequency": count}
  hf_config.check(qformer, tower | own, source, _PARTS[1])
  if text.model_type == T5:
    hf_fields.check_t5(text, source, _PARTS[2])
    # The filler of targets.
    row = hf_config.token(text.vocab_size, needed=True)
    hf_config.check(text, {"pad_token_id": row}, source, _PARTS[2])
  else:
    hf_fields.check_opt(text, source, _PARTS[2])
  for part in (vision, qformer):
    hf_config.check_heads(part, source, part.model_type)


def num_image_tokens(config: Any) -> int:
  """A class token and a square grid of patches."""
  vision = config.vision_config
  return (vision.image_size // vision.patch_size) ** 2 + 1


def max_text_length(config: Any) -> int:
  """The most tokens of a prompt; in OPT images take positions too.

  T5 uses distances instead of positions; it was trained on 512 tokens.
  """
  text = config.text_config
  if text.model_type == OPT:
    return text.max_position_embeddings - config.num_query_tokens
  return getattr(text, "n_positions", 512)


def end_tokens(config: Any) -> tuple[int, ...]:
  """Ids that end an answer: eos_token_id of the text config, one or several.

  torch's `generate` reads the same field; BLIP-2's OPT has a line feed there.

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
  """Checks the kind before transformers, whose own messages are obscure."""
  remedy = "give the folder of a BLIP-2 checkpoint for conditional generation"
  if content.get("model_type") != "blip-2":
    raise InputError(
      f"{path}: model_type is {content.get('model_type')!r:.80}, not 'blip-2'",
      remedy,
    )
  named = content.get("architectures") or [ARCHITECTURE]
  json_files.check(named, [str], f"{path}: architectures", remedy)
  for part in _PARTS:
    json_files.check(
      content.get(part), (type(None), {str: object}), f"{path}: {part}", remedy
    )
  if not set(named) & set(_ARCHITECTURES):
    raise InputError(f"{path}: architectures are {named}", remedy)
  kind = (content.get("text_config") or {}).get("model_type", OPT)
  if kind not in (T5, OPT):
    raise InputError(
      f"{path}: the language model is {kind!r:.80}, not t5 or opt", remedy
    )
