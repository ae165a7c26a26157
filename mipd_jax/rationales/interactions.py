"""Rationales of interactions: the rules, and templates from annotated pairs.

For the rules, any form of a verb's name counts as naming it ("rides" for
"ride"); an unseen interaction is named by its verb and its object in one
sentence. The templates write:

  glimpse_pos  the scene: who does what with what
  glimpse_neg  the same objects with other interactions
  gaze_pos     the instances: each person, its action, its place; each object
  gaze_neg     the same people doing other things with other objects, left
               and right exchanged

Only interactions of training images are named. All choices are functions of
(seed, image name).
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from input_pipeline.hico_det import pair_columns
from mipd_jax.rationales import prompts, templates, wording
from mipd_jax.rationales.frame import Activity, AnnotatedFrame, Instance
from mipd_jax.rationales.judging import JrgConfig
from mipd_jax.rationales.rules import Fault, Rules
from mipd_jax.rationales.source import Texts
from mipd_jax.rationales.wording import contains, stems

if TYPE_CHECKING:
  from input_pipeline.hico_det.pair_dataset import PairSplit
  from input_pipeline.hico_det.records import Record
  from input_pipeline.hico_det.vocabulary import Vocabulary
  from input_pipeline.ov_swig.vocabulary import Vocabulary as Words

SEPARATOR = ", "  # between the verbs of an activity
_SENTENCE = re.compile(r"[.!?;\n]")


class InteractionRules(Rules):
  """Checks texts of one split against their frames.

  Args:
    words: verbs, objects and interactions.
    allowed: interactions that a text may name.
    config: style and length.
  """

  def __init__(
    self, words: "Vocabulary", allowed: Iterable[int], config: JrgConfig
  ):
    self._set_form(prompts.STYLES[config.style], config.max_words)
    seen = set(allowed)
    self._unseen = [
      (
        words.verbs[words.verb_of[i]].replace("_", " "),
        words.objects[words.object_of[i]].replace("_", " "),
      )
      for i in range(len(words))
      if i not in seen and not words.no_interaction[i]
    ]

  def without_leaks(self, frame: AnnotatedFrame) -> AnnotatedFrame:
    """The frame itself: it has no definitions."""
    return frame

  def _leak(self, text: str, frame: AnnotatedFrame) -> list[Fault]:
    sentences = [stems(one) for one in _SENTENCE.split(text)]
    own = [stems(a.sentence) for a in (frame.true, frame.wrong)]
    return [
      Fault("unseen verb", f"it names the interaction {verb} {thing!r}")
      for verb, thing in self._unseen
      if any(contains(x, verb) and contains(x, thing) for x in sentences)
      and not any(contains(x, verb) and contains(x, thing) for x in own)
    ]

  def _glimpse_pos(self, text: str, frame: AnnotatedFrame) -> list[Fault]:
    words, faults = stems(text), []
    if not any(contains(words, x) for x in _verbs(frame.true.verb)):
      detail = f"it does not name the activity {frame.true.verb!r}"
      faults.append(Fault("verb not named", detail))
    named = [one for one in frame.instances if one.role != "person"]
    if not any(contains(words, one.noun) for one in named):
      detail = f"it names none of {', '.join(one.noun for one in named)}"
      faults.append(Fault("object not named", detail))
    return faults

  def _glimpse_neg(self, text: str, frame: AnnotatedFrame) -> list[Fault]:
    words, faults = stems(text), []
    wrong = _verbs(frame.wrong.verb)
    for verb in _verbs(frame.true.verb):
      if verb not in wrong and contains(words, verb):
        detail = f"it names the true activity {verb!r}"
        faults.append(Fault("true verb named", detail))
    if not any(contains(words, x) for x in wrong):
      detail = f"it does not name the activity {frame.wrong.verb!r}"
      faults.append(Fault("verb not named", detail))
    return faults


def _verbs(joined: str) -> list[str]:
  return joined.split(SEPARATOR)


VERSION = "interactions-1"
_PHOTO = "a photo of "
_PAIRS = 3  # first pairs of an image that are named: CLIP reads 77 tokens


class InteractionFrames:
  """The frames that JRG writes about, see `jrg.Frames`.

  Args:
    words: verbs, objects and interactions.
    split: of annotated pairs.
    config: of JRG.
  """

  def __init__(
    self, words: "Vocabulary", split: "PairSplit", config: JrgConfig
  ):
    self._records = split.records
    self._source = InteractionRationales(words, config.seed)
    numbers = np.concatenate([r.labels[:, 1] for r in split.records])
    self._allowed = np.unique(numbers)
    self.allowed = self._allowed.tolist()
    self.rules = InteractionRules(words, self.allowed, config)

  def frame(self, row: int) -> AnnotatedFrame:
    return self._source.frame(self._records[row], self._allowed)

  def digest(self) -> str:
    digest = hashlib.sha256()
    for record in self._records:
      for x in (record.boxes, record.objects, record.pairs, record.labels):
        digest.update(np.ascontiguousarray(x).tobytes())
    return digest.hexdigest()


class InteractionRationales:
  """A source of rationales, see `source.RationaleSource`.

  Args:
    words: verbs, objects and interactions.
    seed: of the choice of wrong interactions and objects.
  """

  def __init__(self, words: "Vocabulary", seed: int = 0):
    self._words, self._seed = words, seed
    self.version = f"{VERSION} seed={seed} pairs={_PAIRS}"

  def write(self, split: "PairSplit", vocabulary: "Words") -> Texts:
    """The four texts of every image of the split, in its order."""
    del vocabulary
    return [templates.texts(frame) for frame in self.frames(split)]

  def frames(self, split: "PairSplit") -> list[AnnotatedFrame]:
    """Every image's annotation in words, and a wrong one."""
    numbers = [r.labels[:, 1] for r in split.records]
    allowed = np.unique(np.concatenate(numbers))
    return [self.frame(record, allowed) for record in split.records]

  def frame(self, record: "Record", allowed: np.ndarray) -> AnnotatedFrame:
    """One image's frame; the wrong one is drawn from `allowed`."""
    pairs = np.unique(record.labels[:, 0])[:_PAIRS]
    true = [self._labels(record, pair)[0] for pair in pairs]
    there = set(record.labels[:, 1].tolist())
    wrong = [
      self._wrong(f"{record.name}/{i}", label, there, allowed)
      for i, label in enumerate(true)
    ]
    others = [
      self._other(f"{record.name}/{i} object", record, allowed)
      for i in range(len(true))
    ]
    boxes = record.boxes[record.pairs[pairs]].reshape(-1, 8)
    places = pair_columns.to_canvas(record, boxes).reshape(-1, 2, 4)
    mirrored = [[wording.mirror(box) for box in pair] for pair in places]
    return AnnotatedFrame(
      image=record.name,
      true=self._activity(
        [x for pair in pairs for x in self._labels(record, pair)]
      ),
      wrong=self._activity(wrong),
      instances=self._instances(true, places),
      wrong_instances=self._instances(others, mirrored),
    )

  def _labels(self, record: "Record", pair: int) -> list[int]:
    return record.labels[record.labels[:, 0] == pair, 1].tolist()

  def _activity(self, labels: Sequence[int]) -> Activity:
    words = self._words
    labels = list(dict.fromkeys(labels))
    verbs = [words.verbs[words.verb_of[x]].replace("_", " ") for x in labels]
    things = [self._object(x) for x in labels]
    return Activity(
      verb=SEPARATOR.join(dict.fromkeys(verbs)),
      meaning="",
      abstract="",
      parts=(("person", "person"), *(("object", name) for name in things)),
      sentence=", ".join(words.texts[x].removeprefix(_PHOTO) for x in labels),
    )

  def _instances(
    self, labels: Sequence[int], places: Sequence[Sequence[np.ndarray]]
  ) -> tuple[Instance, ...]:
    instances = []
    for label, (person, thing) in zip(labels, places, strict=True):
      phrase = self._words.phrases[self._words.verb_of[label]]
      name = self._object(label)
      instances += [
        Instance(
          "person", "person", phrase, wording.position(person), ("person",)
        ),
        Instance("object", name, "", wording.position(thing), (name,)),
      ]
    return tuple(instances)

  def _object(self, label: int) -> str:
    words = self._words
    return words.objects[words.object_of[label]].replace("_", " ")

  def _wrong(
    self, key: str, label: int, there: set[int], allowed: np.ndarray
  ) -> int:
    """An allowed interaction with the same object that the image lacks.

    If there is none, one with another object.
    """
    free = np.array([x for x in allowed if x not in there])
    same = self._words.object_of[free] == self._words.object_of[label]
    pool = free[same] if same.any() else free
    return int(pool[self._draw(key, len(pool))]) if len(pool) else label

  def _other(self, key: str, record: "Record", allowed: np.ndarray) -> int:
    """An allowed interaction with an object that the image lacks."""
    absent = ~np.isin(self._words.object_of[allowed], record.objects)
    pool = allowed[absent] if absent.any() else allowed
    return int(pool[self._draw(key, len(pool))])

  def _draw(self, key: str, count: int) -> int:
    """A number below `count`, from the seed and the image with a purpose."""
    digest = hashlib.sha256(f"{self._seed}/{key}".encode()).digest()
    return int.from_bytes(digest[:8], "little") % count
