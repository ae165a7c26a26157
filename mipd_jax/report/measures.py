"""The report's numbers for a split, from one row per image.

Letters: n images, R role slots, V verbs. Images are named by their position.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from input_pipeline import schema

BINS = 10  # bins of a reliability diagram, of equal width


@dataclasses.dataclass(frozen=True, eq=False)
class Guesses:
  """One predictor's verbs for the images of a split.

  Attributes:
    verb: the most probable one.
    probability: of that verb.
    true_probability: of the true verb.
  """

  verb: Int[np.ndarray, "n"]
  probability: Float[np.ndarray, "n"]
  true_probability: Float[np.ndarray, "n"]


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
  """A split, row by row; roles are those of the true verb's frame.

  Attributes:
    verb: the true one.
    group: of the true verb, an index into `schema.GROUPS`.
    student: its guesses.
    teacher: the teacher's guesses for the same images; None if unknown.
    role_mask: where the frame has a role.
    box_mask: where the role has a true box.
    noun_right, box_right: as `metrics.scores.role_hits` judges.
    overlapping: whether the predicted box has IoU >= 0.5 with the true one,
      whatever the confidence; False without a true box.
    confidence: that there is a box, a probability.
  """

  verb: Int[np.ndarray, "n"]
  group: Int[np.ndarray, "n"]
  student: Guesses
  teacher: Guesses | None
  role_mask: Bool[np.ndarray, "n R"]
  box_mask: Bool[np.ndarray, "n R"]
  noun_right: Bool[np.ndarray, "n R"]
  box_right: Bool[np.ndarray, "n R"]
  overlapping: Bool[np.ndarray, "n R"]
  confidence: Float[np.ndarray, "n R"]

  @property
  def score(self) -> Float[np.ndarray, "n"]:
    """The score of an image, 0..1, which chooses the examples.

    The mean of three: the probability of the true verb, the share of roles
    with a right noun, the share with a right noun and a right box.
    """
    roles = np.maximum(self.role_mask.sum(axis=1), 1)
    named = (self.noun_right & self.role_mask).sum(axis=1) / roles
    grounded = self.noun_right & self.box_right & self.role_mask
    grounded = grounded.sum(axis=1) / roles
    return (self.student.true_probability + named + grounded) / 3


@dataclasses.dataclass(frozen=True)
class Bin:
  """Predictions of about the same probability.

  Attributes:
    low, high: ends of the bin, the upper one included.
    count: number of predictions in it.
    stated: their mean probability, 0..1; NaN if there are none.
    true: share of them that is true, 0..1; NaN if there are none.
  """

  low: float
  high: float
  count: int
  stated: float
  true: float


@dataclasses.dataclass(frozen=True)
class Confusion:
  """Images of one verb predicted as another; `share` of its images."""

  verb: int
  taken_for: int
  count: int
  share: float


def reliability(
  stated: Float[np.ndarray, "n"], came_true: Bool[np.ndarray, "n"]
) -> list[Bin]:
  """Stated probability against the true share, in BINS bins of equal width."""
  place = np.clip(np.ceil(np.asarray(stated, float) * BINS) - 1, 0, BINS - 1)
  bins = []
  for number in range(BINS):
    here = place == number
    count = int(here.sum())
    bins.append(
      Bin(
        low=number / BINS,
        high=(number + 1) / BINS,
        count=count,
        stated=float(stated[here].mean()) if count else float("nan"),
        true=float(came_true[here].mean()) if count else float("nan"),
      )
    )
  return bins


def calibration_error(bins: Sequence[Bin]) -> float | None:
  """Expected calibration error, 0..1: the bins' mean gap, weighted by counts.

  Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 3.
  """
  total = sum(b.count for b in bins)
  if not total:
    return None
  return sum(b.count * abs(b.stated - b.true) for b in bins if b.count) / total


def confusions(
  verb: Int[np.ndarray, "n"], taken_for: Int[np.ndarray, "n"], top: int
) -> list[Confusion]:
  """The most frequent wrong pairs; ties in order of the verbs."""
  wrong = verb != taken_for
  pairs, counts = np.unique(
    np.stack([verb[wrong], taken_for[wrong]], axis=1),
    axis=0,
    return_counts=True,
  )
  images = np.bincount(verb)
  order = np.argsort(-counts, kind="stable")[:top]
  return [
    Confusion(
      int(pairs[i, 0]),
      int(pairs[i, 1]),
      int(counts[i]),
      float(counts[i] / images[pairs[i, 0]]),
    )
    for i in order
  ]


def agreement(rows: Rows) -> dict[str, dict[str, int]]:
  """Images by group and by who predicts the verb; needs a teacher.

  Returns:
    {group or "all": {"both", "student", "teacher", "neither": images}}.
  """
  student = rows.student.verb == rows.verb
  teacher = rows.teacher.verb == rows.verb
  cells = {
    "both": student & teacher,
    "student": student & ~teacher,
    "teacher": ~student & teacher,
    "neither": ~student & ~teacher,
  }
  members = {name: rows.group == i for i, name in enumerate(schema.GROUPS)}
  members["all"] = np.ones(len(rows.verb), bool)
  return {
    group: {name: int((cell & here).sum()) for name, cell in cells.items()}
    for group, here in members.items()
  }


def lead(rows: Rows) -> list[tuple[int, int, float, float]]:
  """(verb, images, student, teacher): accuracy 0..1, student's lead first."""
  images = np.bincount(rows.verb)
  counts = [
    np.bincount(rows.verb[guess.verb == rows.verb], minlength=len(images))
    for guess in (rows.student, rows.teacher)
  ]
  there = np.flatnonzero(images)
  student, teacher = (count[there] / images[there] for count in counts)
  order = np.argsort(teacher - student, kind="stable")
  return [
    (int(there[i]), int(images[there[i]]), float(student[i]), float(teacher[i]))
    for i in order
  ]


def box_table(rows: Rows) -> Mapping[str, int]:
  """Roles by whether there is a true box and whether one is predicted."""
  said = rows.confidence >= 0.5
  true, roles = rows.box_mask, rows.role_mask
  return {
    "found": int((roles & true & said).sum()),
    "missed": int((roles & true & ~said).sum()),
    "added": int((roles & ~true & said).sum()),
    "rightly left out": int((roles & ~true & ~said).sum()),
  }
