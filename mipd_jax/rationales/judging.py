"""The loop of JRG: write, check by rules, judge, write again."""

import contextlib
import dataclasses
import hashlib
import math
import os
import re
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from input_pipeline import ranges, schema
from input_pipeline.io.errors import InputError
from mipd_jax.rationales import jrg_report, prompts, rules, templates
from mipd_jax.rationales.frame import AnnotatedFrame

Texts = tuple[str, ...]


class Writer(Protocol):
  """What a language model must do.

  `language_model` is one on this machine, `served_model` one of a server.
  """

  @property
  def name(self) -> str:
    """The checkpoint's name, for people."""
    ...

  @property
  def revision(self) -> str:
    """Which model it is: sha256 of weights, settings and tokenizer, or a text.

    It differs where the same prompts and seeds may give other texts.
    """
    ...

  def generate(
    self,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    temperature: float,
    seeds: Sequence[int],
  ) -> list[str]:
    """Continues or answers each of n prompts, drawn by its own seed."""
    ...

  def answer_probability(self, prompts: Sequence[str]) -> np.ndarray:
    """The probability of "yes" to each of n questions, float32 [n].

    NaN where the answer is neither yes nor no.
    """
    ...


def keeping(
  model: Writer | None, path: str | os.PathLike
) -> contextlib.AbstractContextManager[None]:
  """Inside, a model whose answers cost much keeps each as it arrives.

  Args:
    model: keeps them if it has a method `keeping`; else it is asked again.
    path: its file, to be deleted when the answers are no longer needed.
  """
  keep = getattr(model, "keeping", None)
  return keep(path) if keep else contextlib.nullcontext()


def is_address(model: str) -> bool:
  """Whether a model is given by the address of its server."""
  return model.startswith(("http://", "https://"))


@dataclasses.dataclass(frozen=True)
class ServedConfig:
  """How a served model is asked; changes no text.

  Attributes:
    requests: at a time.
    timeout: seconds in which an answer must come, with its time in the
      server's queue.
  """

  requests: ranges.Count = 32
  timeout: ranges.Positive = 300.0


@dataclasses.dataclass(frozen=True)
class JrgConfig:
  """How texts are written and judged.

  Attributes:
    seed: of all draws.
    style: of the prompts, "full" or "terse".
    attempts: times that a text may be written, the first included.
    temperature: of the draw; 0 repeats the same text, so rewriting needs more.
    max_new_tokens: length at which a text is cut off.
    words: requested length.
    max_words: accepted length.
    judge: least probability of the judge for the right answer.
    definition_words: words of a noun's definition among the facts.
    images_per_part: images in a part; a stopped run loses at most one part.
  """

  seed: ranges.Whole = 0
  style: str = "full"
  attempts: ranges.Count = 4
  temperature: ranges.Weight = 0.7
  max_new_tokens: ranges.Count = 96
  words: ranges.Count = 50
  max_words: ranges.Count = 80
  judge: ranges.Share = 0.5
  definition_words: ranges.Whole = 8
  images_per_part: ranges.Count = 512

  def __post_init__(self):
    if self.style not in prompts.STYLES:
      raise InputError(
        f"there is no prompt style {self.style!r}",
        f"choose one of {sorted(prompts.STYLES)}",
      )
    if min(self.attempts, self.max_new_tokens, self.images_per_part) < 1:
      raise InputError(
        f"attempts={self.attempts}, max_new_tokens={self.max_new_tokens}, "
        f"images_per_part={self.images_per_part}",
        "give each at least 1",
      )
    if not 0 <= self.judge <= 1 or self.temperature < 0:
      raise InputError(
        f"judge={self.judge}, temperature={self.temperature}",
        "give a probability, and a temperature of 0 or more",
      )


@dataclasses.dataclass
class _Draft:
  """One text on its way."""

  frame: AnnotatedFrame
  kind: str
  template: str
  text: str = ""
  source: str = ""
  attempts: int = 0
  rejected: tuple[str, str] | None = None
  faults: list[rules.Fault] = dataclasses.field(default_factory=list)

  def reject(self, text: str, faults: Sequence[rules.Fault]) -> None:
    self.faults += faults
    self.rejected = (text, " and ".join(fault.detail for fault in faults))

  def accept(self, text: str, source: str) -> None:
    self.text, self.source = text, source

  def note(self) -> dict[str, Any]:
    return {
      "source": self.source,
      "attempts": self.attempts,
      "faults": [[fault.code, fault.detail] for fault in self.faults],
      "rejected": self.rejected[0] if self.rejected else "",
    }


class Jrg:
  """Writes the texts of some frames."""

  def __init__(
    self, model: Writer | None, checks: rules.Rules, config: JrgConfig
  ):
    self._model = model
    self._checks = checks
    self._config = config
    self._style = prompts.STYLES[config.style]

  def write(
    self, frames: Sequence[AnnotatedFrame], given: Sequence[Texts]
  ) -> list[dict[str, Any]]:
    """One record per frame.

    Args:
      frames: annotations of images.
      given: for each frame its existing texts, '' for none.

    Returns:
      {"image", "texts": kind -> text, "notes": kind -> {"source": one of
      `jrg_report`'s, "attempts", "faults": [code, detail] of all attempts,
      "rejected": the last rejected text}}.
    """
    rows = [self._drafts(*pair) for pair in zip(frames, given, strict=True)]
    drafts = [draft for row in rows for draft in row]
    for attempt in range(self._config.attempts if self._model else 0):
      self._attempt([d for d in drafts if not d.source], attempt)
    for draft in drafts:
      if not draft.source:
        draft.accept(draft.template, jrg_report.TEMPLATE)
    return [
      {
        "image": frame.image,
        "texts": {draft.kind: draft.text for draft in row},
        "notes": {draft.kind: draft.note() for draft in row},
      }
      for frame, row in zip(frames, rows, strict=True)
    ]

  def _drafts(self, frame: AnnotatedFrame, given: Texts) -> list[_Draft]:
    frame = self._checks.without_leaks(frame)
    drafts = []
    for kind, template, text in zip(
      schema.RATIONALES, templates.texts(frame), given, strict=True
    ):
      draft = _Draft(frame, kind, template)
      if text:
        draft.accept(text, jrg_report.GIVEN)
      elif kind in prompts.GAZE and not frame.instances:
        draft.accept("", jrg_report.NOTHING)
      drafts.append(draft)
    return drafts

  def _attempt(self, drafts: Sequence[_Draft], attempt: int) -> None:
    """Writes and judges each draft once more."""
    if not drafts:
      return
    config = self._config
    written = self._model.generate(
      [
        self._style.write(d.kind, d.frame, config.words, d.rejected)
        for d in drafts
      ],
      max_new_tokens=config.max_new_tokens,
      temperature=config.temperature,
      seeds=[
        _seed(config.seed, d.frame.image, d.kind, attempt) for d in drafts
      ],
    )
    sound = []
    for draft, raw in zip(drafts, written, strict=True):
      draft.attempts += 1
      text = tidy(raw)
      if faults := self._checks.check(draft.kind, text, draft.frame):
        draft.reject(text, faults)
      else:
        sound.append((draft, text))
    self._judge(sound)

  def _judge(self, sound: Sequence[tuple[_Draft, str]]) -> None:
    """Accepts texts that the model itself judges true (negatives: false)."""
    if not sound:
      return
    truth = self._model.answer_probability(
      [self._style.ask(d.kind, d.frame, text) for d, text in sound]
    )
    for (draft, text), true in zip(sound, truth.tolist(), strict=True):
      positive = draft.kind in prompts.POSITIVE
      if math.isnan(true):
        detail = "whether it is true cannot be told"
        draft.reject(text, [rules.Fault("not judged", detail)])
      elif (true if positive else 1 - true) >= self._config.judge:
        draft.accept(text, jrg_report.MODEL)
      elif positive:
        detail = "it is not true of the image"
        draft.reject(text, [rules.Fault("judged false", detail)])
      else:
        detail = "it is true of the image, but must be false"
        draft.reject(text, [rules.Fault("judged true", detail)])


def tidy(text: str) -> str:
  """A model's answer without quotes, labels and additions below it."""
  text = text.strip().split("\n\n")[0]
  text = re.sub(r"^(answer|response|output)\s*:\s*", "", text, flags=re.I)
  return " ".join(text.split()).strip("\"'“”` ")


def _seed(seed: int, image: str, kind: str, attempt: int) -> int:
  """Below 2**32; a function of the text's identity, not of any order."""
  text = f"{seed}/{image}/{kind}/{attempt}".encode()
  return int.from_bytes(hashlib.sha256(text).digest()[:4], "little")
