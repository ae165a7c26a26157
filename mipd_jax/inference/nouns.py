"""Lists of nouns: which are classes of training, which are other words."""

from collections.abc import Iterable, Sequence

import numpy as np

from input_pipeline.ov_swig import vocabulary
from mipd_jax.inference import lexicon, programs
from mipd_jax.inference.lexicon import Banks, NounList
from mipd_jax.inference.texts import Texts
from mipd_jax.inference.words import Word
from mipd_jax.teachers import labels


class Nouns:
  """Makes lists of nouns.

  A list of classes of training is ranked as the evaluation does: the student's
  own score of each, whatever else is in its vocabulary. As soon as one word of
  a list is new all are scored by text alone, because the classifier has no
  column for it: with a classifier's help for some, the others would hardly
  ever be chosen (docs/predict.md has figures).
  """

  def __init__(self, known: vocabulary.Vocabulary, banks: Banks, texts: Texts):
    self._known, self._texts = known, texts
    self._bank, self._center = banks["noun_text"], banks["noun_center"]
    self._index = _names(known)

  def make(self, words: Sequence[Word] | None) -> NounList:
    """The list, or the vocabulary's own if None."""
    if words is None:
      return self._own()
    ids = [self._id(word) for word in words]
    new = [word for word, i in zip(words, ids, strict=True) if i is None]
    text = np.zeros((lexicon.bucket(len(words)), self._bank.shape[1]), "f4")
    column = np.zeros(len(text), np.int32)
    found = iter(self._embed(new))
    for row, index in enumerate(ids):
      text[row] = next(found) if index is None else self._bank[index]
      column[row] = index or 0
    lexicon.warn_of_alike(text[: len(ids)], [w.name for w in words], "nouns")
    blank = self._index.get(vocabulary.BLANK)
    return NounList(
      names=tuple(
        "" if index == blank else word.name
        for word, index in zip(words, ids, strict=True)
      ),
      classes=tuple(None if i is None else self._known.nouns[i] for i in ids),
      rule=programs.BY_TEXT if new else programs.AS_EVALUATED,
      arrays={
        "text": text,
        "column": column,
        "mask": np.arange(len(text)) < len(words),
      },
    )

  def _own(self) -> NounList:
    """All classes but padding, which fills unused slots and is no noun."""
    column = np.array(_candidates(self._known), np.int32)
    return NounList(
      names=tuple(_word(self._known, i) for i in column),
      classes=tuple(self._known.nouns[i] for i in column),
      rule=programs.AS_EVALUATED,
      arrays={
        "text": self._bank[column],
        "column": column,
        "mask": np.ones(len(column), bool),
      },
    )

  def _embed(self, new: Sequence[Word]) -> Iterable[np.ndarray]:
    if not new:
      return ()
    named = [(word.name, word.definition) for word in new]
    prompts = labels.noun_prompts(lexicon.as_vocabulary(nouns=named))
    return labels.center(self._texts.bank(prompts), self._center)

  def _id(self, word: Word) -> int | None:
    """Its class; None for a new word, or one that is to mean another thing."""
    index = self._index.get(word.name.casefold())
    if index is None or not word.definition:
      return index
    same = word.definition == self._known.noun_definitions[index]
    return index if same else None


def _names(known: vocabulary.Vocabulary) -> dict[str, int]:
  """Classes by name, and by commonest word; of homonyms the first.

  Without padding: a list that names "pad" or "padding" means the thing.
  """
  found: dict[str, int] = {}
  for index in _candidates(known):
    found.setdefault(_word(known, index).casefold(), index)
  found.pop("", None)
  return found | {known.nouns[i].casefold(): i for i in _candidates(known)}


def _candidates(known: vocabulary.Vocabulary) -> list[int]:
  """The classes that a role may be filled with."""
  return [i for i, n in enumerate(known.nouns) if n != vocabulary.PAD]


def _word(known: vocabulary.Vocabulary, noun: int) -> str:
  """The first gloss of a noun class; "" for blank."""
  name, glosses = known.nouns[noun], known.noun_glosses[noun]
  if name == vocabulary.BLANK:
    return ""
  return glosses[0].replace("_", " ") if glosses else name
