"""SWiG's scores from what was right of each role: numpy alone.

The evaluation of training and the evaluator of files both come to these
functions, with the same arrays, so a table cannot depend on which of the two
made it. Three steps: which roles are right (`predicted_boxes`, `right_nouns`,
`input_pipeline.boxes`), the scores of each image (`per_image`), and the
figures that are reported (`VerbTotals`, `summarise`).
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from input_pipeline import boxes, schema

TOP = 5
FRAME_SCORES = ("value", "value_all", "grnd", "grnd_all")
CONDITIONS = ("top1", "top5", "gt")
VERB_SCORES = ("verb_top1", "verb_top5")
ALL_SCORES = VERB_SCORES + tuple(
  f"{score}_{condition}" for condition in CONDITIONS for score in FRAME_SCORES
)
# Of the dev scores, those that are worth a curve; all go into selection.
_DEV_SCORES = ("verb_top1", "verb_top5", "value_gt", "grnd_gt")
# The eight numbers of the reference's `mean_acc`.
MEAN_ACC = VERB_SCORES + tuple(
  f"{score}_{condition}"
  for condition in CONDITIONS
  for score in ("value", "value_all")
)


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
    float64 corners [n, R, 4]; NaN where the student says that there is no
    box, or says one that is not finite.
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


def verb_columns(rank: np.ndarray) -> np.ndarray:
  """Columns of VERB_SCORES, 0 or 1: [n, 2]."""
  rank = np.asarray(rank)
  return np.stack([rank < 1, rank < TOP], axis=-1).astype(np.float64)


def per_image(
  rank: np.ndarray,
  image: np.ndarray,
  right_noun: np.ndarray,
  right_box: np.ndarray,
  roles: np.ndarray | None = None,
) -> np.ndarray:
  """Columns of ALL_SCORES in 0..1: [n, K].

  The frame is the true verb's; under a condition it counts where the verb
  does.

  Args:
    rank: [n], place of the true verb among the predicted ones, from 0.
    image: [s], which image each role belongs to.
    right_noun, right_box: [s], what is right of each role.
    roles: [n], what the number of right roles is divided by; the number of
      the image's roles if None.
  """
  count = len(rank)

  def hits(right):
    return np.bincount(image, right, count)

  of_image = np.bincount(image, minlength=count)
  value, grnd = hits(right_noun), hits(right_noun & right_box)
  share = np.maximum(of_image if roles is None else roles, 1)
  frame = np.stack(
    [value / share, value == of_image, grnd / share, grnd == of_image], axis=-1
  )
  verb = verb_columns(rank)
  conditions = (verb[:, :1], verb[:, 1:], 1)
  return np.concatenate([verb, *(frame * c for c in conditions)], axis=-1)


@dataclasses.dataclass(frozen=True)
class VerbTotals:
  """Sums [V, K] and counts [V] of some columns of scores."""

  names: tuple[str, ...]
  sums: np.ndarray
  counts: np.ndarray

  @classmethod
  def of(
    cls,
    names: tuple[str, ...],
    columns: np.ndarray,
    verb: np.ndarray,
    num_verbs: int,
  ) -> "VerbTotals":
    """Adds up columns [n, K] of images by true verb [n], in float64."""
    sums = np.stack(
      [np.bincount(verb, column, num_verbs) for column in columns.T], axis=-1
    )
    counts = np.bincount(verb, minlength=num_verbs).astype(np.float64)
    return cls(names, sums, counts)

  def __add__(self, other: "VerbTotals") -> "VerbTotals":
    assert self.names == other.names
    return VerbTotals(
      self.names, self.sums + other.sums, self.counts + other.counts
    )

  def micro(self, verbs: np.ndarray) -> dict[str, float]:
    """Percent over the images of some verbs (bool [V]); none: no scores."""
    images = float(self.counts[verbs].sum())
    scores = {"images": int(images)}
    if images:
      values = 100 * self.sums[verbs].sum(axis=0) / images
      scores |= dict(zip(self.names, map(float, values), strict=True))
    return scores

  def macro(self, verbs: np.ndarray) -> dict[str, float]:
    """Percent averaged over those verbs that have images."""
    there = verbs & (self.counts > 0)
    scores = {"images": int(self.counts[there].sum())}
    if there.any():
      rates = self.sums[there] / self.counts[there, None]
      values = 100 * rates.mean(axis=0)
      scores |= dict(zip(self.names, map(float, values), strict=True))
    return scores


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
  """What checkpoints are chosen by: seen and rare only, never unseen.

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
  """Scores that are worth a curve, by name, and the selection score."""
  curves = {
    f"dev/{group}/{name}": value
    for group in schema.GROUPS
    for name, value in summary[group].items()
    if name in _DEV_SCORES
  }
  return curves, selection_score(summary)
