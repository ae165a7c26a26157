"""Controls: features of one kind come from another image.

If a method's gain comes from a teacher or from rationales, it must vanish when
these belong to another image; any gain that stays has another source.
"""

from collections.abc import Mapping

import numpy as np

from input_pipeline import schema
from input_pipeline.stream import Source

# What `TrainConfig.shuffled` exchanges.
KEYS: Mapping[str, tuple[str, ...]] = {
  "teacher": (schema.TEACHER_TOKENS, schema.VERB_LOGITS, schema.CLIP_LOGITS),
  "rationales": (schema.RATIONALE_TOKENS, schema.RATIONALE_MASK),
}
_SEED = 0


class Shuffled:
  """A source in which some features are those of another example.

  Which one depends only on the number of examples, so all epochs and runs see
  the same false pairs; no example keeps its own features.
  """

  def __init__(self, source: Source, keys: tuple[str, ...]):
    self._source, self._keys = source, keys
    self.num_examples = source.num_examples
    self.names = getattr(source, "names", ())
    order = np.random.default_rng(_SEED).permutation(self.num_examples)
    self.other = np.empty_like(order)
    self.other[order] = np.roll(order, 1)

  def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
    """Keys of the source, int8 features with their own scales."""
    fields = dict(self._source.read(indices))
    theirs = self._source.read(self.other[indices])
    for key in fields:
      if key.removesuffix("_scale") in self._keys:
        fields[key] = theirs[key]
    return fields


def control(source: Source, kind: str) -> Source:
  """The source itself, or with one kind of features shuffled.

  Args:
    source: of training examples.
    kind: a key of KEYS, or "".
  """
  return Shuffled(source, KEYS[kind]) if kind else source
