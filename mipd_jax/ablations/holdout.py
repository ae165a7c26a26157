"""Seen verbs held out of training, to make choices without unseen verbs.

All choices (the bias between trained and untrained verbs; by people, one
variant rather than another) rest on students that were trained without some
seen verbs, on dev images of seen and rare verbs. Unseen verbs' dev and test
images have no part: their rows are never read, and their names do not compete.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Int

from input_pipeline import schema
from input_pipeline.io.errors import InputError
from input_pipeline.stream import Source
from mipd_jax.losses import banks as bank_lib

_SEED = 0
_SEEN, _UNSEEN = schema.GROUPS.index("seen"), schema.GROUPS.index("unseen")


class Subset:
  """A source of some rows of another."""

  def __init__(self, source: Source, rows: Int[np.ndarray, "n"]):
    self._source, self._rows = source, np.asarray(rows)
    self.num_examples = len(self._rows)
    self.names = tuple(source.names[row] for row in self._rows)

  def read(self, indices: np.ndarray) -> Mapping[str, np.ndarray]:
    """Keys of the source, for positions among the rows."""
    return self._source.read(self._rows[indices])


@dataclasses.dataclass(frozen=True)
class HeldOut:
  """The seen verbs that are held out.

  Attributes:
    groups: group of each verb, as in the dataset.
    verbs: True for those held out.
  """

  groups: Int[np.ndarray, "v"]
  verbs: Bool[np.ndarray, "v"]

  @property
  def candidates(self) -> Bool[np.ndarray, "v"]:
    """Names that compete in a choice: all but unseen verbs."""
    return self.groups != _UNSEEN

  def train_rows(self, annotations: Mapping[str, np.ndarray]) -> np.ndarray:
    """Training images of all other verbs."""
    return np.flatnonzero(~self.verbs[annotations[schema.VERB]])

  def selection_rows(self, annotations: Mapping[str, np.ndarray]) -> np.ndarray:
    """Dev images for choices: none of an unseen verb.

    Raises:
      InputError: none is of a held-out verb.
    """
    verbs = annotations[schema.VERB]
    rows = np.flatnonzero(self.candidates[verbs])
    if not self.verbs[verbs[rows]].any():
      raise InputError(
        "the dev split has no image of a verb that is held out",
        "raise held_out_verbs, or use a dataset whose dev split has seen verbs",
      )
    return rows


def draw(groups: Int[np.ndarray, "v"], count: int) -> HeldOut:
  """Draws the verbs to hold out, the same ones for every student.

  Args:
    groups: group of each verb.
    count: how many; 0 takes as many as are unseen.

  Raises:
    InputError: no seen verb would be left, or none held out.
  """
  groups = np.asarray(groups)
  seen = np.flatnonzero(groups == _SEEN)
  count = count or int(np.sum(groups == _UNSEEN))
  if not 0 < count < len(seen):
    raise InputError(
      f"cannot hold out {count} of {len(seen)} seen verbs",
      "set held_out_verbs to a smaller positive number",
    )
  verbs = np.zeros(len(groups), bool)
  verbs[np.random.default_rng(_SEED).choice(seen, count, replace=False)] = True
  return HeldOut(groups, verbs)


def banks_of(
  banks: Mapping[str, np.ndarray], train_verbs: Int[np.ndarray, "n"]
) -> dict[str, np.ndarray]:
  """Text banks, and the losses' banks for these training images' verbs."""
  num_verbs = len(banks[bank_lib.VERB_TRAINED])
  images = np.bincount(train_verbs, minlength=num_verbs)
  return dict(banks) | bank_lib.of_verbs(images)
