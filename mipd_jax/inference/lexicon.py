"""Words with the arrays that the student reads."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging

from input_pipeline.ov_swig import vocabulary

SMALLEST = 8  # least rows of a given list; sizes are powers of two
_ALIKE = 1e-6
Banks = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Frame:
  """The roles of a verb: names, rows of `role_text`, the abstract."""

  roles: tuple[str, ...]
  rows: tuple[int, ...]
  abstract: str


@dataclasses.dataclass(frozen=True, eq=False)
class NounList:
  """Nouns to choose from.

  Attributes:
    names: their names; "" is nothing.
    classes: their classes of training, None for other words.
    rule: of `programs.NOUN_RULES`, how they are scored.
    arrays: float32 text [W, E], int32 column [W] (class of training), bool
      mask [W] (False for filler).
  """

  names: tuple[str, ...]
  classes: tuple[str | None, ...]
  rule: str
  arrays: Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Lexicon:
  """Words and their arrays; rows beyond the words are filler.

  Attributes:
    verbs, frames: the list of verbs and the frame of each.
    verb_rows: row of `banks["verb_text"]` for each verb's role queries.
    verb_text: float32 [V, E], compared with images.
    banks: read by role queries and closed heads.
    nouns: the list of nouns.
  """

  verbs: tuple[str, ...]
  frames: tuple[Frame, ...]
  verb_rows: tuple[int, ...]
  verb_text: np.ndarray
  banks: Banks
  nouns: NounList

  @functools.cached_property
  def position(self) -> dict[str, int]:
    """Place of each verb in the list, by its name in lower case."""
    return {name.casefold(): i for i, name in enumerate(self.verbs)}

  @property
  def verb_mask(self) -> np.ndarray:
    return np.arange(len(self.verb_text)) < len(self.verbs)


def as_vocabulary(verbs=(), roles=(), nouns=()) -> vocabulary.Vocabulary:
  """(name, definition) pairs in the form that `labels` makes prompts from."""
  return vocabulary.Vocabulary(
    verbs=tuple(name for name, _ in verbs),
    verb_definitions=tuple(text for _, text in verbs),
    verb_abstracts=("",) * len(verbs),
    frames=((),) * len(verbs),
    roles=tuple(name for name, _ in roles),
    role_definitions=tuple(text for _, text in roles),
    nouns=tuple(name for name, _ in nouns),
    noun_glosses=tuple((name,) for name, _ in nouns),
    noun_definitions=tuple(text for _, text in nouns),
  )


def bucket(count: int) -> int:
  """Rows for a list of `count` words: few sizes, few programs."""
  return max(SMALLEST, 1 << (count - 1).bit_length())


def warn_of_alike(rows: np.ndarray, names: Sequence[str], what: str) -> None:
  """Warns of words that the text encoder cannot tell apart."""
  order = np.lexsort(rows.T[:4])
  near = np.abs(np.diff(rows[order], axis=0)).max(axis=1, initial=0) < _ALIKE
  places = np.flatnonzero(near)
  if places.size:
    first = [names[order[places[0] + i]] for i in (0, 1)]
    logging.warning(
      "Of the %s, %r and %r have one embedding, and %d in all have another's: "
      "the text encoder does not know these words; definitions may help.",
      what,
      *first,
      places.size,
    )
