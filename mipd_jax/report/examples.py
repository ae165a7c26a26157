"""The examples of sheet and report, and the choice of their images.

The report chooses by the rules that its page states.
"""

import collections
import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL import Image

from input_pipeline import schema
from input_pipeline.io.errors import InputError
from mipd_jax.report.drawing import Box
from mipd_jax.report.measures import Rows

KINDS = ("best", "typical", "worst")
RULE = (
  "An image's score is the mean of three numbers from 0 to 1: the probability "
  "that the student gives the true verb, the share of roles with a right "
  "noun, and the share with a right noun and a right box. Of each group of "
  "verbs (seen, rare, unseen) the highest scores are the best examples, the "
  "lowest the worst, and those nearest the group's median the typical ones; "
  "of equal scores the first image in the split. No image is shown twice."
)
TEACHER_RULE = (
  "Of the images where only one of both has the verb right: those where its "
  "probability of the true verb is furthest above the other's. Images that "
  "are shown among the examples are passed over."
)
TRAINING_RULE = (
  "Training images drawn at random (by the run's seed), of as many verbs, "
  "evenly over the groups that have training images."
)


@dataclasses.dataclass(frozen=True)
class RoleExample:
  """One role: nouns as words, boxes as (x1, y1, x2, y2) original pixels."""

  role: str
  true_nouns: tuple[str, ...]
  predicted_noun: str
  true_box: Box | None
  predicted_box: Box | None

  @property
  def noun_right(self) -> bool:
    """Whether one of the annotators gave the predicted noun."""
    return self.predicted_noun in self.true_nouns

  @property
  def box_verdict(self) -> tuple[bool, str]:
    """Right or wrong by the metric grnd, and in words."""
    if self.true_box is None or self.predicted_box is None:
      both = self.true_box is None and self.predicted_box is None
      missed = self.predicted_box is None
      words = "no box" if both else "box missed" if missed else "box added"
      return both, words
    iou = box_iou(self.true_box, self.predicted_box)
    return iou >= 0.5, f"IoU {iou:.2f}"


@dataclasses.dataclass(frozen=True)
class Example:
  """One image of the sheet.

  The roles are those of the true verb's frame, in its order, with nouns and
  boxes predicted for that frame.
  """

  image: Image.Image | np.ndarray  # original pixels; uint8 [H, W, 3] or [H, W]
  name: str
  group: str
  true_verb: str
  predicted_verb: str
  probability: float | None
  roles: Sequence[RoleExample]


def box_iou(a: Box, b: Box) -> float:
  """Intersection over union of two (x1, y1, x2, y2) boxes, 0..1."""
  width = min(a[2], b[2]) - max(a[0], b[0])
  height = min(a[3], b[3]) - max(a[1], b[1])
  shared = max(width, 0) * max(height, 0)
  areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
  return shared / (areas - shared) if areas > shared else 0.0


def choose_for_sheet(
  groups: Sequence[str | int], correct: Sequence[bool], k: int, seed: int
) -> list[int]:
  """Draws images of all groups, right and wrong ones, at random.

  The cells (group, right or wrong) take turns, so that a sheet shows about as
  many wrong images as right ones at any accuracy. Say so below the sheet.

  Args:
    groups: group of each image, a name or an index into `schema.GROUPS`.
    correct: whether the image's verb was predicted.
    k: how many to draw; all if there are fewer.
    seed: of the draw.

  Returns:
    Positions, by group in the order of `schema.GROUPS`, right ones first.
  """
  names = [
    group if isinstance(group, str) else schema.GROUPS[int(group)]
    for group in groups
  ]
  if len(names) != len(correct) or k < 0:
    raise InputError(
      f"{len(names)} groups, {len(correct)} verdicts, k = {k}",
      "give one group and one verdict per image, and k >= 0",
    )
  # Right and wrong alternate, so that even a few draws show both.
  turns = [(g, i % 2 == 0) for i, g in enumerate(schema.GROUPS)]
  turns += [(g, i % 2 == 1) for i, g in enumerate(schema.GROUPS)]
  order = np.random.default_rng(seed).permutation(len(names)).tolist()
  cells = {
    cell: [i for i in order if (names[i], bool(correct[i])) == cell]
    for cell in turns
  }
  deals = [
    (deal, turns.index(cell), position)
    for cell, members in cells.items()
    for deal, position in enumerate(members)
  ]
  chosen = [position for _, _, position in sorted(deals)[:k]]
  return sorted(
    chosen,
    key=lambda i: (schema.GROUPS.index(names[i]), not correct[i], i),
  )


@dataclasses.dataclass(frozen=True)
class Chosen:
  """Positions in the split: by (kind, group), and where models differ."""

  examples: dict[tuple[str, str], list[int]]
  student_ahead: list[int]
  teacher_ahead: list[int]

  @property
  def all(self) -> list[int]:
    """Every shown image once, ascending."""
    shown = {i for cell in self.examples.values() for i in cell}
    return sorted(shown | {*self.student_ahead, *self.teacher_ahead})


def choose_for_report(rows: Rows, each: int, differing: int) -> Chosen:
  """Applies RULE and TEACHER_RULE.

  Args:
    rows: of the split.
    each: images per kind and group.
    differing: images per side of teacher and student.
  """
  score = rows.score
  taken: set[int] = set()
  examples = {}
  for kind in KINDS:
    for number, group in enumerate(schema.GROUPS):
      here = rows.group == number
      first = _first(_distance(kind, score, here), here, each, taken)
      taken.update(first)
      examples[kind, group] = first
  ahead: list[list[int]] = [[], []]
  if rows.teacher is not None:
    student, teacher = rows.student, rows.teacher
    both = ((student, teacher), (teacher, student))
    for side, (better, other) in enumerate(both):
      only = (better.verb == rows.verb) & (other.verb != rows.verb)
      gap = other.true_probability - better.true_probability
      ahead[side] = _first(gap, only, differing, taken)
  return Chosen(examples, *ahead)


def _distance(
  kind: str, score: Float[np.ndarray, "n"], here: Bool[np.ndarray, "n"]
) -> Float[np.ndarray, "n"]:
  """Small for images of that kind."""
  if kind == "typical" and here.any():
    return np.abs(score - np.median(score[here]))
  return score if kind == "worst" else -score


def _first(
  key: Float[np.ndarray, "n"],
  here: Bool[np.ndarray, "n"],
  count: int,
  taken: Iterable[int],
) -> list[int]:
  """The `count` images of `here` with the smallest keys, not yet taken."""
  free = np.array(here)
  free[list(taken)] = False
  places = np.flatnonzero(free)
  return places[np.argsort(key[places], kind="stable")[:count]].tolist()


def choose_training(
  verb: Int[np.ndarray, "n"],
  group: Int[np.ndarray, "n"],
  count: int,
  seed: int,
) -> list[int]:
  """Applies TRAINING_RULE; by group, in the order of the split."""
  order = np.random.default_rng(seed).permutation(len(verb))
  chosen: list[int] = []
  names: set[int] = set()
  queues = [
    collections.deque(i for i in order if group[i] == g)
    for g in np.unique(group)
  ]
  while len(chosen) < count and any(queues):
    for queue in queues:
      while queue and int(verb[queue[0]]) in names:
        queue.popleft()
      if queue and len(chosen) < count:
        chosen.append(int(queue.popleft()))
        names.add(int(verb[chosen[-1]]))
  return sorted(chosen, key=lambda i: (int(group[i]), i))
