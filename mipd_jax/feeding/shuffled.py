"""Controls: features of one kind come from another image.

If a method's gain comes from a teacher or from rationales, it must vanish when
these belong to another image; any gain that stays has another source.
"""

from collections.abc import Mapping

import numpy as np

from input_pipeline import schema
from input_pipeline.feature_cache import ANSWERS, StoredSplit
from input_pipeline.stream import Source

# What `TrainConfig.shuffled` exchanges, image by image.
KEYS: Mapping[str, tuple[str, ...]] = {
  "teacher": (schema.TEACHER_TOKENS, schema.VERB_LOGITS, schema.CLIP_LOGITS),
  "rationales": (schema.RATIONALE_TOKENS, schema.RATIONALE_MASK),
}
# Those of one instance are exchanged with those of another of its kind.
BY_INSTANCE = ("answers", "teacher")
KINDS = (*KEYS, "answers")
_SEED = 0
_FIRST = np.zeros(1, np.int64)


class Shuffled:
  """A source in which some features are those of another example.

  Which one depends only on the number of examples, so all epochs and runs see
  the same false pairs; no example keeps its own features.
  """

  def __init__(self, source: Source, keys: tuple[str, ...]):
    self._source, self._keys = source, keys
    self.num_examples = source.num_examples
    self.names = getattr(source, "names", ())
    self.other = _others(self.num_examples)

  def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
    """Keys of the source, int8 features with their own scales."""
    fields = dict(self._source.read(indices))
    theirs = self._source.read(self.other[indices])
    for key in fields:
      if key.removesuffix("_scale") in self._keys:
        fields[key] = theirs[key]
    return fields


class ShuffledAnswers:
  """A source in which answers are those about another instance of its kind.

  That is another role of the same name, or another pair with such an object;
  so its candidates are the same, and only what the teacher saw is wrong. The
  only instance of a kind keeps its own.
  """

  def __init__(self, source: Source, stored: StoredSplit):
    """`source` gives all else, `stored` the answers, in the same order."""
    self._source = source
    self.num_examples = source.num_examples
    self.names = getattr(source, "names", ())
    own = stored.only(ANSWERS).read(np.arange(self.num_examples))
    asked = own[schema.ANSWER_CLASSES][..., 0] >= 0
    pairs = schema.PAIR_OBJECT in own
    kind = own[schema.PAIR_OBJECT if pairs else schema.ROLES]
    self._answers = {key: own[key].copy() for key in schema.ANSWER_KEYS}
    for one in np.unique(kind[asked]):
      at = np.nonzero(asked & (kind == one))
      other = tuple(x[_others(len(at[0]))] for x in at)
      for key, values in self._answers.items():
        values[at] = own[key][other]

  def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
    """Keys of the source."""
    fields = dict(self._source.read(indices))
    return fields | {key: x[indices] for key, x in self._answers.items()}


def _others(count: int) -> np.ndarray:
  """Another position for each of `count`, int [count]; a lone one keeps 0."""
  order = np.random.default_rng(_SEED).permutation(count)
  other = np.empty_like(order)
  other[order] = np.roll(order, 1)
  return other


def control(source: Source, kind: str) -> Source:
  """The source itself, or with one kind of features shuffled.

  Args:
    source: of training examples.
    kind: of KINDS, or "". "teacher" is all that a teacher gives, its answers
      included where they are read.
  """
  given = source
  if kind in KEYS:
    source = Shuffled(given, KEYS[kind])
  if kind in BY_INSTANCE and schema.ANSWER_CLASSES in given.read(_FIRST):
    source = ShuffledAnswers(source, given)
  return source
