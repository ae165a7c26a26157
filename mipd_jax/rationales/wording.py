"""English for frames: articles, places, filled-in abstracts."""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from mipd_jax.rationales import placeholders

# Centre of a box -> words, by thirds of the canvas.
_COLUMNS = ("left", "", "right")
_ROWS = ("top", "", "bottom")
_SMALL, _LARGE = 0.03, 0.35  # shares of the canvas
_ARTICLE = re.compile(r"\b(?:[Aa]n?|[Tt]he) $")
_UNNAMED = {"agent": "someone", "place": "somewhere"}


def noun_name(glosses: Sequence[str]) -> str:
  """The commonest word for a noun class."""
  return glosses[0].replace("_", " ") if glosses else "something"


def with_article(noun: str) -> str:
  return f"an {noun}" if noun[:1].lower() in "aeiou" else f"a {noun}"


def bare(phrase: str) -> str:
  """A phrase without the article that it begins with."""
  return re.sub(r"^(an?|the) ", "", phrase)


def short(definition: str, words: int | None = None) -> str:
  """The first sense of a WordNet definition: no remarks, no examples."""
  text = re.sub(r"\([^)]*\)", " ", definition).split(";")[0]
  return " ".join(text.replace('"', " ").split()[:words]).rstrip(" ,.")


def sentence(
  roles: Sequence[str], nouns: Mapping[str, str], abstract: str
) -> str:
  """A filled abstract, or who is what where there is no abstract."""
  filled = ""
  if placeholders.names_any(abstract, roles):
    filled = fill(abstract, roles, nouns)
  if not filled:
    parts = [f"{with_article(nouns[r])} as {r}" for r in roles if r in nouns]
    filled = ", ".join(parts) or fill(abstract, roles, nouns)
  return filled.rstrip(" .")


def vague(role: str) -> str:
  """The word for a role that nobody filled."""
  return _UNNAMED.get(role, "something")


def fill(abstract: str, roles: Sequence[str], nouns: Mapping[str, str]) -> str:
  """Puts nouns for the roles of an abstract, with their articles.

  Capitals that are no role of the frame (some abstracts have them) become
  ordinary words.
  """

  def put(place: placeholders.Place, before: str) -> tuple[str, str]:
    if place.role is None:
      return before, placeholders.plain(place.text)
    noun = nouns.get(place.role)
    if not place.cased:  # no English, so no articles
      return before, noun or vague(place.role)
    words = noun or vague(place.role)
    if noun and not place.owned:
      words = with_article(noun)
    return _ARTICLE.sub("", apart(before, place)), words + place.owner

  return placeholders.replace(abstract, roles, put)


def apart(before: str, place: placeholders.Place) -> str:
  """What stands before a placeholder, with the space that it needs."""
  touching = place.start and (before[-1:] in ("", ")") or place.owned)
  return before if not touching or before[-1:] == " " else f"{before} "


def instance(role: str, noun: str, looks: str, place: str) -> str:
  """Who or what, how it looks, where: "agent: a dog, furry animal, left".

  Terse, because CLIP reads 77 tokens and a frame has up to six roles.
  """
  parts = [f"{role}: {with_article(noun)}", bare(looks), place]
  return ", ".join(part for part in parts if part)


def position(box: np.ndarray) -> str:
  """Where a box (cx cy w h on the unit canvas) is: "small top left".

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
  """Exchanges left and right of a box; an absent one stays absent."""
  if box[2] < 0:
    return box
  return np.array([1.0 - box[0], box[1], box[2], box[3]])
