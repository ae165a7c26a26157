"""Finds names of unseen verbs in texts that training reads.

Training may know only the row of an unseen verb in the label bank: its name
and definition, as for any word that a user gives at inference. Its images,
their annotations, and rationales that name it are for evaluation only.
"""

import functools
import re
import unicodedata
from collections.abc import Iterable

from input_pipeline.ov_swig.splits.groups import VerbGroups
from input_pipeline.ov_swig.vocabulary import Vocabulary
from input_pipeline.schema import GROUPS

# Scripts without spaces between words, by Unicode block. Hangul is included
# because particles follow a word without a space.
_NO_SPACES = (
  (0x0E01, 0x0FDA),  # Thai, Lao, Tibetan
  (0x1000, 0x109F),  # Myanmar
  (0x1100, 0x11FF),  # Hangul, letters
  (0x1780, 0x17FF),  # Khmer
  (0x1950, 0x19FF),  # Tai Le, New Tai Lue
  (0x1A20, 0x1AAF),  # Tai Tham
  (0x1B00, 0x1B7F),  # Balinese
  (0x2E80, 0x2FDF),  # Han, radicals
  (0x3005, 0x3007),
  (0x3021, 0x303C),
  (0x3041, 0x31FF),  # Kana, Bopomofo
  (0x3400, 0x4DBF),  # Han
  (0x4E00, 0xA4CF),  # Han, Yi
  (0xA960, 0xA97F),  # Hangul, old letters
  (0xA980, 0xA9FF),  # Javanese, Myanmar
  (0xAA00, 0xAADF),  # Cham, Myanmar, Tai Viet
  (0xAC00, 0xD7FF),  # Hangul
  (0xF900, 0xFAFF),  # Han
  (0x16FE0, 0x1B2FF),  # Tangut, Kana, Nushu
  (0x20000, 0x3FFFF),  # Han
)
# Characters that do not change a word: soft hyphens, joiners, direction marks,
# tatweel, variation selectors, and the optional vowel points of Arabic and
# Hebrew.
_IGNORED = re.compile(
  "[\u00ad\u034f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a"
  "\u061c\u0640\u064b-\u0652\u0670\u180b-\u180f\u200c-\u200f\u202a-\u202e"
  "\u2060-\u206f\ufe00-\ufe0f\ufeff\U000e0000-\U000e0fff]"
)


# Small letters of Cyrillic and Greek, and the Latin letters they look like.
_ALIKE = str.maketrans(
  "авекмнорстухіјѕһԁԛԝαβεικνορτυχ", "abekmhopctyxijshdqwabeikvoptux"
)
_MIXED = re.compile(r"[a-z].*[α-ωа-ԯ]|[α-ωа-ԯ].*[a-z]", re.DOTALL)
_ASCII_WORD = re.compile(r"[^\W_]+", re.ASCII)
_MARKS = range(0x300, 0x1F000)  # code points among which all marks are


@functools.cache
def _patterns() -> tuple[re.Pattern[str], ...]:
  """Patterns for words, for letters of scripts without spaces, for word parts.

  A word is a run of letters, digits and marks such as accents and vowel
  signs, which Python's `\\w` excludes. Each letter of a script without spaces
  is a word of its own.
  """
  marks = "".join(
    chr(point)
    for point in _MARKS
    if unicodedata.category(chr(point)).startswith("M")
  )
  letters = "".join(f"{chr(low)}-{chr(high)}" for low, high in _NO_SPACES)
  return (
    re.compile(f"[\\w{marks}]+"),
    re.compile(f"[{letters}]"),
    re.compile(f"(?![{marks}])[{letters}][{marks}]*|[^{letters}]+|."),
  )


class NameFinder:
  """Finds whole names in texts, regardless of case and spelling variants.

  "eating" is found in "A man, eating." but not in "beating" or "eats": other
  forms of a verb are ordinary words ("read", "light", "work"). A name of
  several words is found across any spaces. In scripts without spaces between
  words (Chinese, Japanese, Thai, ...) and in Korean, where particles follow
  without a space, a name is found anywhere.

  Letters match whether accents are part of them or follow them, wide or
  narrow, capital or small (also the Turkish ones). In a word of two alphabets
  (a Cyrillic "а" in "eаting") letters that look the same match too.
  """

  def __init__(self, names: Iterable[str]):
    self._names: dict[tuple[str, ...], list[str]] = {}
    self._signs: dict[str, str] = {}  # names without a letter, such as emoji
    for name in names:
      if words := tuple(_words(name)):
        self._names.setdefault(words, []).append(name)
      elif signs := _folded(name).strip():
        self._signs[signs] = name
    self._lengths = sorted({len(words) for words in self._names})
    self._looks = {
      word.translate(_ALIKE): word for words in self._names for word in words
    }

  def find(self, text: str) -> list[str]:
    """The names in a text, in the order of their first occurrence."""
    words = _words(text)
    if not text.isascii():
      words = [self._own(word) for word in words]
    hits: dict[str, None] = {}
    for start in range(len(words)):
      for length in self._lengths:
        names = self._names.get(tuple(words[start : start + length]), ())
        hits |= dict.fromkeys(names)
    if self._signs:
      folded = _folded(text)
      hits |= {n: None for signs, n in self._signs.items() if signs in folded}
    return list(hits)

  def _own(self, word: str) -> str:
    """Replaces a word of two alphabets by a name's word that looks like it."""
    if _MIXED.search(word) is None:
      return word
    return self._looks.get(word.translate(_ALIKE), word)


def unseen_names(words: Vocabulary, groups: VerbGroups) -> tuple[str, ...]:
  """Names of the unseen verbs."""
  return tuple(words.verbs[verb] for verb in groups.verbs_in(GROUPS[-1]))


def _words(text: str) -> list[str]:
  if text.isascii():
    return _ASCII_WORD.findall(text.lower())
  word, unspaced, parts = _patterns()
  text = _folded(text).replace("_", " ")
  words = word.findall(text)
  if unspaced.search(text) is None:
    return words
  return [part for one in words for part in parts.findall(one)]


def _folded(text: str) -> str:
  """A text in the form in which letters are compared.

  NFKC composes a letter and its accent, and replaces wide and narrow letters
  by plain ones. The two i of Turkish, dotted and dotless, count as one,
  because their capitals depend on the language.
  """
  text = unicodedata.normalize("NFKC", text).casefold()
  text = text.replace("i\u0307", "i").replace("ı", "i")
  return _IGNORED.sub("", unicodedata.normalize("NFKC", text))
