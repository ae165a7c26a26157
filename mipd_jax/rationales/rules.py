"""Rules that a rationale must satisfy, checked without a model.

Words are compared by stem, so that "jumps" and "jumped" name "jumping" and
"dogs" name "dog". A verb is named by its name, or by a word that only its own
abstract and definition have ("leaps").
"""

import collections
import dataclasses
import re
from collections.abc import Iterable, Sequence

from input_pipeline.ov_swig.splits import leaks
from input_pipeline.ov_swig.vocabulary import Vocabulary
from mipd_jax.rationales import placeholders, prompts, wording
from mipd_jax.rationales.frame import Activity, AnnotatedFrame, Instance
from mipd_jax.rationales.wording import contains, content, stem, stems, words

# Part of a run's settings: raise it when any rule changes.
VERSION = "rules-3"

_LEAST_WORDS = 3
_ECHO = 6  # consecutive words of an instruction that make an echo
_LOOP = 3  # repetitions of four consecutive words that make a loop
_MARKS = re.compile(r"\b(answer|task|facts|statement)\s*:", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Fault:
  """Why a text is rejected.

  Attributes:
    code: a few words, the same for all texts; counted in the report.
    detail: a sentence part for the next prompt.
  """

  code: str
  detail: str


class Rules:
  """Checks texts of one split against their frames."""

  def __init__(
    self,
    vocabulary: Vocabulary,
    allowed_verbs: Iterable[int],
    style: prompts.PromptStyle,
    max_words: int = 80,
  ):
    """Prepares the checks.

    Args:
      vocabulary: names and texts.
      allowed_verbs: verbs that a text may name; the others are unseen.
      style: its instructions must not occur in an answer.
      max_words: most words of a text.
    """
    allowed = set(allowed_verbs)
    self._forbidden = {
      stem(verb): verb
      for index, verb in enumerate(vocabulary.verbs)
      if index not in allowed
    }
    # Names of several words are searched as phrases.
    self._long = [v for v in self._forbidden.values() if len(words(v)) > 1]
    self._unseen = leaks.NameFinder(self._forbidden.values())
    self._names = _distinctive(vocabulary)
    self._set_form(style, max_words)

  def _set_form(self, style: prompts.PromptStyle, max_words: int) -> None:
    """Prepares the rules for any text, whatever its content."""
    self._echoes = {
      gram for text in style.instructions() for gram in _grams(text, _ECHO)
    }
    self._max_words = max_words

  def without_leaks(self, frame: AnnotatedFrame) -> AnnotatedFrame:
    """Leaves out definitions that name an unseen verb."""

    def clean(text: str) -> str:
      return "" if self._unseen.find(text) else text

    def instances(some: tuple[Instance, ...]) -> tuple[Instance, ...]:
      return tuple(
        dataclasses.replace(one, looks=clean(one.looks)) for one in some
      )

    def activity(one: Activity) -> Activity:
      return dataclasses.replace(one, meaning=clean(one.meaning))

    return dataclasses.replace(
      frame,
      true=activity(frame.true),
      wrong=activity(frame.wrong),
      instances=instances(frame.instances),
      wrong_instances=instances(frame.wrong_instances),
    )

  def check(self, kind: str, text: str, frame: AnnotatedFrame) -> list[Fault]:
    """All faults of a text; [] if it may go to the judge.

    Args:
      kind: one of `schema.RATIONALES`.
      text: the model's answer.
      frame: of the image.
    """
    faults = self._form(text)
    if faults:  # without form no other rule can be checked
      return faults
    rule = {
      prompts.GLIMPSE_POS: self._glimpse_pos,
      prompts.GLIMPSE_NEG: self._glimpse_neg,
      prompts.GAZE_POS: _gaze_pos,
      prompts.GAZE_NEG: _gaze_neg,
    }[kind]
    return self._leak(text, frame) + rule(text, frame)

  def _form(self, text: str) -> list[Fault]:
    """Length, echoes, loops."""
    count = len(stems(text))
    if count < _LEAST_WORDS:
      return [Fault("empty", f"it has {count} words")]
    faults = []
    if count > self._max_words:
      detail = f"it has {count} words, more than {self._max_words}"
      faults.append(Fault("too long", detail))
    if _MARKS.search(text) or self._echoes & set(_grams(text, _ECHO)):
      faults.append(Fault("echo", "it repeats the instructions"))
    if _loops(text):
      faults.append(Fault("loop", "it says the same again and again"))
    return faults

  def _leak(self, text: str, frame: AnnotatedFrame) -> list[Fault]:
    """Faults for names of unseen verbs, which training must not see.

    Words of the frame itself are no leak: a noun may look like a verb ("a
    painting"), a definition may have another form of it ("fish", "fishing").
    """
    facts = _facts(frame)
    of_frame = {word for fact in facts for word in words(fact)}
    leaked = {
      self._forbidden[stem(word)]
      for word in words(text)
      if stem(word) in self._forbidden and word not in of_frame
    }
    leaked |= {
      verb
      for verb in self._long
      if contains(stems(text), verb)
      and not any(contains(stems(fact), verb) for fact in facts)
    }
    # Forms that stems miss: wide letters, points, ...
    leaked |= {
      verb
      for verb in self._unseen.find(text)
      if not contains(stems(text), verb)
      and not any(self._unseen.find(fact).count(verb) for fact in facts)
    }
    return [
      Fault("unseen verb", f"it names the activity {verb!r}")
      for verb in sorted(leaked)
    ]

  def _glimpse_pos(self, text: str, frame: AnnotatedFrame) -> list[Fault]:
    faults = []
    if not self._has(_beside_nouns(text, frame), frame.true.verb):
      detail = f"it does not name the activity {frame.true.verb!r}"
      faults.append(Fault("verb not named", detail))
    for one in frame.instances[:1]:
      if not _named(stems(text), one):
        detail = f"it does not name the {one.role}, {one.noun!r}"
        faults.append(Fault("agent not named", detail))
    return faults

  def _glimpse_neg(self, text: str, frame: AnnotatedFrame) -> list[Fault]:
    faults = []
    named = _beside_nouns(text, frame)
    if self._has(named, frame.true.verb):
      why = f"it names the true activity {frame.true.verb!r}"
      faults.append(Fault("true verb named", why))
    if not self._has(named, frame.wrong.verb):
      why = f"it does not name the activity {frame.wrong.verb!r}"
      faults.append(Fault("verb not named", why))
    return faults

  def _has(self, text_stems: Sequence[str], verb: str) -> bool:
    """Whether stems name a verb."""
    return bool(self._names[verb] & set(text_stems)) or contains(
      text_stems, verb
    )


def _distinctive(vocabulary: Vocabulary) -> dict[str, frozenset[str]]:
  """Per verb, its stem and those that only its own texts have."""
  stems_of = {}
  for number, (verb, abstract, definition) in enumerate(
    zip(
      vocabulary.verbs,
      vocabulary.verb_abstracts,
      vocabulary.verb_definitions,
      strict=True,
    )
  ):
    roles = vocabulary.frame_roles(number)
    plain = placeholders.replace(
      abstract, roles, lambda place, before: (before, " ")
    )
    texts = f"{plain} {wording.short(definition)}"
    stems_of[verb] = {stem(verb), *content(texts)}
  verbs = {stem(verb) for verb in stems_of}
  uses = collections.Counter(
    word for words in stems_of.values() for word in words
  )
  return {
    verb: frozenset(
      word
      for word in words
      if word == stem(verb) or (uses[word] == 1 and word not in verbs)
    )
    for verb, words in stems_of.items()
  }


def _facts(frame: AnnotatedFrame) -> list[str]:
  texts = []
  for activity in (frame.true, frame.wrong):
    texts += [activity.meaning, activity.sentence]
  for one in (*frame.instances, *frame.wrong_instances):
    texts += [one.role, one.looks, *one.nouns]
  return texts


def _beside_nouns(text: str, frame: AnnotatedFrame) -> list[str]:
  """Stems of a text without its nouns, which may look like a verb."""
  nouns = {w for i in frame.instances for n in i.nouns for w in words(n)}
  nouns |= {f"{noun}s" for noun in nouns}
  return [stem(word) for word in words(text) if word not in nouns]


def _named(text_stems: Sequence[str], one: Instance) -> bool:
  return any(contains(text_stems, noun) for noun in one.nouns)


def _grams(text: str, size: int) -> list[tuple[str, ...]]:
  listed = words(text)
  return [tuple(listed[i : i + size]) for i in range(len(listed) - size + 1)]


def _loops(text: str) -> bool:
  """The same four words three times, or the same sentence twice."""
  grams = collections.Counter(_grams(text, 4))
  if grams and max(grams.values()) >= _LOOP:
    return True
  sentences = [tuple(words(part)) for part in re.split(r"[.!?;\n]", text)]
  counts = collections.Counter(s for s in sentences if len(s) > 2)
  return bool(counts) and max(counts.values()) > 1


def _gaze_pos(text: str, frame: AnnotatedFrame) -> list[Fault]:
  text_stems = stems(text)
  missing = [one.noun for one in frame.instances if not _named(text_stems, one)]
  if not missing:
    return []
  detail = f"it does not name {', '.join(missing)}"
  return [Fault("noun not named", detail)]


def _gaze_neg(text: str, frame: AnnotatedFrame) -> list[Fault]:
  """A fault unless some role has its wrong noun and not its own."""
  text_stems = stems(text)
  pairs = zip(frame.instances, frame.wrong_instances, strict=True)
  for right, wrong in pairs:
    if contains(text_stems, wrong.noun) and not _named(text_stems, right):
      return []
  named = [one.noun for one in frame.instances if _named(text_stems, one)]
  detail = (
    f"it still names {', '.join(named)}"
    if named
    else (
      f"it does not name {', '.join(i.noun for i in frame.wrong_instances)}"
    )
  )
  return [Fault("no contradiction", detail)]
