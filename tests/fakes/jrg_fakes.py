"""A scripted language model and a split without files, for JRG's tests."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from input_pipeline import schema
from mipd_jax.rationales import rules, templates
from mipd_jax.rationales.frame import AnnotatedFrame
from mipd_jax.rationales.judging import JrgConfig
from mipd_jax.rationales.prompts import STYLES
from tests.fakes import fakes

WORDS = fakes.vocabulary()
SLEEPING = WORDS.verb_index["sleeping"]
# "sleeping" plays the unseen verb.
ALLOWED = tuple(v for v in range(len(WORDS.verbs)) if v != SLEEPING)


class Split:
  """What `jrg` reads of an `ImageSplit`: a few images of four verbs."""

  name = "train"

  def __init__(self, count: int = 6, own: dict[int, tuple] | None = None):
    self.names = tuple(f"{i}.jpg" for i in range(count))
    self._own = own or {}
    columns = fakes.columns(count)
    rng = np.random.default_rng(0)
    for row in range(count):
      verb = ALLOWED[row % len(ALLOWED)]
      frame = WORDS.frames[verb]
      columns[schema.VERB][row] = verb
      columns[schema.ROLES][row] = WORDS.frame_array[verb]
      columns[schema.NOUNS][row] = len(WORDS.nouns) - 1
      nouns = rng.integers(1, 6, (len(frame), 1))
      columns[schema.NOUNS][row, : len(frame)] = nouns
    columns[schema.BOXES][:] = -1
    self._columns = columns

  def __len__(self) -> int:
    return len(self.names)

  def annotations(self) -> dict[str, np.ndarray]:
    return dict(self._columns)

  def rationales(self, index: int) -> tuple[str, ...] | None:
    return self._own.get(index)


def frame(name: str = "a.jpg", place: int = 5) -> AnnotatedFrame:
  """A dog (or man) jumps over a fence at a park."""
  nouns = np.array([[1, 1, 2], [4, 4, 4], [place] * 3])
  boxes = np.array([[0.2, 0.5, 0.3, 0.4], [0.7, 0.9, 0.1, 0.1], [-1.0] * 4])
  writer = templates.RationaleWriter(WORDS, allowed_verbs=ALLOWED)
  return writer.frame(name, WORDS.verb_index["jumping"], nouns, boxes)


def checks(config: JrgConfig | None = None) -> rules.Rules:
  config = config or JrgConfig()
  style = STYLES[config.style]
  return rules.Rules(WORDS, ALLOWED, style, config.max_words)


@dataclasses.dataclass
class Scripted:
  """Answers by function; keeps what it was asked.

  Attributes:
    answer: (prompt, seed) -> text.
    judge: question -> probability of "yes".
    batch_size: prompts at a time, as a real model would go through them.
  """

  answer: Callable[[str, int], str]
  judge: Callable[[str], float]
  batch_size: int = 3
  name: str = "scripted"
  revision: str = "1"
  asked: list[str] = dataclasses.field(default_factory=list)
  seeds: list[int] = dataclasses.field(default_factory=list)
  questions: list[str] = dataclasses.field(default_factory=list)
  calls: int = 0

  def generate(
    self,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    temperature: float,
    seeds: Sequence[int],
  ) -> list[str]:
    self.calls += 1
    self.asked += prompts
    self.seeds += seeds
    return [self.answer(p, s) for p, s in zip(prompts, seeds, strict=True)]

  def answer_probability(self, prompts: Sequence[str]) -> np.ndarray:
    self.questions += prompts
    return np.array([self.judge(prompt) for prompt in prompts], np.float32)


def copyist(*, wrong_every: int = 0) -> Scripted:
  """Writes what the terse prompt says; every n-th draw is nonsense."""

  def answer(prompt: str, seed: int) -> str:
    if wrong_every and seed % wrong_every == 0:
      return "and and and"
    return prompt.removesuffix("scene:").removesuffix("things:")

  return Scripted(answer, _knows)


def _knows(question: str) -> float:
  """Whether the text is in the facts, word for word."""
  facts, _, said = question.partition("said:")
  told = said.removesuffix("true?").strip(" .")
  return float(told in facts)
