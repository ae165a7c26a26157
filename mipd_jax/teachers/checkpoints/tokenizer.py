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

from input_pipeline.io import json_files
from input_pipeline.io.errors import InputError

_JSON_FILES = (
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "added_tokens.json",
  "vocab.json",
)
# transformers' classes that read pickles.
_PICKLED = ("TransfoXL",)
# Classes that want a library of sentencepiece's, or a newer transformers; a
# tokenizer.json beside says the same without.
_BY_FILE = ("SiglipTokenizer", "Siglip2Tokenizer")
PAD, UNKNOWN, BEGIN, END = "[PAD]", "[UNK]", "[BOS]", "[EOS]"


@dataclasses.dataclass(frozen=True)
class Tokenizer:
  """Wraps a Hugging Face tokenizer; pads texts to one length."""

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
      padding_side="right",  # whatever generation with the model needs
      truncation=True,
      max_length=max_length,
      return_attention_mask=True,
    )
    ids = np.asarray(encoded["input_ids"], np.int32)
    mask = np.asarray(encoded["attention_mask"], bool)
    return ids, mask


def load(folder: str | os.PathLike) -> Tokenizer:
  """Reads the tokenizer of a checkpoint folder.

  A tokenizer that is the folder's own Python, or pickled, is refused unread;
  nothing is asked on the terminal.

  Raises:
    InputError: the folder has none, or it cannot be read.
  """
  folder = pathlib.Path(folder)
  _check_files(folder)
  try:
    inner = _read(folder)
    inner("a")  # some settings are read only here
  except Exception as error:
    # transformers and tokenizers raise many types, plain Exception included.
    raise InputError(
      f"{folder}: no readable tokenizer ({error})",
      "put the model's tokenizer files (tokenizer.json and "
      "tokenizer_config.json, or vocab.json and merges.txt) in the folder",
    ) from error
  return Tokenizer(inner)


def _read(folder: pathlib.Path) -> Any:
  from transformers import AutoTokenizer, PreTrainedTokenizerFast
  from transformers.utils import logging

  kind = None
  settings, file = folder / "tokenizer_config.json", folder / "tokenizer.json"
  if settings.exists() and file.exists():
    kind = json.loads(settings.read_text("utf-8")).get("tokenizer_class")
  if kind not in _BY_FILE:
    return AutoTokenizer.from_pretrained(
      folder, local_files_only=True, trust_remote_code=False
    )
  said = logging.get_verbosity()
  logging.set_verbosity_error()  # it warns of the other class
  try:
    return PreTrainedTokenizerFast.from_pretrained(
      folder, local_files_only=True
    )
  finally:
    logging.set_verbosity(said)


def _check_files(folder: pathlib.Path) -> None:
  """Refuses files with obscure messages in transformers, and pickles."""
  again = "download the file again, from a model of transformers' own"
  for name in _JSON_FILES:
    path = folder / name
    if not path.exists():
      continue
    content = json_files.read(path, {str: object}, again)
    if path.read_bytes().startswith(b"\xef\xbb\xbf"):
      raise InputError(
        f"{path} begins with a byte order mark, which the tokenizers library "
        "does not read",
        "save the file as UTF-8 without a byte order mark",
      )
    if name != "tokenizer_config.json":
      continue
    if content.get("auto_map"):
      raise InputError(
        f"{path}: its tokenizer is Python code of the folder's own "
        f"(auto_map: {content['auto_map']!r:.200}), which is never run",
        "delete auto_map if tokenizer_class is one of transformers' own, or "
        "choose another checkpoint",
      )
    kind = str(content.get("tokenizer_class"))
    if kind.startswith(_PICKLED):
      raise InputError(
        f"{path}: a {kind} is kept in pickled files, which are never read",
        "choose another checkpoint",
      )


def check_ids(source: str, words: Tokenizer, rows: int) -> None:
  """Raises InputError unless a tokenizer can pad and its ids are rows.

  Args:
    source: name of the checkpoint.
    words: its tokenizer.
    rows: of the model's embedding table.
  """
  inner = words.inner
  highest = max(inner.get_vocab().values(), default=-1)
  if not 0 <= highest < rows:
    raise InputError(
      f"{source}: the tokenizer does not match the model: it has ids up to "
      f"{highest}, the embedding has {rows} rows",
      "use the tokenizer files and the weights of one and the same model",
    )
  if inner.pad_token_id is None:
    raise InputError(
      f"{source}: the tokenizer has no token to fill texts up with",
      "name the model's pad_token in tokenizer_config.json",
    )


def vocabulary(words: Sequence[str]) -> dict[str, int]:
  """Word -> id. Pad and unknown come first, begin and end last.

  The end token has the highest id, as in CLIP, so that transformers' two ways
  of finding it (by id, by argmax) agree.
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
