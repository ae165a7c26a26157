"""Words by their stems: a few English endings, no dictionary."""

import functools
import re
from collections.abc import Sequence

from mipd_jax.rationales import placeholders

_PLAIN = re.compile(r"[a-z0-9]+")
_FUNCTION_WORDS = """
a an and any are as at be been being by can do does etc for from have has he
her him his if in into is it its of off on onto one or other over out s she so
some somebody someone something that the their them there they this to up upon
with without which while who whose not no also very usually
"""
_STOP = frozenset(_FUNCTION_WORDS.split())
# Verbs whose forms share no stem.
_IRREGULAR = {
  form: stem
  for stem, forms in {
    "rid": "rode ridden",
    "run": "ran",
    "sit": "sat",
    "writ": "wrote written",
    "driv": "drove driven",
    "throw": "threw thrown",
    "catch": "caught",
    "teach": "taught",
    "eat": "ate eaten",
    "drink": "drank drunk",
    "swim": "swam swum",
    "sing": "sang sung",
    "buy": "bought",
    "fall": "fell fallen",
    "giv": "gave given",
    "tak": "took taken",
    "mak": "made",
    "ti": "tying",
    "knif": "knives",
    "scarf": "scarves",
    "shelf": "shelves",
    "wolf": "wolves",
    "speak": "spoke spoken",
    "sleep": "slept",
    "stand": "stood",
    "child": "children",
    "man": "men",
    "woman": "women",
    "foot": "feet",
    "tooth": "teeth",
    "mous": "mice",
    "person": "people",
  }.items()
  for form in forms.split()
}


@functools.lru_cache(maxsize=65536)
def stem(word: str) -> str:
  """The stem of one word: "riding", "rides", "rode" -> "rid"."""
  word = word.lower()
  if word in _IRREGULAR:
    return _IRREGULAR[word]
  for ending in ("ing", "ed", "es", "s"):
    rest = word.removesuffix(ending)
    if rest != word and _is_stem(rest, ending):
      word = rest
      break
  if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "lsz":
    word = word[:-1]  # "running" -> "runn" -> "run"
  if len(word) > 2 and word.endswith("y"):
    word = word[:-1] + "i"  # "carry", "carries" -> "carri"
  if len(word) > 2 and word.endswith("e"):
    word = word[:-1]
  return word


def _is_stem(rest: str, ending: str) -> bool:
  """Whether an ending is one: not in "king", "bus", "grass"."""
  if len(rest) < (2 if ending in ("es", "s") else 3):
    return ending == "ing" and len(rest) == 2 and rest[0] in "aeiou"
  if ending == "es" and not rest.endswith(
    ("s", "x", "z", "ch", "sh", "o", "i")
  ):
    return False  # "rides" is "ride" and "s"
  if ending == "s" and rest[-1] in "sui":
    return False
  return any(letter in "aeiouy" for letter in rest)


def words(text: str) -> list[str]:
  """The words of a text, in order, without capitals.

  Of scripts that put no spaces between words, and of Hangul, each character
  is one, so that a name is found as a row of them.
  """
  text = placeholders.normal(text.lower())
  if text.isascii():
    return _PLAIN.findall(text)
  found, before = [], ""
  for letter in text:
    if placeholders.is_mark(letter) and found and before:
      found[-1] += letter
      continue
    if letter.isalnum():
      if before.isalnum() and not placeholders.is_joined(before + letter):
        found[-1] += letter
      else:
        found.append(letter)
    before = letter if letter.isalnum() else ""
  return found


def stems(text: str) -> list[str]:
  """The stems of a text, in order."""
  return [stem(word) for word in words(text)]


def content(text: str) -> list[str]:
  """Stems of a text without function words."""
  return [stem(word) for word in words(text) if word not in _STOP]


def contains(told: Sequence[str], phrase: str) -> bool:
  """Whether the stems of a phrase stand in those of a text, in a row."""
  wanted = stems(phrase)
  size = len(wanted)
  return size > 0 and any(
    list(told[i : i + size]) == wanted for i in range(len(told) - size + 1)
  )
