"""About which instances of an image a teacher is asked, and with what words.

Of situations every boxed role, among the nouns that fill this role in
training; of interactions every pair, among the interactions of its object.
"""

import functools
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging
from jaxtyping import Bool

from input_pipeline import schema
from input_pipeline.dataset import Dataset, Split
from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig.vocabulary import BLANK, OOV, PAD, Vocabulary
from mipd_jax.rationales import templates, wording
from mipd_jax.teachers.interfaces import Instances, Kind

QUESTION = "Question: what is the {kind} in this picture? Answer:"
_LEAST_AREA = 1e-6  # of the canvas


class RoleInstances:
  """Boxed roles of situations: a kind is a role."""

  slots = schema.MAX_ROLES

  def __init__(self, dataset: Dataset, question: str = ""):
    """`question` may name the role as {kind}; "" is `QUESTION`."""
    self._dataset = dataset
    self._question = checked(question or QUESTION)

  @functools.cached_property
  def kinds(self) -> Sequence[Kind]:
    words = self._dataset.vocabulary
    columns = self._dataset.split("train").annotations()
    candidates = role_candidates(columns, words)
    names = [wording.noun_name(glosses) for glosses in words.noun_glosses]
    kinds = []
    for role, allowed in zip(words.roles, candidates, strict=True):
      classes = np.flatnonzero(allowed)
      answers = tuple(names[noun] for noun in classes)
      kinds.append(Kind(self._question.format(kind=role), classes, answers))
    return tuple(kinds)

  def of(self, split: Split) -> Instances:
    columns = split.annotations()
    return _found(
      split,
      self.kinds,
      _corners(columns[schema.BOXES]),
      columns[schema.ROLES],
      columns[schema.BOX_MASK],
    )

  def sentences(
    self, split: Split, texts: Sequence[Sequence[str]]
  ) -> list[list[tuple[str, str]]]:
    words, columns = self._dataset.vocabulary, split.annotations()
    names = [wording.noun_name(glosses) for glosses in words.noun_glosses]
    special = {words.noun_index[name] for name in (BLANK, OOV, PAD)}

    def named(role: int, given: np.ndarray) -> tuple[str, list[str]]:
      if role < 0:
        return "", []
      nouns = [names[n] for n in np.unique(given) if n not in special]
      return words.roles[role], nouns

    return [
      _told(four, [named(r, n) for r, n in zip(roles, nouns, strict=True)])
      for four, roles, nouns in zip(
        texts, columns[schema.ROLES], columns[schema.NOUNS], strict=True
      )
    ]


class PairInstances:
  """Pairs of a person and an object: a kind is an object."""

  def __init__(self, dataset: Dataset, slots: int, question: str = ""):
    """`question` may name the object as {object}."""
    self._dataset, self.slots = dataset, slots
    self._question = checked(question or QUESTION)

  @functools.cached_property
  def kinds(self) -> Sequence[Kind]:
    words, names = self._dataset.words, self._dataset.vocabulary.verbs
    kinds = []
    for thing, name in enumerate(words.objects):
      classes = np.flatnonzero(words.object_of == thing)
      noun = name.replace("_", " ")
      question = self._question.format(kind="activity", object=noun)
      kinds.append(Kind(question, classes, tuple(names[c] for c in classes)))
    return tuple(kinds)

  def of(self, split: Split) -> Instances:
    columns = split.annotations()
    pairs = columns[schema.PAIR_BOXES]
    person, thing = _corners(pairs[..., :4]), _corners(pairs[..., 4:])
    both = np.concatenate(
      [
        np.minimum(person[..., :2], thing[..., :2]),
        np.maximum(person[..., 2:], thing[..., 2:]),
      ],
      axis=-1,
    )
    return _found(
      split,
      self.kinds,
      both,
      columns[schema.PAIR_OBJECT],
      columns[schema.PAIR_MASK],
    )

  def sentences(
    self, split: Split, texts: Sequence[Sequence[str]]
  ) -> list[list[tuple[str, str]]]:
    columns = split.annotations()
    things = [name.replace("_", " ") for name in self._dataset.words.objects]
    return [
      _told(
        four,
        [
          (things[thing], []) if there else ("", [])
          for thing, there in zip(objects, mask, strict=True)
        ],
      )
      for four, objects, mask in zip(
        texts,
        columns[schema.PAIR_OBJECT],
        columns[schema.PAIR_MASK],
        strict=True,
      )
    ]


def _told(
  four: Sequence[str], instances: Sequence[tuple[str, Sequence[str]]]
) -> list[tuple[str, str]]:
  """Of each instance, what the gaze texts say about it.

  The negative text names other nouns, so only the role finds its part.
  """
  gaze = dict(zip(schema.RATIONALES, four, strict=True))
  right = wording.by_instance(gaze["gaze_pos"], instances)
  roles = [(role, ()) for role, _ in instances]
  wrong = wording.by_instance(gaze["gaze_neg"], roles)
  return list(zip(right, wrong, strict=True))


def role_candidates(
  columns: Mapping[str, np.ndarray], words: Vocabulary
) -> Bool[np.ndarray, "roles c"]:
  """`losses.banks.ROLE_CANDIDATES`, of a training split's columns."""
  fills = np.zeros((len(words.roles), len(words.nouns)), bool)
  for role, nouns in templates.noun_pools(words, columns).items():
    fills[role, nouns] = True
  return fills


def checked(question: str) -> str:
  """A template of questions, if it can be filled.

  Raises:
    InputError: it names anything else than {kind} or {object}.
  """
  try:
    question.format(kind="kind", object="object")
  except (KeyError, IndexError, ValueError) as error:
    raise InputError(
      f"teacher.instances.question={question!r} cannot be filled: {error}",
      "use {kind} for the role and, for interactions, {object}; no other "
      "braces",
    ) from error
  return question


def _corners(boxes_cxcywh: np.ndarray) -> np.ndarray:
  """[..., 4] cx cy w h -> x1 y1 x2 y2, within the canvas."""
  centre, half = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:] / 2
  corners = np.concatenate([centre - half, centre + half], axis=-1)
  return np.clip(corners, 0, 1).astype(np.float32)


def _found(
  split: Split,
  kinds: Sequence[Kind],
  corners: np.ndarray,
  kind: np.ndarray,
  mask: np.ndarray,
) -> Instances:
  """The instances that can be asked about; says how many cannot."""
  size = corners[..., 2:] - corners[..., :2]
  flat = mask & (size.prod(axis=-1) <= _LEAST_AREA)
  empty = np.array([not len(one.classes) for one in kinds])
  without = mask & empty[np.maximum(kind, 0)]
  for what, which in (
    ("boxes without area", flat),
    ("instances without candidates in training", without),
  ):
    if which.any():
      image = int(np.argwhere(which)[0][0])
      logging.warning(
        "%s: the teacher is not asked about %d %s, the first in image %s.",
        split.name,
        which.sum(),
        what,
        split.names[image],
      )
  asked = mask & ~flat & ~without
  return Instances(corners, np.where(asked, kind, -1).astype(np.int32))
