"""A frozen BLIP-2 with compiled methods and text.

Arguments are checked: shapes always, values on the host. On a device, an id
beyond the vocabulary would silently become NaN or another word's embedding.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from input_pipeline.io.errors import InputError
from mipd_jax.teachers.blip2 import config as configs
from mipd_jax.teachers.blip2.decoders import greedy, language
from mipd_jax.teachers.blip2.decoders.candidates import CandidateTree
from mipd_jax.teachers.blip2.decoders.language import Params
from mipd_jax.teachers.blip2.module import LANGUAGE_TOKENS, Blip2Module
from mipd_jax.teachers.blip2.pure import (
  PureBlip2,
  check_pixels,
  check_prompt,
  check_targets,
)
from mipd_jax.teachers.checkpoints import hf_config
from mipd_jax.teachers.checkpoints import tokenizer as tokenizers


@dataclasses.dataclass(frozen=True, eq=False)
class Blip2(PureBlip2):
  """A frozen BLIP-2 (Li et al. 2023, arXiv 2301.12597).

  Methods that take `params` are pure: they can be compiled, differentiated
  and given sharded parameters. The others compile and use `self.params`.
  Image tokens come before the prompt, as in transformers 4.57.

  Letters: B images, H and W pixels, N image tokens (class token, then the
  grid row by row) of width Dv, Q queries of width Dq, Dl the language model's
  width, P prompt tokens, T target tokens, V words, C candidates.

  Attributes:
    name: folder or id that it was loaded from.
    revision: sha256 of weights, settings and tokenizer.
    module: from `build`, with the dtype of the arithmetic.
    config: transformers' Blip2Config.
    params: nested dict of arrays.
    tokenizer: the checkpoint's own, None if it has none.
    mean, std: of the pixel normalisation, RGB, on a scale of 0 to 1.
  """

  name: str
  revision: str
  module: Blip2Module
  config: Any
  params: Params
  tokenizer: tokenizers.Tokenizer | None = None
  mean: tuple[float, ...] = hf_config.MEAN
  std: tuple[float, ...] = hf_config.STD

  def __post_init__(self):
    check_tokenizer(self.name, self.config, self.tokenizer)

  @property
  def image_size(self) -> int:
    """Side of the square input, pixels."""
    return self.config.vision_config.image_size

  @property
  def num_image_tokens(self) -> int:
    """N."""
    return configs.num_image_tokens(self.config)

  @property
  def vision_width(self) -> int:
    """Dv."""
    return self.config.vision_config.hidden_size

  @property
  def num_query_tokens(self) -> int:
    """Q."""
    return self.config.num_query_tokens

  @property
  def query_width(self) -> int:
    """Dq."""
    return self.config.qformer_config.hidden_size

  @property
  def language_width(self) -> int:
    """Dl."""
    return self.config.text_config.hidden_size

  @property
  def max_text_length(self) -> int:
    """The most tokens of a prompt."""
    return configs.max_text_length(self.config)

  # Compiled, with this model's own parameters.

  def encode_image(self, pixel_values: jax.Array) -> dict[str, jax.Array]:
    """Images -> tokens of all three stages.

    Args:
      pixel_values: [B, 3, H, W], floating, normalised by `mean` and `std`.

    Returns:
      vision_tokens [B, N, Dv] after the last layer norm, query_tokens
      [B, Q, Dq] of the Q-Former, language_tokens [B, Q, Dl] projected.

    Raises:
      InputError: another shape.
    """
    check_pixels(self.config, pixel_values, channels_last=False)
    return self._compiled(self.encode)(self.params, pixel_values)

  def target_logits(
    self,
    pixel_values: jax.Array,
    prompt_ids: jax.Array,
    prompt_mask: jax.Array,
    target_ids: jax.Array,
  ) -> jax.Array:
    """Logits that predict the target, teacher-forced.

    Args:
      pixel_values: [B, 3, H, W], normalised.
      prompt_ids, prompt_mask: [B, P], text after the image; mask 0 is filler.
      target_ids: [B, T], with the end token; -100 is ignored.

    Returns:
      float32 [B, T, V].

    Raises:
      InputError: shapes that do not fit, ids beyond the vocabulary.
    """
    self._check(pixel_values, prompt_ids, prompt_mask, target_ids)
    image = self._language_tokens(pixel_values)
    return self._compiled(self.answer_logits)(
      self.params, image, prompt_ids, prompt_mask, target_ids
    )

  def score(
    self,
    pixel_values: jax.Array,
    prompt_ids: jax.Array,
    prompt_mask: jax.Array,
    target_ids: jax.Array,
  ) -> jax.Array:
    """Log-likelihood of the target: `target_logits`' arguments -> [B]."""
    logits = self.target_logits(
      pixel_values, prompt_ids, prompt_mask, target_ids
    )
    return self._compiled(language.log_likelihood)(logits, target_ids)

  def generate(
    self,
    pixel_values: jax.Array,
    prompt_ids: jax.Array,
    prompt_mask: jax.Array,
    max_new_tokens: int = 20,
    eos_token_id: int | Sequence[int] | None = None,
  ) -> np.ndarray:
    """The greedy answer, as torch's `generate` with its defaults.

    Args:
      pixel_values: [B, 3, H, W], normalised.
      prompt_ids, prompt_mask: [B, P].
      max_new_tokens: most tokens of an answer; another value compiles anew.
      eos_token_id: ends an answer; the text config's if None.

    Returns:
      int32 [B, n], n the longest answer's length, at most max_new_tokens; with
      end tokens and filler after them, without the start token.

    Raises:
      InputError: as in `target_logits`; or max_new_tokens below 1.
    """
    self._check(pixel_values, prompt_ids, prompt_mask)
    if max_new_tokens < 1:
      raise InputError(
        f"max_new_tokens is {max_new_tokens}", "ask for one token or more"
      )
    if eos_token_id is None:
      end = configs.end_tokens(self.config)
    else:
      end = tuple(np.atleast_1d(eos_token_id).tolist())
    run = self._compiled(self.greedy, "length", "end")
    ids = run(
      self.params,
      self._language_tokens(pixel_values),
      prompt_ids,
      prompt_mask,
      length=max_new_tokens,
      end=end,
    )
    return greedy.trimmed(np.asarray(ids), end)

  # Text, on the host.

  def tokenize(
    self, texts: Sequence[str], max_length: int | None = None
  ) -> tuple[np.ndarray, np.ndarray]:
    """Prompts -> ids int32 [n, L], mask bool [n, L]; L is at most the model's.

    Raises:
      InputError: the checkpoint has no tokenizer.
    """
    most = self.max_text_length
    return self._tokenizer()(texts, min(max_length or most, most))

  def tokenize_answers(self, texts: Sequence[str]) -> CandidateTree:
    """Answers, each followed by the end token, ready to be scored.

    OPT's pieces of a word within a sentence begin with a space, which is
    added where it is missing.

    Raises:
      InputError: the checkpoint has no tokenizer, or a text has no tokens.
    """
    inner = self._tokenizer().inner
    end = configs.end_tokens(self.config)[0]
    if self.config.text_config.model_type == configs.OPT:
      texts = [text if text[:1].isspace() else f" {text}" for text in texts]
    rows = []
    if len(texts):
      rows = inner(list(texts), add_special_tokens=False)["input_ids"]
    empty = [text for text, row in zip(texts, rows, strict=True) if not row]
    if empty:
      raise InputError(
        f"{self.name}: answers without any token: {empty}",
        "give texts of words that the tokenizer knows",
      )
    return CandidateTree.build([[*row, end] for row in rows])

  def _language_tokens(self, pixel_values: jax.Array) -> jax.Array:
    # Encoding is a separate program, which all questions share.
    return self._compiled(self.encode)(self.params, pixel_values)[
      LANGUAGE_TOKENS
    ]

  def _compiled(self, function: Callable, *static: str) -> Callable:
    name = function.__qualname__
    if name not in self._programs:
      self._programs[name] = jax.jit(function, static_argnames=static)
    return self._programs[name]

  @functools.cached_property
  def _programs(self) -> dict[str, Callable]:
    return {}

  def _check(self, pixel_values, ids, mask, targets=None) -> None:
    check_pixels(self.config, pixel_values, channels_last=False)
    images = np.shape(pixel_values)[0]
    check_prompt(self.config, images, ids, mask)
    if targets is not None:
      check_targets(self.config, images, targets)

  def _tokenizer(self) -> tokenizers.Tokenizer:
    if self.tokenizer is None:
      raise InputError(
        f"{self.name}: there is no tokenizer with this BLIP-2",
        "put the checkpoint's tokenizer.json and tokenizer_config.json in its "
        "folder, or hand over token ids instead of texts",
      )
    return self.tokenizer


def check_tokenizer(
  source: str, config: Any, words: tokenizers.Tokenizer | None
) -> None:
  """Raises InputError if its ids are not rows of the embedding."""
  if words is None:
    return
  tokenizers.check_ids(source, words, config.text_config.vocab_size)
