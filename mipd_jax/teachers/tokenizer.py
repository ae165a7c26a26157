"""Tokenizers: text -> token ids and a mask, by a checkpoint's own rules.

A checkpoint's tokenizer is read by `transformers.AutoTokenizer`. The small
foundation models have a word-level one, made here and saved in the same
format.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from input_pipeline.errors import InputError

PAD, UNKNOWN, BEGIN, END = "[PAD]", "[UNK]", "[BOS]", "[EOS]"


@dataclasses.dataclass(frozen=True)
class Tokenizer:
  """Wraps a Hugging Face tokenizer; texts come out padded to one length."""

  inner: Any

  def __call__(
    self, texts: Sequence[str], max_length: int
  ) -> tuple[np.ndarray, np.ndarray]:
    """Tokenizes texts.

    Args:
      texts: any number of them.
      max_length: L; longer texts are cut, their end token kept.

    Returns:
      ids int32 [n, L] and mask bool [n, L], True up to the end token.
    """
    if not len(texts):
      shape = (0, max_length)
      return np.zeros(shape, np.int32), np.zeros(shape, bool)
    encoded = self.inner(
      list(texts),
      padding="max_length",
      truncation=True,
      max_length=max_length,
      return_attention_mask=True,
    )
    ids = np.asarray(encoded["input_ids"], np.int32)
    mask = np.asarray(encoded["attention_mask"], bool)
    return ids, mask


def load(folder: str | os.PathLike) -> Tokenizer:
  """Reads the tokenizer of a checkpoint folder.

  Raises:
    InputError: the folder has none, or it cannot be read.
  """
  from transformers import AutoTokenizer

  try:
    inner = AutoTokenizer.from_pretrained(folder, local_files_only=True)
  except Exception as error:
    # transformers and tokenizers raise many types, plain Exception included.
    raise InputError(
      f"{folder}: no readable tokenizer ({error})",
      "put the model's tokenizer files (tokenizer.json and "
      "tokenizer_config.json, or vocab.json and merges.txt) in the folder",
    ) from error
  return Tokenizer(inner)


def vocabulary(words: Sequence[str]) -> dict[str, int]:
  """Word -> id. Pad and unknown come first, begin and end last.

  The end token has the highest id, as in CLIP, so both ways in which
  transformers finds it (by id, by argmax) agree.
  """
  order = [PAD, UNKNOWN, *words, BEGIN, END]
  return {word: index for index, word in enumerate(order)}


def save_word_level(
  folder: pathlib.Path,
  words: Sequence[str],
  max_length: int,
  *,
  begin: bool = True,
) -> None:
  """Writes a word-level tokenizer that AutoTokenizer reads.

  Text is lower-cased and everything but letters and digits separates words;
  a word outside `words` becomes the unknown token. With `begin` texts start
  with the begin token, as CLIP's do; T5's do not. All end with the end token.
  """
  from tokenizers import (
    Regex,
    Tokenizer,
    models,
    normalizers,
    pre_tokenizers,
    processors,
  )

  ids = vocabulary(words)
  inner = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
  inner.normalizer = normalizers.Sequence(
    [
      normalizers.Lowercase(),
      normalizers.Replace(Regex("[^a-z0-9]+"), " "),
    ]
  )
  inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
  inner.add_special_tokens([PAD, UNKNOWN, BEGIN, END])
  inner.post_processor = processors.TemplateProcessing(
    single=f"{BEGIN} $A {END}" if begin else f"$A {END}",
    special_tokens=[(BEGIN, ids[BEGIN]), (END, ids[END])],
  )
  inner.save(str(folder / "tokenizer.json"))
  settings = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "model_max_length": max_length,
    "pad_token": PAD,
    "unk_token": UNKNOWN,
    "bos_token": BEGIN,
    "eos_token": END,
  }
  (folder / "tokenizer_config.json").write_text(
    json.dumps(settings, indent=2) + "\n"
  )
