"""Infers how a detector numbers its objects from the annotated boxes.

A person is 0, 1 or 49, depending on the list that the detector was trained on.
Where a detected box overlaps an annotated one, the annotated object shows
which list it was.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from input_pipeline.hico_det.detectors import box_readings
from input_pipeline.hico_det.vocabulary import Vocabulary
from input_pipeline.io.errors import InputError

# Numberings of objects.
ALPHABETICAL = "alphabetical"  # by name from 0: a person is 49
ALPHABETICAL_1 = "alphabetical-from-1"  # a person is 50
COCO_80 = "coco80"  # COCO's order from 0: a person is 0
COCO_80_1 = "coco80-from-1"  # a person is 1, a dog 17
COCO_91 = "coco91"  # COCO's category ids: a person is 1, a dog 18
ORDERS = (ALPHABETICAL, COCO_80, COCO_91, ALPHABETICAL_1, COCO_80_1)
_OVERLAP = 0.5
# With so many compared boxes, some numbering must fit a tenth of them.
_ENOUGH = 20
_SHOWN = 3


def order(name: str, words: Vocabulary) -> dict[int, int]:
  """File's number -> the vocabulary's number of an object.

  Raises:
    InputError: there is no such numbering.
  """
  count = len(words.objects)
  ranked = sorted(range(count), key=words.objects.__getitem__)
  orders = {
    ALPHABETICAL: dict(enumerate(ranked)),
    ALPHABETICAL_1: dict(enumerate(ranked, 1)),
    COCO_80: {i: i for i in range(count)},
    COCO_80_1: {i + 1: i for i in range(count)},
    COCO_91: {int(x): i for i, x in enumerate(words.category_ids)},
  }
  if name not in orders:
    raise InputError(
      f"there is no numbering {name!r}", f"choose one of {', '.join(ORDERS)}"
    )
  return orders[name]


class Agreement:
  """Counts which detected label overlaps which annotated object.

  Args:
    words: the objects.
  """

  def __init__(self, words: Vocabulary):
    self._words = words
    self._counts: dict[tuple[int, int], int] = {}

  @property
  def compared(self) -> int:
    """Number of annotated boxes that a detected one overlaps by half."""
    return sum(self._counts.values())

  def add(
    self,
    boxes: np.ndarray,
    labels: np.ndarray,
    scores: np.ndarray,
    annotated: np.ndarray,
    objects: np.ndarray,
  ) -> None:
    """Adds an image: each annotated box counts its best-scored detection.

    Args:
      boxes: [n, 4] detected boxes, pixels from 0.
      labels: int [n], in any numbering.
      scores: [n].
      annotated: [m, 4] annotated boxes, pixels from 0.
      objects: int [m], in the vocabulary's numbering.
    """
    if not len(boxes) or not len(annotated):
      return
    on = box_readings.iou(boxes, annotated) >= _OVERLAP
    best = np.where(on, scores[:, None], -np.inf).argmax(axis=0)
    for row in np.flatnonzero(on.any(axis=0)):
      key = int(labels[best[row]]), int(objects[row])
      self._counts[key] = self._counts.get(key, 0) + 1

  def fitting(
    self, used: Mapping[int, int], others: Mapping[str, Mapping[int, int]]
  ) -> list[str]:
    """Numberings that fit clearly better than the one in use, best first."""
    fits = {}
    for name, other in others.items():
      differ = {
        key: n
        for key, n in self._counts.items()
        if used.get(key[0]) != other.get(key[0])
      }
      right = sum(n for (x, true), n in differ.items() if other.get(x) == true)
      kept = sum(n for (x, true), n in differ.items() if used.get(x) == true)
      if right and right > 3 * kept and 2 * right >= sum(differ.values()):
        fits[name] = self.right(other)
    best = max(fits.values(), default=0)
    return [name for name, n in fits.items() if n == best]

  def right(self, numbers: Mapping[int, int]) -> int:
    """Number of compared boxes whose label is the annotated object."""
    return sum(n for (x, o), n in self._counts.items() if numbers.get(x) == o)

  def best(self, seen: set[int]) -> list[str]:
    """Numberings that contain all labels `seen` and agree best."""
    orders = {name: order(name, self._words) for name in ORDERS}
    right = {
      name: self.right(numbers)
      for name, numbers in orders.items()
      if seen <= numbers.keys()
    }
    top = max(right.values(), default=0)
    fit = [n for n, x in right.items() if x == top and 2 * x >= self.compared]
    if not top or not fit:
      return []
    # If all labels mean the same in two numberings, either will do.
    meant = {tuple(orders[name][x] for x in sorted(seen)): name for name in fit}
    return fit if len(meant) > 1 else fit[:1]

  def check(self, used: str, where: str) -> str:
    """Compares a numbering of the raw labels with the others.

    Args:
      used: its name, one of `ORDERS`.
      where: the file or folder, for messages.

    Returns:
      A doubt, or what could not be checked; "" if there is none.

    Raises:
      InputError: another numbering fits, or none does.
    """
    numbers = order(used, self._words)
    others = {name: order(name, self._words) for name in ORDERS if name != used}
    self._refuse(
      numbers,
      self.fitting(numbers, others),
      f"{where}: with --labels={used}",
      lambda names: f"say {' or '.join(f'--labels={x}' for x in names)}",
    )
    return self._doubt(numbers, f"--labels={used}")

  def check_objects(self, where: str) -> str:
    """`check` for objects that have been numbered already.

    Raises:
      InputError: they fit if their numbers are read as another list's.
    """
    same = {i: i for i in range(len(self._words.objects))}
    self._refuse(
      same,
      self.fitting(same, dict(self._exchanged())),
      f"{where}:",
      lambda names: (
        "import the detections again with that numbering "
        "(detection_import --labels), or give names as labels"
      ),
    )
    return self._doubt(same, where)

  def _exchanged(self) -> Iterator[tuple[str, Mapping[int, int]]]:
    """For each pair of exchanged lists, given object -> intended object."""
    orders = {name: order(name, self._words) for name in ORDERS}
    for wrong, numbers in orders.items():
      for right, others in orders.items():
        if wrong != right:
          meant = {o: others[x] for x, o in numbers.items() if x in others}
          yield f"{right}, read as {wrong}", meant

  def _refuse(self, numbers, fitting, where, remedy) -> None:
    compared, right = self.compared, self.right(numbers)
    seen = (
      f"{right} of {compared} annotated boxes have their own object on them"
    )
    if fitting:
      raise InputError(
        f"{where} {seen}{self._example(numbers)}; the numbers fit "
        f"{' or '.join(fitting[:_SHOWN])}",
        remedy(fitting),
      )
    if compared >= _ENOUGH and 10 * right < compared:
      raise InputError(
        f"{where} {seen}{self._example(numbers)}; none of the numberings "
        f"{', '.join(ORDERS)} fits",
        "give names as labels, or the detector's own list of objects",
      )

  def _example(self, numbers: Mapping[int, int]) -> str:
    wrong = {k: n for k, n in self._counts.items() if numbers.get(k[0]) != k[1]}
    if not wrong:
      return ""
    label, true = max(wrong, key=wrong.__getitem__)
    names, given = self._words.objects, numbers.get(label)
    wrong_label = f"number {label}" if given is None else repr(names[given])
    return f" ({wrong_label} lies on an annotated {names[true]!r})"

  def _doubt(self, numbers: Mapping[int, int], where: str) -> str:
    compared = self.compared
    if not compared:
      return (
        f"{where}: no detected box overlaps an annotated one, so the numbering "
        "of the objects could not be checked"
      )
    right = self.right(numbers)
    if 2 * right < compared:
      return (
        f"{where}: {right} of {compared} annotated boxes have their own object "
        f"on them{self._example(numbers)}; check the labels"
      )
    return ""
