"""Prompts to token ids and back, by the checkpoint's own rules."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from input_pipeline.io import json_files
from input_pipeline.io.errors import InputError
from mipd_jax.teachers.checkpoints import tokenizer


@dataclasses.dataclass(frozen=True)
class LanguageTokens:
  """A tokenizer with the first and last tokens of a text.

  Attributes:
    name: of the checkpoint, for messages.
    inner: transformers' tokenizer.
    prefix: a decoder's first tokens; () for decoder-only models.
    stops: tokens that end a text.
  """

  name: str
  inner: Any
  prefix: tuple[int, ...]
  stops: tuple[int, ...]

  @property
  def size(self) -> int:
    """Number of tokens; embeddings often have more rows."""
    return max(self.inner.get_vocab().values()) + 1

  @property
  def pad(self) -> int:
    pad = self.inner.pad_token_id
    return self.stops[0] if pad is None else pad

  def encode(self, prompt: str) -> list[int]:
    """Ids of a prompt, in the checkpoint's chat form if it has one."""
    if self.inner.chat_template:
      turns = [{"role": "user", "content": prompt}]
      # The template writes the special tokens itself.
      return self._bare(
        self.inner.apply_chat_template(
          turns, tokenize=False, add_generation_prompt=True
        )
      )
    ids = self.inner(prompt)["input_ids"]
    if not self.prefix and len(ids) > 1 and ids[-1] == self.inner.eos_token_id:
      return ids[:-1]  # without the end token: the text is to be continued
    return ids

  def decode(self, ids: np.ndarray) -> list[str]:
    """int32 [n, T] -> n texts without special tokens."""
    texts = self.inner.batch_decode(ids, skip_special_tokens=True)
    return [text.strip() for text in texts]

  def first_tokens(
    self, yes: Sequence[str], no: Sequence[str]
  ) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """First tokens of two answers, without common ones.

    Args:
      yes, no: spellings of each answer.

    Raises:
      InputError: one of them has none left.
    """

    def first(texts: Sequence[str]) -> set[int]:
      ids = [self._bare(text) for text in texts]
      unknown = self.inner.unk_token_id
      return {some[0] for some in ids if some and some[0] != unknown}

    yes_ids, no_ids = first(yes), first(no)
    yes_ids, no_ids = yes_ids - no_ids, no_ids - yes_ids
    if not yes_ids or not no_ids:
      raise InputError(
        f"{self.name}: its tokenizer does not tell {yes!r} from {no!r} by "
        "the first token",
        "choose a language model that knows the words yes and no",
      )
    return tuple(sorted(yes_ids)), tuple(sorted(no_ids))

  def _bare(self, text: str) -> list[int]:
    """Ids of a text, without special tokens."""
    return self.inner(text, add_special_tokens=False)["input_ids"]


def load(folder: pathlib.Path, config: Any) -> LanguageTokens:
  """Reads the tokenizer of a checkpoint and fits it to the model's config.

  Raises:
    InputError: it cannot be read, has ids beyond the embeddings, or lacks a
      token to begin or end a text.
  """
  inner = tokenizer.load(folder).inner
  _check(inner, config, folder)
  generation = _generation(config, folder)
  prefix = _prefix(config, generation, folder)
  stops = _stops(config, generation, inner, folder)
  for part, ids in (("decoder begins with", prefix), ("text ends with", stops)):
    bad = [
      i for i in ids if type(i) is not int or not 0 <= i < config.vocab_size
    ]
    if bad:
      raise InputError(
        f"{folder}: the token that a {part} is {bad[0]!r:.80}, but the model "
        f"has {config.vocab_size} embeddings",
        "check decoder_start_token_id, bos_token_id and eos_token_id in "
        "config.json and generation_config.json",
      )
  return LanguageTokens(
    name=str(folder), inner=inner, prefix=prefix, stops=tuple(sorted(stops))
  )


def _check(inner: Any, config: Any, folder: pathlib.Path) -> None:
  highest = max(inner.get_vocab().values(), default=-1)
  if not 0 <= highest < config.vocab_size:
    raise InputError(
      f"{folder}: the tokenizer's ids go up to {highest}, but the model has "
      f"{config.vocab_size} embeddings",
      "put the tokenizer files and the weights of one and the same model "
      "into the folder",
    )
  if inner.chat_template:
    try:
      import jinja2  # noqa: F401
    except ImportError as error:
      raise InputError(
        f"{folder}: its tokenizer has a chat template, which needs jinja2",
        "pip install jinja2",
      ) from error


def _generation(config: Any, folder: pathlib.Path) -> Any:
  """A checkpoint's generation settings, from its file or its config."""
  from transformers import GenerationConfig

  path = folder / "generation_config.json"
  if not path.exists():
    return GenerationConfig.from_model_config(config)
  again = "download the file again, or delete it"
  content = json_files.read(path, {str: object}, again)
  try:
    return GenerationConfig.from_dict(content)
  except Exception as error:  # transformers raises many types
    raise InputError(f"{path}: {error}", again) from error


def _prefix(
  config: Any, generation: Any, folder: pathlib.Path
) -> tuple[int, ...]:
  """A decoder's first tokens; () for a decoder-only model."""
  if not config.is_encoder_decoder:
    return ()
  begin = (generation.decoder_start_token_id, config.decoder_start_token_id)
  begin = [
    token for token in (*begin, config.bos_token_id) if token is not None
  ]
  if not begin:
    raise InputError(
      f"{folder}/config.json has neither decoder_start_token_id nor "
      "bos_token_id",
      "add the token that the decoder begins with",
    )
  forced = generation.forced_bos_token_id
  return (begin[0],) if forced is None else (begin[0], forced)


def _stops(
  config: Any, generation: Any, inner: Any, folder: pathlib.Path
) -> tuple[int, ...]:
  """Tokens that end a text; chat models have several."""
  candidates = (
    inner.eos_token_id,
    config.eos_token_id,
    generation.eos_token_id,
  )
  flat: list[Any] = []
  for some in candidates:
    tokens = some if isinstance(some, list) else [some]
    flat += [token for token in tokens if token not in (None, *flat)]
  if not flat:
    raise InputError(
      f"{folder}: neither tokenizer nor config names an end token",
      "set eos_token_id in config.json",
    )
  return tuple(flat)
