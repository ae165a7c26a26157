"""The small world's own language model, which writes and judges rationales.

It stands in for an instruction-following model (Flan-T5, Llama ...): the same
code loads and prompts it, in the terse style of `rationales.prompts`. It
learns from frames that are in no folder; see `language_training`.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np

from input_pipeline import schema
from input_pipeline.small_world.situations.captions import all_words
from input_pipeline.small_world.situations.world import World
from mipd_jax.devices import sharding
from mipd_jax.rationales import jrg_report, prompts, rules, templates
from mipd_jax.rationales.frame import AnnotatedFrame
from mipd_jax.rationales.judging import Jrg, JrgConfig
from mipd_jax.teachers.checkpoints import hf_weights, tokenizer
from mipd_jax.teachers.language import language_model, weights
from mipd_jax.teachers.language import tokens as tokens_lib
from mipd_jax.teachers.small import language_training

# The settings of JRG for the small model.
JRG = JrgConfig(style=prompts.TERSE.name, temperature=0.3)
_MARKS = (":", ",", ".", "?")
# Words of `rationales.wording` that a few frames may lack.
_WORDING = """
small large top bottom left right middle someone something somewhere as
"""
_POSITIONS = 320
_EVAL_BATCH = 32


@dataclasses.dataclass(frozen=True)
class LanguageSettings:
  """A small Llama and its schedule.

  Attributes:
    width, layers, head_width: of the network.
    steps, batch_size, learning_rate: of the training.
    length: tokens of a training example; longer ones are left out.
    judged: share of the examples that are judgements.
    num_frames: frames to learn from, drawn once.
    eval_frames: held-out frames for the scores.
  """

  width: int = 128
  layers: int = 2
  head_width: int = 16
  steps: int = 400
  batch_size: int = 32
  learning_rate: float = 3e-3
  length: int = 128
  judged: float = 0.5
  num_frames: int = 2000
  eval_frames: int = 48

  @classmethod
  def debug(cls) -> "LanguageSettings":
    """20 steps of a tiny model: runs, learns nothing."""
    return cls(
      width=32,
      head_width=8,
      steps=20,
      batch_size=8,
      num_frames=24,
      eval_frames=2,
    )


def write(
  world: World,
  settings: LanguageSettings,
  seed: int,
  folder: str | os.PathLike,
) -> dict[str, float]:
  """Trains a small language model and writes it in Hugging Face's format.

  Args:
    world: gives verbs, nouns and their words.
    settings: sizes and schedule.
    seed: of weights, frames and order.
    folder: gets config.json, model.safetensors and the tokenizer.

  Returns:
    Scores on held-out frames, percent: texts accepted at the first attempt
    and with rewriting, right judgements of true and of false texts.
  """
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  # Seeds that differ from those of the folder's images, and from each other.
  frames = language_training.draw_frames(world, settings.num_frames, 2 * seed)
  held = language_training.draw_frames(
    world, settings.eval_frames, 2 * seed + 1
  )
  words = sorted(
    {*all_words(world), *_MARKS, *_WORDING.split(), *_words_of(frames)}
  )
  _save_tokenizer(folder, words)
  config = _config(settings, words)
  config.save_pretrained(folder)
  network = weights.build(folder)
  tokens = tokens_lib.load(folder, network.config)
  params = language_training.train(network, tokens, frames, settings, seed)
  hf_weights.write(folder / "model.safetensors", params)
  # One device: its batches are small.
  mesh = sharding.make_mesh(devices=jax.local_devices()[:1])
  model = language_model.load(folder, mesh=mesh, batch_size=_EVAL_BATCH)
  return scores(world, model, held)


def scores(
  world: World,
  model: language_model.LanguageModel,
  frames: Sequence[AnnotatedFrame],
) -> dict[str, float]:
  """The scores of `write`, for any model with the terse style."""
  words = language_training.world_vocabulary(world)
  checks = rules.Rules(words, range(len(words.verbs)), prompts.TERSE)
  nothing = [("",) * len(schema.RATIONALES)] * len(frames)
  report = jrg_report.Report()
  report.add(Jrg(model, checks, JRG).write(frames, nothing))
  kinds = report.to_json()["kinds"].values()
  first = sum(kind["accepted_at_attempt"].get("1", 0) for kind in kinds)
  model_wrote = sum(kind["written_by_model"] for kind in kinds)
  asked = model_wrote + sum(kind["written_by_template"] for kind in kinds)
  true, false = _judgements(model, frames)
  return {
    "accepted_at_first": _percent(first / asked),
    "accepted": _percent(model_wrote / asked),
    "judged_true": _percent(true),
    "judged_false": _percent(false),
  }


def _judgements(
  model: language_model.LanguageModel, frames: Sequence[AnnotatedFrame]
) -> tuple[float, float]:
  """Shares of true texts judged true, and of false ones judged false."""
  asked = [
    (kind, prompts.TERSE.ask(kind, frame, text))
    for frame in frames
    for kind, text in zip(
      schema.RATIONALES, templates.texts(frame), strict=True
    )
  ]
  positive = np.array([kind in prompts.POSITIVE for kind, _ in asked])
  truth = model.answer_probability([question for _, question in asked])
  return (
    float((truth[positive] >= JRG.judge).mean()),
    float((1 - truth[~positive] >= JRG.judge).mean()),
  )


def _percent(share: float) -> float:
  return round(100 * share, 1)


def _words_of(frames: Iterable[AnnotatedFrame]) -> set[str]:
  """Every word of the prompts and answers of some frames."""
  return {
    word
    for frame in frames
    for judge in (False, True)
    for example in language_training.examples(frame, judge=judge)
    for text in (example.prompt, example.answer)
    for word in _split(text)
  }


def _split(text: str) -> list[str]:
  for mark in _MARKS:
    text = text.replace(mark, f" {mark} ")
  return text.lower().split()


def _config(settings: LanguageSettings, words: Sequence[str]) -> Any:
  from transformers import LlamaConfig

  ids = tokenizer.vocabulary(words)
  return LlamaConfig(
    vocab_size=len(ids),
    hidden_size=settings.width,
    intermediate_size=2 * settings.width,
    num_hidden_layers=settings.layers,
    num_attention_heads=settings.width // settings.head_width,
    max_position_embeddings=_POSITIONS,
    tie_word_embeddings=True,
    attention_bias=True,
    pad_token_id=ids[tokenizer.PAD],
    bos_token_id=ids[tokenizer.BEGIN],
    eos_token_id=ids[tokenizer.END],
    architectures=["LlamaForCausalLM"],
  )


def _save_tokenizer(folder: pathlib.Path, words: Sequence[str]) -> None:
  """Word by word as in `tokenizer.save_word_level`, but with punctuation.

  A text gets a begin token only: it is to be continued.
  """
  from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
  )

  ids = tokenizer.vocabulary(words)
  inner = Tokenizer(models.WordLevel(ids, unk_token=tokenizer.UNKNOWN))
  inner.normalizer = normalizers.Sequence(
    [
      normalizers.Lowercase(),
      normalizers.Replace(Regex("[^a-z0-9:,.?]+"), " "),
    ]
  )
  inner.pre_tokenizer = pre_tokenizers.Sequence(
    [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("isolated")]
  )
  # Marks are attached to the word before them.
  inner.decoder = decoders.Sequence(
    [
      decoders.WordPiece(prefix="##", cleanup=False),
      *(decoders.Replace(f" {mark}", mark) for mark in _MARKS),
    ]
  )
  special = [
    tokenizer.PAD,
    tokenizer.UNKNOWN,
    tokenizer.BEGIN,
    tokenizer.END,
  ]
  inner.add_special_tokens(special)
  inner.post_processor = processors.TemplateProcessing(
    single=f"{tokenizer.BEGIN} $A",
    special_tokens=[(tokenizer.BEGIN, ids[tokenizer.BEGIN])],
  )
  inner.save(str(folder / "tokenizer.json"))
  names = ("pad_token", "unk_token", "bos_token", "eos_token")
  settings = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "clean_up_tokenization_spaces": False,
    "model_max_length": _POSITIONS,
    **dict(zip(names, special, strict=True)),
  }
  (folder / "tokenizer_config.json").write_text(
    json.dumps(settings, indent=2) + "\n"
  )
