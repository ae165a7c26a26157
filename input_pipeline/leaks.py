"""Names of unseen verbs in texts that training reads.

What training may know of an unseen verb is its row of the label bank: name
and definition, as any word that a user brings at inference. Its images, their
annotations, and rationales that call it by its name belong to evaluation.
"""

import re
from collections.abc import Iterable

from input_pipeline.schema import GROUPS
from input_pipeline.splits import VerbGroups
from input_pipeline.vocabulary import Vocabulary

_WORD = re.compile(r"[^\W_]+")


class NameFinder:
  """Finds whole names in texts, whatever their case.

  "eating" is found in "A man, eating." and not in "beating" or "eats": other
  forms of a verb are ordinary words of many nouns ("read", "light", "work").
  A name of several words is found across any spaces.
  """

  def __init__(self, names: Iterable[str]):
    self._names: dict[tuple[str, ...], str] = {}
    for name in names:
      self._names[tuple(_words(name))] = name
    self._lengths = sorted({len(words) for words in self._names} - {0})

  def find(self, text: str) -> list[str]:
    """The names that a text has, in the order of their first place in it."""
    words = _words(text)
    found: dict[str, None] = {}
    for start in range(len(words)):
      for length in self._lengths:
        name = self._names.get(tuple(words[start : start + length]))
        if name is not None:
          found[name] = None
    return list(found)


def unseen_names(words: Vocabulary, groups: VerbGroups) -> tuple[str, ...]:
  """Names of the unseen verbs."""
  return tuple(words.verbs[verb] for verb in groups.verbs_in(GROUPS[-1]))


def _words(text: str) -> list[str]:
  return _WORD.findall(text.lower())
