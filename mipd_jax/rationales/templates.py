"""Rationales from annotated frames, by template: no language model needed.

Four texts per training image in the order of `schema.RATIONALES`, as the
judgmental rationales generator (METHOD, part 1) would write them:

  glimpse_pos  the scene: the verb, its meaning, who takes part
  glimpse_neg  the scene of another verb that would fit the same roles
  gaze_pos     the instances: every role's noun, its looks, its place
  gaze_neg     the same roles with other nouns, left and right exchanged

All choices are functions of (seed, image name): an image always gets the same
texts, for any order and number of processes.
"""

import collections
import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from input_pipeline import schema
from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig.vocabulary import BLANK, OOV, PAD, Vocabulary
from mipd_jax.rationales import wording
from mipd_jax.rationales.frame import Activity, AnnotatedFrame, Instance

# Part of the cache's plan: raise it when any text changes.
VERSION = "templates-2"

# A wrong verb is one of this many that share most roles with the true one.
_PLAUSIBLE_VERBS = 8
# Draws of a wrong noun, half of them from the role's own nouns.
_ATTEMPTS = 32


class RationaleWriter:
  """Writes the four texts of an image from its annotation."""

  def __init__(
    self,
    vocabulary: Vocabulary,
    *,
    allowed_verbs: Iterable[int],
    noun_pools: Mapping[int, np.ndarray] | None = None,
    seed: int = 0,
    definition_words: int = 8,
  ):
    """Prepares the choices.

    Args:
      vocabulary: names and texts.
      allowed_verbs: verbs that a negative may name; leave out unseen ones.
      noun_pools: role id -> noun classes that fill it in training, from
        `noun_pools`; all nouns if None.
      seed: of the choice of wrong verbs and nouns.
      definition_words: words taken from a noun's definition.

    Raises:
      InputError: fewer than two verbs are allowed.
    """
    self._words = vocabulary
    self._allowed = tuple(sorted({int(verb) for verb in allowed_verbs}))
    if len(self._allowed) < 2:
      raise InputError(
        f"negative rationales may name {len(self._allowed)} verbs only",
        "the training split needs images of two verbs or more",
      )
    self._pools = dict(noun_pools or {})
    self._plausible: dict[int, tuple[int, ...]] = {}
    self._seed = seed
    self._definition_words = definition_words
    special = {vocabulary.noun_index[name] for name in (BLANK, OOV, PAD)}
    self._nouns = tuple(set(range(len(vocabulary.nouns))) - special)

  def write(
    self, name: str, verb: int, nouns: np.ndarray, boxes: np.ndarray
  ) -> tuple[str, str, str, str]:
    """The four texts of an image, in the order of `schema.RATIONALES`.

    Args:
      name: the image's file name, seeds the choices.
      verb: the true verb.
      nouns: int [R, 3] annotated noun classes in the frame's order.
      boxes: float [R, 4] cx cy w h on the unit canvas, -1 for no box.
    """
    return texts(self.frame(name, verb, nouns, boxes))

  def frame(
    self, name: str, verb: int, nouns: np.ndarray, boxes: np.ndarray
  ) -> AnnotatedFrame:
    """The annotation in words, and a wrong one; arguments as in `write`."""
    frame = self._words.frames[verb]
    filled = self._consensus(frame, nouns)
    named = {role: self._gloss(noun) for role, noun in filled.items()}
    wrong = self._wrong_nouns(name, frame, nouns, filled)
    places = {r: box for r, box in zip(frame, boxes, strict=False)}
    given = {r: self._given(nouns[frame.index(r)]) for r in filled}
    return AnnotatedFrame(
      image=name,
      true=self._activity(verb, named),
      wrong=self._activity(self._wrong_verb(name, verb), named),
      instances=tuple(
        self._instance(role, noun, places[role], given[role])
        for role, noun in filled.items()
      ),
      wrong_instances=tuple(
        self._instance(role, noun, wording.mirror(places[role]), (noun,))
        for role, noun in wrong.items()
      ),
    )

  def _consensus(
    self, frame: Sequence[int], nouns: np.ndarray
  ) -> dict[int, int]:
    """Role -> the noun of most annotators; without empty roles."""
    proper = set(self._nouns)
    filled = {}
    for role, given in zip(frame, nouns, strict=False):
      votes = collections.Counter(n for n in given.tolist() if n in proper)
      if votes:  # Among equally frequent nouns the first annotator's.
        filled[role] = votes.most_common(1)[0][0]
    return filled

  def _given(self, nouns: np.ndarray) -> tuple[int, ...]:
    proper = set(self._nouns)
    return tuple(n for n in dict.fromkeys(nouns.tolist()) if n in proper)

  def _activity(self, verb: int, nouns: Mapping[int, str]) -> Activity:
    words = self._words
    roles = words.frame_roles(verb)
    named = {words.roles[role]: noun for role, noun in nouns.items()}
    abstract = words.verb_abstracts[verb]
    return Activity(
      verb=words.verbs[verb],
      meaning=wording.short(words.verb_definitions[verb]),
      abstract=abstract,
      parts=tuple((r, named.get(r) or wording.vague(r)) for r in roles),
      sentence=wording.sentence(roles, named, abstract),
    )

  def _instance(
    self, role: int, noun: int, box: np.ndarray, given: Sequence[int]
  ) -> Instance:
    words = self._words
    looks = wording.short(words.noun_definitions[noun], self._definition_words)
    glosses = [g for one in given for g in words.noun_glosses[one]]
    every = [self._gloss(noun), *(g.replace("_", " ") for g in glosses)]
    return Instance(
      role=words.roles[role],
      noun=self._gloss(noun),
      looks=looks,
      place=wording.position(box),
      nouns=tuple(dict.fromkeys(every)),
    )

  def _wrong_verb(self, name: str, verb: int) -> int:
    if verb not in self._plausible:
      self._plausible[verb] = self._plausible_verbs(verb)
    plausible = self._plausible[verb]
    return plausible[self._draw(f"{name}/verb", len(plausible))]

  def _plausible_verbs(self, verb: int) -> tuple[int, ...]:
    """The allowed verbs that share most roles with `verb`, never itself."""
    frames = self._words.frames
    true = set(frames[verb])

    def unlike(other: int) -> float:
      roles = set(frames[other])
      return -len(true & roles) / len(true | roles)

    others = [other for other in self._allowed if other != verb]
    return tuple(sorted(others, key=unlike)[:_PLAUSIBLE_VERBS])

  def _wrong_nouns(
    self, name: str, frame: Sequence[int], nouns: np.ndarray, filled: Iterable
  ) -> dict[int, int]:
    """For every filled role a noun that no annotator gave for any role.

    If an image has all nouns of a small vocabulary: a noun that no annotator
    gave for that role.
    """
    # By word: another synset of the same word ("man") would be true.
    anywhere = self._glosses(nouns)
    wrong = {}
    for role in filled:
      here = self._glosses(nouns[frame.index(role)])
      pool = self._pools.get(role, ())
      key = f"{name}/noun {role}"
      wrong[role] = self._wrong_noun(key, pool, anywhere, here)
    return wrong

  def _wrong_noun(
    self, key: str, pool: Sequence[int], anywhere: set[str], here: set[str]
  ) -> int:
    for attempt in range(_ATTEMPTS):
      nouns = pool if len(pool) and attempt < _ATTEMPTS // 2 else self._nouns
      noun = int(nouns[self._draw(f"{key} {attempt}", len(nouns))])
      if self._gloss(noun) not in anywhere:
        return noun
    for given in (anywhere, here):
      for noun in self._nouns:
        if self._gloss(noun) not in given:
          return noun
    raise InputError(
      f"image {key}: its annotators gave every noun of the vocabulary",
      "a vocabulary needs more nouns than one role of an image",
    )

  def _glosses(self, nouns: np.ndarray) -> set[str]:
    return {self._gloss(noun) for noun in np.unique(nouns).tolist()}

  def _gloss(self, noun: int) -> str:
    return wording.noun_name(self._words.noun_glosses[noun])

  def _draw(self, key: str, count: int) -> int:
    """A number below `count`, from the seed and the image with a purpose."""
    text = f"{self._seed}/{key}".encode()
    digest = hashlib.sha256(text).digest()
    return int.from_bytes(digest[:8], "little") % count


def texts(frame: AnnotatedFrame) -> tuple[str, str, str, str]:
  """The four texts of a frame, in the order of `schema.RATIONALES`."""
  return (
    _scene(frame.true),
    _scene(frame.wrong),
    _instances(frame.instances),
    _instances(frame.wrong_instances),
  )


def _scene(activity: Activity) -> str:
  parts = [text for text in (activity.sentence, activity.meaning) if text]
  return f"{activity.verb}: " + ". ".join(parts)


def _instances(instances: Sequence[Instance]) -> str:
  return ". ".join(
    wording.instance(one.role, one.noun, one.looks, one.place)
    for one in instances
  )


def noun_pools(
  vocabulary: Vocabulary, annotations: Mapping[str, np.ndarray]
) -> dict[int, np.ndarray]:
  """Which nouns fill each role in training: plausible wrong answers.

  Args:
    vocabulary: tells which classes are no nouns.
    annotations: columns of the training split, `roles` and `nouns`.

  Returns:
    Sorted noun classes by role id, without blank, oov and Pad.
  """
  special = [vocabulary.noun_index[name] for name in (BLANK, OOV, PAD)]
  roles, nouns = annotations[schema.ROLES], annotations[schema.NOUNS]
  return {
    role: np.setdiff1d(nouns[roles == role], special)
    for role in range(len(vocabulary.roles))
  }
