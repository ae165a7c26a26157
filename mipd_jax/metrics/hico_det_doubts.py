"""Faults that only a whole file of predictions on HICO-DET shows.

Boxes of another form, exchanged roles, interactions of another numbering,
scores of which the lowest is the best: each entry can be read, and all of it
is scored wrong.
"""

from collections.abc import Iterator

import numpy as np

from input_pipeline.hico_det.detectors import box_readings
from input_pipeline.hico_det.vocabulary import Vocabulary
from input_pipeline.io.errors import InputError
from mipd_jax.metrics.hico_det_matching import MIN_OVERLAP, Detections, Truth

_PAIRS = 1000  # annotated pairs whose best detection is checked
_ROLE = 6  # least number of annotated boxes to judge a role alone
_IMAGES = 200  # images in which roles are compared
_SHIFTED = 5  # right pairs that show that interactions count from 1
# A numbering that is right in a smaller share needs more pairs and more kinds.
_SOME, _SHARE, _TIMES, _KINDS = 20, 5, 4, 5
_USUAL = "as classes.json has them"
_FROM_1 = "the predictions count interactions from 1"
_FROM_0 = "the annotations count interactions from 1"
_VERBS = "these are numbers of verbs"


class Doubts:
  """Takes predictions image by image; `check` reports what is odd.

  Args:
    path: the file, for messages.
    truth: the annotations.
    words: the interactions.
  """

  def __init__(self, path: str, truth: Truth, words: Vocabulary):
    self._path, self._truth, self._words = path, truth, words
    remedy = (
      "give corners x1 y1 x2 y2 in pixels of the original image, counted from "
      "0 (and annotations in such pixels); if it is the annotations that count "
      "from 0, say --box-base=0"
    )
    self._readings = [
      box_readings.Readings(where, remedy, least)
      for where, least in (
        (path, 0),
        (f"{path}: human_boxes", _ROLE),
        (f"{path}: object_boxes", _ROLE),
      )
    ]
    self._images = 0
    self._annotated = self._own = self._exchanged = 0
    self._scores = [np.inf, -np.inf]
    self._number = 0  # detections
    # Annotated pairs with a detection; how many of the lowest-scored ones are
    # right, and of the best ones under each numbering.
    self._pairs = self._lowest = 0
    self._orders = _orders(words)
    self._right = dict.fromkeys(self._orders, 0)
    self._kinds: dict[str, set[int]] = {name: set() for name in self._orders}

  def add(self, image: int, hits: Detections) -> None:
    """Takes the detections of image number `image`."""
    if not len(hits.score):
      return
    self._number += len(hits.score)
    low, high = hits.score.min(), hits.score.max()
    self._scores = [min(self._scores[0], low), max(self._scores[1], high)]
    truth, rows = self._truth, self._truth.of_image(image)
    true = truth.boxes[rows] - 1
    boxes = hits.boxes[:, :4], hits.boxes[:, 4:]
    annotated = true[:, :4], true[:, 4:]
    size = truth.sizes[image]
    both = np.concatenate(boxes), np.concatenate(annotated)
    self._readings[0].add(*both, size)
    for reading, *of in zip(self._readings[1:], boxes, annotated, strict=True):
      reading.add(*of, size)
    if len(true) and self._images < _IMAGES:
      self._images += 1
      people, things = (np.unique(x, axis=0) for x in annotated)
      self._annotated += len(people) + len(things)
      self._own += box_readings.overlapped(boxes[0], people)
      self._own += box_readings.overlapped(boxes[1], things)
      self._exchanged += box_readings.overlapped(boxes[0], things)
      self._exchanged += box_readings.overlapped(boxes[1], people)
    if len(true) and self._pairs < _PAIRS:
      self._count(truth.keys[rows] % len(truth.counts), true, hits)

  def _count(
    self, labels: np.ndarray, true: np.ndarray, hits: Detections
  ) -> None:
    on = np.minimum(
      box_readings.iou(hits.boxes[:, :4], true[:, :4]),
      box_readings.iou(hits.boxes[:, 4:], true[:, 4:]),
    )
    on = on >= MIN_OVERLAP
    best = np.where(on, hits.score[:, None], -np.inf).argmax(axis=0)
    worst = np.where(on, hits.score[:, None], np.inf).argmin(axis=0)
    for row in np.flatnonzero(on.any(axis=0)):
      own = set(labels[(true == true[row]).all(axis=1)].tolist())
      self._pairs += 1
      self._lowest += int(hits.interaction[worst[row]]) in own
      number = int(hits.interaction[best[row]])
      for name, order in self._orders.items():
        if own & order.get(number, set()):
          self._right[name] += 1
          self._kinds[name].add(number)

  def check(self) -> list[str]:
    """Notes on what is odd.

    Raises:
      InputError: the file is certainly of another form.
    """
    notes = [self._readings[0].check()]
    least = 0.75 if self._annotated < _SOME else 0.3
    if self._exchanged >= max(least * self._annotated, 2 * self._own, 2):
      raise InputError(
        f"{self._path}: its boxes overlap {self._own} of {self._annotated} "
        "annotated boxes of their role; with human_boxes and object_boxes "
        f"exchanged, {self._exchanged}",
        "exchange the two lists",
      )
    roles = [reading.check() for reading in self._readings[1:]]
    if not notes[0]:
      notes += [
        f"{self._path}: {role}: {note}"
        for role, note in zip(("people", "objects"), roles, strict=True)
        if note
      ]
    self._check_numbers()
    return [note for note in (*notes, *self._odd_scores()) if note]

  def _check_numbers(self) -> None:
    usual = self._right[_USUAL]
    for name, number in self._right.items():
      few = name in (_FROM_1, _FROM_0) and (
        number >= max(_SHIFTED, self._pairs / 2) and number > 3 * usual
      )
      many = (
        number >= max(_SOME, self._pairs / _SHARE)
        and number > _TIMES * usual
        and len(self._kinds[name]) >= _KINDS
      )
      if name != _USUAL and (few or many):
        how = {_FROM_1: "-1, in", _FROM_0: "+1, in"}.get(name, "read so, in")
        raise InputError(
          f"{self._path}: of {self._pairs} annotated pairs with a detection, "
          f"'hoi' of the best one is right in {usual}; {how} {number}: {name}",
          f"give numbers from 0 to {len(self._words) - 1} in the order of "
          "classes.json, or names",
        )

  def _odd_scores(self) -> Iterator[str]:
    if not self._number:
      yield f"{self._path} has no detection"
      return
    low, high = self._scores
    if low < 0 or high > 1:
      yield (
        f"{self._path}: scores go from {low:g} to {high:g}, so they are no "
        "probabilities (logits?); only their order counts here"
      )
    usual = self._right[_USUAL]
    if low == high and self._number >= _SOME:
      yield (
        f"{self._path}: all {self._number} scores are {low:g}, so their order "
        "in the file decides"
      )
    elif self._lowest >= max(_SOME, 2 * usual):
      yield (
        f"{self._path}: of {self._pairs} annotated pairs with a detection, the "
        f"one of the least score is right in {self._lowest}, that of the best "
        f"in {usual}: are scores larger where a detection is surer?"
      )
    elif self._pairs >= 5 * _SOME and 50 * usual < self._pairs:
      yield (
        f"{self._path}: of {self._pairs} annotated pairs with a detection, "
        f"'hoi' of the best one is right in {usual}: are these the numbers of "
        "classes.json?"
      )


def _orders(words: Vocabulary) -> dict[str, dict[int, set[int]]]:
  """Numbering -> number -> the interactions that it may mean."""
  count = len(words)
  rows = range(count)
  verb, object_ = words.verb_of.tolist(), words.object_of.tolist()
  sorts = {
    "they are in the order of their names": lambda i: words.names[i],
    "they are in the order of objects' names, then verbs'": lambda i: (
      words.objects[object_[i]],
      words.verbs[verb[i]],
    ),
    "they are in the order of COCO's objects, then verbs": lambda i: (
      object_[i],
      verb[i],
    ),
    "they are in the order of verbs, then COCO's objects": lambda i: (
      verb[i],
      object_[i],
    ),
  }
  of_verb: dict[int, set[int]] = {}
  for i in rows:
    of_verb.setdefault(verb[i], set()).add(i)
  return {
    _USUAL: {i: {i} for i in rows},
    _FROM_1: {i: {i - 1} for i in rows},
    _FROM_0: {i: {i + 1} for i in rows},
    **{
      name: {n: {i} for n, i in enumerate(sorted(rows, key=key))}
      for name, key in sorts.items()
    },
    _VERBS: of_verb,
  }
