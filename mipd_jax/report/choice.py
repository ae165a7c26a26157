"""Which images the report shows: by a rule that is written on the page."""

import collections
import dataclasses
from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float, Int

from input_pipeline import schema
from mipd_jax.report.findings import Rows

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
class Chosen:
  """Positions in the split: by (kind, group), and where teachers differ."""

  examples: dict[tuple[str, str], list[int]]
  student_ahead: list[int]
  teacher_ahead: list[int]

  @property
  def all(self) -> list[int]:
    """Every image that is shown, once, rising."""
    found = {i for cell in self.examples.values() for i in cell}
    return sorted(found | {*self.student_ahead, *self.teacher_ahead})


def choose(rows: Rows, each: int, differing: int) -> Chosen:
  """Applies RULE and TEACHER_RULE.

  Args:
    rows: of the split.
    each: images of a kind and group.
    differing: images on either side of teacher and student.
  """
  score = rows.score
  taken: set[int] = set()
  examples = {}
  for kind in KINDS:
    for number, group in enumerate(schema.GROUPS):
      here = rows.group == number
      found = _first(_distance(kind, score, here), here, each, taken)
      taken.update(found)
      examples[kind, group] = found
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
