"""One sentence of a prediction, from its verb's abstract.

"an AGENT throws an ITEM at a DESTINATION" and nouns give "the man throws the
ball at the field". Training's rationales fill abstracts in another way
(`rationales.wording`): there every role has to be named.
"""

import re
from collections.abc import Mapping

from mipd_jax.rationales import wording

_CURLY = "\N{RIGHT SINGLE QUOTATION MARK}"
_REMARK = re.compile(r"\s*\([^)]*\)")
# What leads to a role, and goes with it where nothing fills the role.
_LEADS = (
  "by using|out of|away from|next to|on top of|in front of|with|using|at|in|"
  "on|onto|into|from|to|towards?|over|under|against|for|by|of|off|through|"
  "around|along|across|near|inside|behind|and"
)
# Places that take neither: "at the outdoors" is no English.
_ADVERBS = ("indoors", "inside", "outdoors", "outside")
_ROLE = re.compile(
  rf"(?:\b(?P<lead>{_LEADS})\s+)?(?:\b(?:an?|the)\s+)?"
  r"\b(?P<role>[A-Z]{3,}[0-9]*)(?:(?P<owner>s'|'s)|s)?(?!\w)"
)


def sentence(verb: str, nouns: Mapping[str, str], abstract: str = "") -> str:
  """The abstract with nouns for its capitals.

  A role that nothing fills is left out with its preposition, or becomes
  "someone" or "something" where the sentence needs it. Capitals that are no
  role of the frame become ordinary words.

  Args:
    verb: its name, for a verb without an abstract: "the man is juggling".
    nouns: of each role of the frame, "" where nothing fills it.
    abstract: roles in capitals; "" where there is none.
  """
  abstract = _REMARK.sub("", abstract).replace(_CURLY, "'")
  if not _ROLE.search(abstract):
    abstract = plain_abstract(verb, tuple(nouns))
  dropped = ""  # the preposition that the next "and" takes over

  def put(match: re.Match) -> str:
    nonlocal dropped
    lead, role = match["lead"] or "", match["role"].lower()
    noun = nouns.get(role)
    if noun is None:
      return match[0].lower()
    if not noun and lead:
      dropped = lead if lead != "and" else dropped
      return ""
    if lead and noun in _ADVERBS:
      return noun
    lead = dropped if lead == "and" and dropped else lead
    dropped = ""
    owned = match.string[: match.start()].rstrip().endswith(("'s", "s'"))
    words = f"the {noun}" if noun else wording.vague(role)
    words = noun if owned and noun else words
    return f"{lead} {words}".strip() + ("'s" if match["owner"] else "")

  text = " ".join(_ROLE.sub(put, abstract).split())
  return re.sub(r"\s+([,.])", r"\1", text).strip(" .,")


def plain_abstract(verb: str, roles: tuple[str, ...]) -> str:
  """An abstract for a verb that has none, by its roles' names."""
  others = [role for role in roles if role != "place"]
  first = "agent" if "agent" in others or not others else others[0]
  if first in others:
    parts = [f"the {first.upper()} is {verb}"]
  else:
    parts = [f"{'it' if roles else 'someone'} is {verb}"]
  parts += [f"with the {role.upper()}" for role in others if role != first]
  parts += ["at the PLACE"] * ("place" in roles)
  return " ".join(parts)
