"""SWiG's scores and their figures. Needs only numpy.

A score is one object (`Score`) in `SCORES`: its name, its column in tables,
and the value of each image. All lists of scores follow from `SCORES`:
results.json, tables, studies, the evaluator of files and the program on the
devices (`metrics/scores.py`). So a new score is a new entry here. A score
of frames is defined once (`FRAME_SCORES`) and counted under three conditions.

Training's evaluation and the evaluator of files call these functions with the
same arrays, so a table does not depend on which of the two made it. Three
steps: which roles are right (`predicted_boxes`, `right_nouns`,
`input_pipeline.boxes`), the scores of each image (`judge_images`, `of_images`),
and the reported figures (`VerbTotals`, `summarise`).
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from input_pipeline import boxes, schema

TOP = 5
# A column of images, [n]; arrays of numpy or of jax.
Column = Any


@dataclasses.dataclass(frozen=True)
class Judged:
  """What is right in n images: the input of every score.

  The arrays are numpy's on the host and jax's on the devices.

  Attributes:
    rank: int [n], place of the true verb among the predicted ones, from 0.
    roles: int [n], how many roles the true verb's frame has.
    divisor: [n], divides the number of right roles, at least 1.
    noun, box: bool, one per role, whether noun and grounding are right.
    total: sums a value of the roles over each image, [n].
  """

  rank: Column
  roles: Column = None
  divisor: Column = None
  noun: Any = None
  box: Any = None
  total: Callable[[Any], Column] | None = None


Value = Callable[[Judged], Column]


def _every_image(judged: Judged) -> Column:
  return judged.rank >= 0


@dataclasses.dataclass(frozen=True)
class Score:
  """One figure, in percent: the mean of a value over images.

  Attributes:
    stem: what it measures; its name is STEM_CONDITION.
    condition: of CONDITIONS: which verb has to be right for it to count.
    label: the head of its column.
    table: of CONDITIONS: the table that has its column.
    value: 0..1 or bool, [n], of each image.
    counts: bool [n], which images the mean is over.
    frame: whether it needs nouns and boxes. A predictor of verbs has none.
    selects: whether it is one of the figures that choose a checkpoint, the
      eight of the reference's `mean_acc`.
    headline: whether it is shown where there is little room: as a curve of the
      dev split, as a column of a study's differences.
    studied: whether a study keeps it.
    column: whether a study's tables have a column of it; verb top-1 has
      several of its own (`ablations/tables.py`).
  """

  stem: str
  condition: str
  label: str
  table: str
  value: Value
  counts: Value = _every_image
  frame: bool = True
  selects: bool = False
  headline: bool = False
  studied: bool = True
  column: bool = True

  @property
  def name(self) -> str:
    """In results.json."""
    return f"{self.stem}_{self.condition}"


@dataclasses.dataclass(frozen=True)
class FrameScore:
  """A score of the true verb's frame, before a condition.

  Attributes:
    stem, value, counts, selects: as in `Score`.
    headline, studied: the conditions under which they hold.
  """

  stem: str
  value: Value
  counts: Value = _every_image
  selects: bool = False
  headline: tuple[str, ...] = ()
  studied: tuple[str, ...] = ("top1", "gt")

  def under(self, condition: str) -> Score:
    """The same where the verb is right by `condition`, else 0."""
    right = CONDITIONS[condition]
    return Score(
      stem=self.stem,
      condition=condition,
      label=self.stem.replace("_", "-"),
      table=condition,
      value=lambda judged: self.value(judged) * right(judged),
      counts=self.counts,
      selects=self.selects,
      headline=condition in self.headline,
      studied=condition in self.studied,
      column=condition == "gt",
    )


# Titles of the tables, by condition.
TITLES = {
  "top1": "verb and frame as predicted (top-1)",
  "top5": "true verb among the five best (top-5)",
  "gt": "true verb given (gt)",
}
# When a frame counts: its verb is first, among the first five, or given.
CONDITIONS: Mapping[str, Value] = {
  "top1": lambda judged: judged.rank < 1,
  "top5": lambda judged: judged.rank < TOP,
  "gt": lambda judged: True,
}
VERB_SCORES = tuple(
  Score(
    stem="verb",
    condition=condition,
    label=f"verb {condition.replace('top', 'top-')}",
    table="top1",
    value=CONDITIONS[condition],
    frame=False,
    selects=True,
    headline=True,
    column=False,
  )
  for condition in ("top1", "top5")
)
FRAME_SCORES = (
  FrameScore(
    "value",
    lambda judged: judged.total(judged.noun) / judged.divisor,
    selects=True,
    headline=("gt",),
  ),
  FrameScore(
    "value_all",
    lambda judged: judged.total(judged.noun) == judged.roles,
    selects=True,
    studied=("gt",),
  ),
  FrameScore(
    "grnd",
    lambda judged: judged.total(judged.noun & judged.box) / judged.divisor,
    headline=("gt",),
  ),
  FrameScore(
    "grnd_all",
    lambda judged: judged.total(judged.noun & judged.box) == judged.roles,
    studied=("gt",),
  ),
)
SCORES = VERB_SCORES + tuple(
  score.under(condition) for condition in CONDITIONS for score in FRAME_SCORES
)
NAMES = tuple(score.name for score in SCORES)
# The eight figures of the reference's `mean_acc`.
MEAN_ACC = tuple(score.name for score in SCORES if score.selects)


def predicted_boxes(
  canvas: np.ndarray,
  confidence: np.ndarray,
  sizes: np.ndarray,
) -> np.ndarray:
  """A student's boxes in pixels of the original, cut to the image.

  Args:
    canvas: cx cy w h [n, R, 4], shares of the canvas side.
    confidence: logits [n, R]; there is a box from 0.
    sizes: height and width of the originals [n, 2].

  Returns:
    float64 corners [n, R, 4]; NaN where the student predicts no box or one
    that is not finite.
  """
  sizes = np.asarray(sizes)[:, None]
  corners = boxes.cut(boxes.from_canvas(canvas, sizes), sizes)
  there = (np.asarray(confidence) >= 0) & np.isfinite(corners).all(axis=-1)
  return np.where(there[..., None], corners, np.nan)


def true_boxes(
  canvas: np.ndarray,
  mask: np.ndarray,
  sizes: np.ndarray,
) -> np.ndarray:
  """A batch's annotated boxes in pixels; NaN where `mask` says none.

  Args:
    canvas: cx cy w h [n, R, 4], shares of the canvas side.
    mask: [n, R], whether there is a box.
    sizes: height and width of the originals [n, 2].
  """
  corners = boxes.annotated_from_canvas(canvas, np.asarray(sizes)[:, None])
  return np.where(np.asarray(mask)[..., None], corners, np.nan)


def right_nouns(noun: np.ndarray, annotated: np.ndarray) -> np.ndarray:
  """Whether a noun class [n, R] is one of the annotators', [n, R, A]."""
  return (np.asarray(noun)[..., None] == np.asarray(annotated)).any(axis=-1)


def ranks(verb_scores: np.ndarray, verb: np.ndarray) -> np.ndarray:
  """Place of the true verb [n] by scores [n, V]; of equals the first leads."""
  verb = np.asarray(verb)[:, None]
  true = np.take_along_axis(verb_scores, verb, axis=-1)
  before = np.arange(verb_scores.shape[-1]) < verb
  ahead = (verb_scores > true) | ((verb_scores == true) & before)
  return ahead.sum(axis=-1)


def judge_images(
  rank: np.ndarray,
  image: np.ndarray,
  right_noun: np.ndarray,
  right_box: np.ndarray,
  roles: np.ndarray | None = None,
) -> Judged:
  """What is right in n images, from what is right of s roles.

  Args:
    rank: [n], place of the true verb among the predicted ones, from 0.
    image: [s], which image each role belongs to.
    right_noun, right_box: bool [s], what is right of each role.
    roles: [n], divides the number of right roles; the number of the image's
      roles if None.
  """
  count = len(rank)
  of_image = np.bincount(image, minlength=count)
  return Judged(
    rank=rank,
    roles=of_image,
    divisor=np.maximum(of_image if roles is None else roles, 1),
    noun=right_noun,
    box=right_box,
    total=lambda right: np.bincount(image, right, count),
  )


@dataclasses.dataclass(frozen=True)
class ImageScores:
  """Some scores of n images.

  Attributes:
    names: of the scores.
    values: float64 [n, K] in 0..1; 0 where an image does not count.
    counts: bool [n, K], whether an image counts.
  """

  names: tuple[str, ...]
  values: np.ndarray
  counts: np.ndarray


def of_images(judged: Judged) -> ImageScores:
  """The scores of each image; of verbs alone if nouns are not judged."""
  scores = [
    score for score in SCORES if not score.frame or judged.noun is not None
  ]
  counts = np.stack([score.counts(judged) for score in scores], axis=-1)
  values = np.stack(
    [np.asarray(score.value(judged), np.float64) for score in scores], axis=-1
  )
  names = tuple(score.name for score in scores)
  return ImageScores(names, np.where(counts, values, 0), counts)


@dataclasses.dataclass(frozen=True)
class VerbTotals:
  """Scores added up by true verb: each name with its sums and its counts.

  Attributes:
    names: of K scores.
    sums: float64 [V, K] of values in 0..1.
    counts: float64 [V, K], number of images in each sum.
    images: float64 [V], number of images.
  """

  names: tuple[str, ...]
  sums: np.ndarray
  counts: np.ndarray
  images: np.ndarray

  @classmethod
  def of(
    cls, scores: ImageScores, verb: np.ndarray, num_verbs: int
  ) -> "VerbTotals":
    """Adds up images by true verb [n], in float64."""

    def by_verb(columns):
      return np.stack(
        [np.bincount(verb, column, num_verbs) for column in columns.T], axis=-1
      )

    images = np.bincount(verb, minlength=num_verbs).astype(np.float64)
    return cls(
      scores.names, by_verb(scores.values), by_verb(scores.counts), images
    )

  def __add__(self, other: "VerbTotals") -> "VerbTotals":
    assert self.names == other.names
    return VerbTotals(
      self.names,
      self.sums + other.sums,
      self.counts + other.counts,
      self.images + other.images,
    )

  def micro(self, verbs: np.ndarray) -> dict[str, float]:
    """Percent over the images of some verbs (bool [V]); none: no scores."""
    counts = self.counts[verbs].sum(axis=0)
    values = 100 * self.sums[verbs].sum(axis=0) / np.maximum(counts, 1)
    return {"images": int(self.images[verbs].sum())} | self._named(
      values, counts
    )

  def macro(self, verbs: np.ndarray) -> dict[str, float]:
    """Percent averaged over those verbs that have images."""
    there = verbs & (self.images > 0)
    rates = self.sums[there] / np.maximum(self.counts[there], 1)
    number = (self.counts[there] > 0).sum(axis=0)
    values = 100 * (rates.sum(axis=0) / np.maximum(number, 1))
    return {"images": int(self.images[verbs].sum())} | self._named(
      values, number
    )

  def of_verb(self, verb: int) -> dict[str, float]:
    """Percent over the images of one verb, without their number."""
    counts = self.counts[verb]
    values = self.sums[verb] * 100 / np.maximum(counts, 1)
    return self._named(values, counts)

  def _named(self, values: np.ndarray, counts: np.ndarray) -> dict[str, float]:
    """Scores [K] by name; those without a counted image are left out."""
    columns = zip(self.names, values, counts, strict=True)
    return {name: float(value) for name, value, count in columns if count}


def summarise(totals: VerbTotals, groups: np.ndarray) -> dict:
  """Scores for seen, rare, unseen and all; micro, macro, harmonic mean.

  Args:
    totals: sums and counts per verb.
    groups: int [V], index into `schema.GROUPS`.

  Returns:
    {group: scores, "macro": {group: scores}, "harmonic_mean": percent}: the
    harmonic mean of seen and unseen verb top-1, None where one has no image.
  """
  members = {name: groups == i for i, name in enumerate(schema.GROUPS)}
  members["all"] = np.ones_like(groups, bool)
  result = {name: totals.micro(verbs) for name, verbs in members.items()}
  result["macro"] = {
    name: totals.macro(verbs) for name, verbs in members.items()
  }
  result["harmonic_mean"] = harmonic_mean(
    result["seen"].get("verb_top1"), result["unseen"].get("verb_top1")
  )
  return result


def harmonic_mean(a: float | None, b: float | None) -> float | None:
  """2ab / (a + b); 0 where both are 0, None where one is missing."""
  if a is None or b is None:
    return None
  return 2 * a * b / (a + b) if a + b else 0.0


def selection_score(summary: Mapping[str, Mapping[str, float]]) -> float:
  """The score that chooses checkpoints: seen and rare only, never unseen.

  The mean over both groups of the reference's `mean_acc` (verb and value
  numbers); a group without images is left out.
  """
  groups = [summary[name] for name in ("seen", "rare")]
  means = [
    np.mean([scores[name] for name in MEAN_ACC])
    for scores in groups
    if scores["images"]
  ]
  return float(np.mean(means)) if means else 0.0


def dev_report(
  summary: Mapping[str, Mapping[str, float]],
) -> tuple[dict[str, float], float]:
  """The dev curves by name, and the selection score."""
  headlines = [score.name for score in SCORES if score.headline]
  curves = {
    f"dev/{group}/{name}": summary[group][name]
    for group in schema.GROUPS
    for name in headlines
    if name in summary[group]
  }
  return curves, selection_score(summary)
