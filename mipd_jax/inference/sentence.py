"""One sentence of a prediction, from its verb's abstract.

"an AGENT throws an ITEM at a DESTINATION" and nouns give "the man throws the
ball at the field". Training's rationales fill abstracts in another way
(`rationales.wording`): there every role has to be named.
"""

import re
from collections.abc import Mapping

from mipd_jax.rationales import placeholders, wording
from mipd_jax.rationales.placeholders import Place

_REMARK = re.compile(r"\s*\([^)]*\)")
# What leads to a role, and goes with it where nothing fills the role.
_LEADS = (
  "by using|out of|away from|next to|on top of|in front of|with|using|at|in|"
  "on|onto|into|from|to|towards?|over|under|against|for|by|of|off|through|"
  "around|along|across|near|inside|behind|and"
)
# Places that take neither: "at the outdoors" is no English.
_ADVERBS = ("indoors", "inside", "outdoors", "outside")
_BEFORE = re.compile(
  rf"(?:\b(?P<lead>{_LEADS})\s+)?(?:\b(?:[Aa]n?|[Tt]he)\s+)?$"
)


def sentence(verb: str, nouns: Mapping[str, str], abstract: str = "") -> str:
  """The abstract with nouns for its capitals.

  A role that nothing fills is left out with its preposition, or becomes
  "someone" or "something" where the sentence needs it. Capitals that are no
  role of the frame become ordinary words. An abstract that names no role of
  the frame is taken for none.

  Args:
    verb: its name, for a verb without an abstract: "the man is juggling".
    nouns: of each role of the frame, "" where nothing fills it.
    abstract: roles in capitals; "" where there is none.
  """
  if not any("(" in role for role in nouns):  # "agent(s)" is no remark
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
    if not place.cased:  # no English, so no articles
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
  """With its article; "something else" is the class of all other nouns."""
  return noun if noun.startswith("something") else f"the {noun}"
