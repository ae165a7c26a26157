"""A prediction as plain values, without jax, and as a sentence.

The sentence is made of the verb's abstract: "an AGENT throws an ITEM at a
DESTINATION" and nouns give "the man throws the ball at the field". Training's
rationales fill abstracts in another way (`rationales.wording`): there every
role has to be named.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from input_pipeline.io.errors import InputError
from mipd_jax.inference.pictures import shown
from mipd_jax.rationales import placeholders, wording
from mipd_jax.rationales.placeholders import Place

Box = tuple[float, float, float, float]  # x1, y1, x2, y2


@dataclasses.dataclass(frozen=True)
class VerbGuess:
  """A verb and its probability among all verbs of the list."""

  verb: str
  probability: float


@dataclasses.dataclass(frozen=True)
class NounGuess:
  """A noun and its probability among all nouns of the list.

  `noun` is "" if the guess is that nothing fills the role; `class_id` is the
  class in the workdir's vocabulary ("n10287213"), None for a new word.
  """

  noun: str
  probability: float
  class_id: str | None = None


@dataclasses.dataclass(frozen=True)
class RoleGuess:
  """What fills one role.

  Attributes:
    role: its name.
    nouns: the best first.
    box: in pixels of the upright original, inside it; None where the student
      predicts none.
    confidence: probability that there is a box; at least 0.5 gives one.
  """

  role: str
  nouns: tuple[NounGuess, ...]
  box: Box | None
  confidence: float


@dataclasses.dataclass(frozen=True)
class Prediction:
  """The student's prediction for one image.

  Attributes:
    name: path of the image, or its place in the list.
    width, height: of the upright original, pixels; boxes refer to them.
    verbs: the best first.
    verb: the verb of the frame: the best one, or the given one.
    roles: of that frame, in its order.
    sentence: the verb's abstract filled with the nouns.
    notes: what was done to the image before ("turned upright").
    frames: roles of each verb of `verbs`, if asked for; not part of
      `to_dict`.
  """

  name: str
  width: int
  height: int
  verbs: tuple[VerbGuess, ...]
  verb: str
  roles: tuple[RoleGuess, ...]
  sentence: str
  notes: tuple[str, ...] = ()
  frames: Mapping[str, tuple[RoleGuess, ...]] = dataclasses.field(
    default_factory=dict
  )

  def to_dict(self) -> dict[str, Any]:
    """As JSON takes it; `image` is the name."""
    values = dataclasses.asdict(self)
    del values["frames"]
    return {"image": values.pop("name"), **values}


@dataclasses.dataclass(frozen=True)
class Failure:
  """An image that could not be read, and why.

  Attributes:
    name: path of the image, or its place in the list.
    error: its message begins with that name, in printable form.
  """

  name: str
  error: InputError

  @property
  def reason(self) -> str:
    """The reason, without the name."""
    return self.error.problem.removeprefix(f"{shown(self.name)}: ")

  def to_dict(self) -> dict[str, Any]:
    """As JSON takes it."""
    return {"image": self.name, "error": self.reason}


_REMARK = re.compile(r"\s*\([^)]*\)")
# Prepositions of a role, dropped with it if nothing fills the role.
_LEADS = (
  "by using|out of|away from|next to|on top of|in front of|with|using|at|in|"
  "on|onto|into|from|to|towards?|over|under|against|for|by|of|off|through|"
  "around|along|across|near|inside|behind|and"
)
# Places without preposition and article: "at the outdoors" is wrong.
_ADVERBS = ("indoors", "inside", "outdoors", "outside")
_BEFORE = re.compile(
  rf"(?:\b(?P<lead>{_LEADS})\s+)?(?:\b(?:[Aa]n?|[Tt]he)\s+)?$"
)


def sentence(verb: str, nouns: Mapping[str, str], abstract: str = "") -> str:
  """The abstract with nouns in place of its capitals.

  An unfilled role is left out with its preposition, or becomes "someone" or
  "something" where the sentence needs it. Capitals that are no role of the
  frame become ordinary words. An abstract that names no role of the frame is
  ignored.

  Args:
    verb: its name, for a verb without an abstract: "the man is juggling".
    nouns: of each role of the frame, "" where nothing fills it.
    abstract: roles in capitals; "" where there is none.
  """
  if not any("(" in role for role in nouns):  # "agent(s)" is a role's name
    abstract = _REMARK.sub("", abstract)
  abstract = abstract.replace("’", "'")
  if not placeholders.names_any(abstract, tuple(nouns)):
    return _tidy(_plain_sentence(verb, nouns))
  dropped = ""  # the preposition that the next "and" takes over

  def put(place: Place, before: str) -> tuple[str, str]:
    nonlocal dropped
    if place.role is None:
      return before, placeholders.plain(place.text)
    noun = nouns[place.role]
    if not place.cased:  # not English, so no articles
      return before, noun or wording.vague(place.role)
    before = wording.apart(before, place)
    match = _BEFORE.search(before)
    rest, lead = before[: match.start()], match["lead"] or ""
    if not noun and lead:
      dropped = lead if lead != "and" else dropped
      return rest, ""
    if lead and noun in _ADVERBS:
      return rest, noun
    lead = dropped if lead == "and" and dropped else lead
    dropped = ""
    words = _the(noun) if noun else wording.vague(place.role)
    words = noun if noun and place.owned and not lead else words
    return rest, f"{lead} {words}{place.owner}".strip()

  return _tidy(placeholders.replace(abstract, tuple(nouns), put))


def _tidy(text: str) -> str:
  return re.sub(r"\s+([,.])", r"\1", " ".join(text.split())).strip(" .,")


def _plain_sentence(verb: str, nouns: Mapping[str, str]) -> str:
  """For a verb without an abstract: "the man is juggling with the ball"."""
  others = [role for role in nouns if role != "place"]
  first = "agent" if "agent" in others or not others else others[0]
  if first in others:
    noun = nouns[first]
    parts = [_the(noun) if noun else wording.vague(first)]
  else:
    parts = ["it" if nouns else "someone"]
  parts += ["is", verb]
  parts += [_led("with", nouns[role]) for role in others if role != first]
  parts += [_led("at", nouns.get("place", ""))]
  return " ".join(parts)


def _led(lead: str, noun: str) -> str:
  if not noun or noun in _ADVERBS:
    return noun
  return f"{lead} {_the(noun)}"


def _the(noun: str) -> str:
  """The noun with its article; "something else" is for all other nouns."""
  return noun if noun.startswith("something") else f"the {noun}"
