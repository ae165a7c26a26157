"""English for rationales: stems by a few endings, articles, places, abstracts.

No dictionary.
"""

import functools
import re
from collections.abc import Mapping, Sequence

import numpy as np

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
  """Whether the ending is a real one: not in "king", "bus", "grass"."""
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

  In scripts without spaces between words, and in Hangul, each character is a
  word, so that a name is a sequence of them.
  """
  text = placeholders.normal(text.lower())
  if text.isascii():
    return _PLAIN.findall(text)
  result, before = [], ""
  for letter in text:
    if placeholders.is_mark(letter) and result and before:
      result[-1] += letter
      continue
    if letter.isalnum():
      if before.isalnum() and not placeholders.is_joined(before + letter):
        result[-1] += letter
      else:
        result.append(letter)
    before = letter if letter.isalnum() else ""
  return result


def stems(text: str) -> list[str]:
  """The stems of a text, in order."""
  return [stem(word) for word in words(text)]


def content(text: str) -> list[str]:
  """Stems of a text without function words."""
  return [stem(word) for word in words(text) if word not in _STOP]


def contains(text: Sequence[str], phrase: str) -> bool:
  """Whether the stems of a phrase occur in a row in a text's stems."""
  wanted = stems(phrase)
  size = len(wanted)
  return size > 0 and any(
    list(text[i : i + size]) == wanted for i in range(len(text) - size + 1)
  )


# Centre of a box -> words, by thirds of the canvas.
_COLUMNS = ("left", "", "right")
_ROWS = ("top", "", "bottom")
_SMALL, _LARGE = 0.03, 0.35  # shares of the canvas
_SENTENCE_END = re.compile(r"(?<=[.!?;])\s+")
_ARTICLE = re.compile(r"\b(?:[Aa]n?|[Tt]he) $")
_UNNAMED = {"agent": "someone", "place": "somewhere"}


def noun_name(glosses: Sequence[str]) -> str:
  """The commonest word for a noun class."""
  return glosses[0].replace("_", " ") if glosses else "something"


def with_article(noun: str) -> str:
  return f"an {noun}" if noun[:1].lower() in "aeiou" else f"a {noun}"


def bare(phrase: str) -> str:
  """A phrase without its leading article."""
  return re.sub(r"^(an?|the) ", "", phrase)


def short(definition: str, words: int | None = None) -> str:
  """The first sense of a WordNet definition: no remarks, no examples."""
  text = re.sub(r"\([^)]*\)", " ", definition).split(";")[0]
  return " ".join(text.replace('"', " ").split()[:words]).rstrip(" ,.")


def sentence(
  roles: Sequence[str], nouns: Mapping[str, str], abstract: str
) -> str:
  """A filled abstract; without an abstract, each noun with its role."""
  filled = ""
  if placeholders.names_any(abstract, roles):
    filled = fill(abstract, roles, nouns)
  if not filled:
    parts = [f"{with_article(nouns[r])} as {r}" for r in roles if r in nouns]
    filled = ", ".join(parts) or fill(abstract, roles, nouns)
  return filled.rstrip(" .")


def vague(role: str) -> str:
  """The word for an unfilled role."""
  return _UNNAMED.get(role, "something")


def fill(abstract: str, roles: Sequence[str], nouns: Mapping[str, str]) -> str:
  """Replaces the roles of an abstract by nouns with their articles.

  Capitals that are no role of the frame (some abstracts have them) become
  ordinary words.
  """

  def put(place: placeholders.Place, before: str) -> tuple[str, str]:
    if place.role is None:
      return before, placeholders.plain(place.text)
    noun = nouns.get(place.role)
    if not place.cased:  # not English, so no articles
      return before, noun or vague(place.role)
    words = noun or vague(place.role)
    if noun and not place.owned:
      words = with_article(noun)
    return _ARTICLE.sub("", apart(before, place)), words + place.owner

  return placeholders.replace(abstract, roles, put)


def apart(before: str, place: placeholders.Place) -> str:
  """The text before a placeholder, with the space that it needs."""
  touching = place.start and (before[-1:] in ("", ")") or place.owned)
  return before if not touching or before[-1:] == " " else f"{before} "


def instance(role: str, noun: str, looks: str, place: str) -> str:
  """Who or what, its looks, its place: "agent: a dog, furry animal, left".

  Terse, because CLIP reads 77 tokens and a frame has up to six roles.
  """
  parts = [f"{role}: {with_article(noun)}", bare(looks), place]
  return ", ".join(part for part in parts if part)


def position(box: np.ndarray) -> str:
  """The place of a box (cx cy w h on the unit canvas): "small top left".

  '' if it is absent.
  """
  x, y, width, height = (float(value) for value in box)
  if width < 0:
    return ""
  thirds = (_ROWS[_third(y)], _COLUMNS[_third(x)])
  where = " ".join(word for word in thirds if word) or "middle"
  area = width * height
  size = "small " if area < _SMALL else "large " if area > _LARGE else ""
  return size + where


def _third(value: float) -> int:
  return min(2, max(0, int(value * 3)))


def mirror(box: np.ndarray) -> np.ndarray:
  """Mirrors a box [4] left to right; an absent one stays absent."""
  if box[2] < 0:
    return box
  return np.array([1.0 - box[0], box[1], box[2], box[3]])


def by_instance(
  text: str, instances: Sequence[tuple[str, Sequence[str]]]
) -> list[str]:
  """What a gaze text says about each instance; "" where it says nothing.

  Where the text labels its parts by roles ("agent: a dog, left"), an instance
  gets its part; else the sentences that name one of its words.

  Args:
    text: the whole text.
    instances: of each the role's name, and other words that name it.
  """
  roles = "|".join(re.escape(role) for role, _ in instances if role)
  label = re.compile(rf"(?:^|(?<=[\s.;]))({roles}):\s", re.IGNORECASE)
  marks = list(label.finditer(text)) if roles else []
  if marks:
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    parts: dict[str, list[str]] = {}
    for mark, end in zip(marks, ends, strict=True):
      part = text[mark.start() : end].strip()
      parts.setdefault(mark[1].lower(), []).append(part)
    return [" ".join(parts.get(role.lower(), ())) for role, _ in instances]
  found = [(part, stems(part)) for part in _SENTENCE_END.split(text) if part]
  return [
    " ".join(
      part
      for part, its in found
      if any(contains(its, word) for word in (role, *names))
    )
    for role, names in instances
  ]
