"""The prompts of the language model: four tasks, rewriting, and judging.

A style is a set of texts; the code is the same for all. `FULL` is for models
that follow instructions (Flan-T5, Llama chat, Gemma-it ...), `TERSE` for the
small world's own model, which knows a few hundred words.
  Fields of a text, in braces, are filled from an `AnnotatedFrame`:
    verb, meaning, sentence, parts           the activity
    wrong_verb, wrong_meaning, wrong_sentence, wrong_parts     the wrong one
    instances, wrong_instances, swaps        who, what, where; the exchanges
  nouns                                    names that a text must (not) have
  words                                    greatest length
  facts, text, reason                      of rewriting and judging
"""

import dataclasses
from collections.abc import Mapping, Sequence

from input_pipeline import schema
from mipd_jax.rationales import wording
from mipd_jax.rationales.frame import AnnotatedFrame, Instance
from mipd_jax.rationales.wording import with_article

GLIMPSE_POS, GLIMPSE_NEG, GAZE_POS, GAZE_NEG = schema.RATIONALES
POSITIVE = (GLIMPSE_POS, GAZE_POS)
GAZE = (GAZE_POS, GAZE_NEG)
# Part of a run's settings: raise it when any text changes.
VERSION = "prompts-1"
# Other words for a noun in a prompt.
_ALSO = 4


@dataclasses.dataclass(frozen=True)
class PromptStyle:
  """The texts of one style.

  Attributes:
    name: of the style.
    glimpse_facts, gaze_facts: the facts, for writing and for judging.
    tasks: what to write, by kind.
    rewrite: added to a task after a text was rejected.
    judge: the question about a text; "yes" means that it is true.
    prompt: joins facts and task.
    instance: one line of `instances`: role, noun, a_noun, looks, place, also.
    between: separates lines.
  """

  name: str
  glimpse_facts: str
  gaze_facts: str
  tasks: Mapping[str, str]
  rewrite: str
  judge: str
  prompt: str
  instance: str
  between: str

  def write(
    self,
    kind: str,
    frame: AnnotatedFrame,
    words: int,
    rejected: tuple[str, str] | None = None,
  ) -> str:
    """The prompt for one text.

    Args:
      kind: one of `schema.RATIONALES`.
      frame: the annotation.
      words: the requested greatest length.
      rejected: the last text and the reason of its rejection.
    """
    fields = self._fields(frame) | {"words": str(words)}
    task = self.tasks[kind].format_map(fields)
    if rejected is not None:
      text, reason = rejected
      task += self.rewrite.format(text=text, reason=reason)
    facts = self._facts(kind).format_map(fields)
    return self.prompt.format(facts=facts, task=task)

  def ask(self, kind: str, frame: AnnotatedFrame, text: str) -> str:
    """The question whether a text is true of the image."""
    facts = self._facts(kind).format_map(self._fields(frame))
    return self.judge.format(facts=facts, text=text)

  def instructions(self) -> tuple[str, ...]:
    """The fixed texts, which no answer may repeat."""
    return (*self.tasks.values(), self.rewrite, self.judge)

  def _facts(self, kind: str) -> str:
    return self.gaze_facts if kind in GAZE else self.glimpse_facts

  def _fields(self, frame: AnnotatedFrame) -> dict[str, str]:
    true, wrong = frame.true, frame.wrong
    return {
      "verb": true.verb,
      "meaning": true.meaning or "no definition",
      "sentence": true.sentence,
      "parts": _parts(true.parts),
      "wrong_verb": wrong.verb,
      "wrong_meaning": wrong.meaning or "no definition",
      "wrong_sentence": wrong.sentence,
      "wrong_parts": _parts(wrong.parts),
      "instances": self._instances(frame.instances),
      "wrong_instances": self._instances(frame.wrong_instances),
      "swaps": _swaps(frame),
      "nouns": ", ".join(one.noun for one in frame.instances),
    }

  def _instances(self, instances: Sequence[Instance]) -> str:
    return self.between.join(self._line(one) for one in instances)

  def _line(self, one: Instance) -> str:
    also = [noun for noun in one.nouns if noun != one.noun][:_ALSO]
    return self.instance.format(
      role=one.role,
      noun=one.noun,
      a_noun=with_article(one.noun),
      looks=f", {wording.bare(one.looks)}" if one.looks else "",
      place=f", {one.place}" if one.place else "",
      also=f" (or: {', '.join(also)})" if also else "",
    )


def _parts(parts: Sequence[tuple[str, str]]) -> str:
  return ". ".join(
    f"{role}: {word if word == wording.vague(role) else with_article(word)}"
    for role, word in parts
  )


def _swaps(frame: AnnotatedFrame) -> str:
  pairs = zip(frame.instances, frame.wrong_instances, strict=True)
  return "; ".join(
    f"instead of {with_article(right.noun)}, "
    f"{with_article(wrong.noun)} as {wrong.role}"
    for right, wrong in pairs
  )


_ONLY = "Write only the sentences, at most {words} words, nothing else."
FULL = PromptStyle(
  name="full",
  glimpse_facts=(
    "Activity: {verb} ({meaning}).\nScene: {sentence}.\n"
    "Who and what:\n{instances}"
  ),
  gaze_facts=(
    "Activity: {verb} ({meaning}).\nScene: {sentence}.\n"
    "Who and what, and where in the image:\n{instances}"
  ),
  tasks={
    GLIMPSE_POS: (
      "Say in one or two sentences what is going on in the image. Name the "
      'activity "{verb}", tell what it looks like, and name who takes part. '
      f"Use only the facts. {_ONLY}"
    ),
    GLIMPSE_NEG: (
      "Write one or two sentences that are false of the image: the same "
      'people and things, but the activity is "{wrong_verb}" '
      '({wrong_meaning}). Do not name the activity "{verb}", and do not say '
      f"that anything is false. {_ONLY}"
    ),
    GAZE_POS: (
      "Describe every person, thing and place of the image: its role, its "
      "name, what it looks like and where it is. Name all of these: {nouns}. "
      f"Use only the facts. {_ONLY}"
    ),
    GAZE_NEG: (
      "Write a description of persons, things and places that is false of "
      "the image: {swaps}. Say of each what it looks like and where it is, "
      "with left and right exchanged. Do not say that anything is false. "
      f"{_ONLY}"
    ),
  },
  rewrite=(
    '\nAn earlier answer was: "{text}"\nIt cannot be used: {reason}. '
    "Write a better one."
  ),
  judge=(
    "Facts about an image.\n{facts}\n\nStatement: {text}\n\nAccording to the "
    "facts, is the statement true of the image? Answer yes or no.\nAnswer:"
  ),
  prompt="Facts about an image.\n{facts}\n\nTask: {task}\nAnswer:",
  instance="- {role}: {a_noun}{also}{looks}{place}",
  between="\n",
)

TERSE = PromptStyle(
  name="terse",
  glimpse_facts="{verb}, {meaning}. {parts}.",
  gaze_facts="{instances}.",
  # A wrong text is written like a right one, but from wrong facts.
  tasks={
    GLIMPSE_POS: "{verb}, {meaning}. {parts}. scene:",
    GLIMPSE_NEG: "{wrong_verb}, {wrong_meaning}. {wrong_parts}. scene:",
    GAZE_POS: "{instances}. things:",
    GAZE_NEG: "{wrong_instances}. things:",
  },
  rewrite="",  # it cannot use reasons; it just draws again
  judge="{facts} said: {text}. true?",
  prompt="{task}",
  instance="{role}: {a_noun}{looks}{place}",
  between=". ",
)
STYLES: Mapping[str, PromptStyle] = {
  style.name: style for style in (FULL, TERSE)
}
