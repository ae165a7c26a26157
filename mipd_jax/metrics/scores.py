"""SWiG scores: per example, summed per verb, then put together on the host.

Every reported figure comes from one array of sums and one of counts, both
per verb. Padded examples add nothing, sums from batches, devices and
processes merge by addition, so each image counts once however the work was
split (fault table, row 12).
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from input_pipeline import schema
from mipd_jax.losses import boxes as box_ops
from mipd_jax.models import outputs as out

IOU_THRESHOLD = 0.5
_FRAME_SCORES = ("value", "value_all", "grnd", "grnd_all")
_CONDITIONS = ("top1", "top5", "gt")
VERB_SCORES = ("verb_top1", "verb_top5")
ALL_SCORES = VERB_SCORES + tuple(
  f"{score}_{condition}" for condition in _CONDITIONS for score in _FRAME_SCORES
)
# Of the dev scores, those that are worth a curve; all go into selection.
_DEV_SCORES = ("verb_top1", "verb_top5", "value_gt", "grnd_gt")
# The eight numbers of the reference's `mean_acc`.
MEAN_ACC = VERB_SCORES + tuple(
  f"{score}_{condition}"
  for condition in _CONDITIONS
  for score in ("value", "value_all")
)


def verb_hits(
  verb_scores: Float[Array, "b v"], batch: Mapping[str, Array]
) -> dict[str, Bool[Array, "b"]]:
  """Whether the true verb is first, and among the first five.

  Ties count against the model only from lower indices, as `top_k` orders.
  """
  scores = verb_scores.astype(jnp.float32)
  verb = batch[schema.VERB][:, None]
  true = jnp.take_along_axis(scores, verb, axis=-1)
  index = jnp.arange(scores.shape[-1])
  ahead = (scores > true) | ((scores == true) & (index < verb))
  rank = jnp.sum(ahead, axis=-1)
  return {"verb_top1": rank < 1, "verb_top5": rank < 5}


def role_hits(
  outputs: Mapping[str, Array], batch: Mapping[str, Array]
) -> tuple[Bool[Array, "b r"], Bool[Array, "b r"]]:
  """Which roles have a right noun, and which a right grounding.

  Grounding: where a box exists IoU >= 0.5 and confidence >= 0, where none
  does confidence < 0. IoU on the letterboxed canvas equals IoU in original
  pixels: the map is one scale and a shift.
  """
  noun = jnp.argmax(outputs[out.NOUN_SCORES], axis=-1)
  right_noun = jnp.any(noun[..., None] == batch[schema.NOUNS], axis=-1)
  iou, _ = box_ops.iou_and_union(
    box_ops.to_corners(outputs[out.BOX]),
    box_ops.to_corners(batch[schema.BOXES]),
  )
  present = outputs[out.BOX_CONFIDENCE] >= 0
  right_box = jnp.where(
    batch[schema.BOX_MASK], present & (iou >= IOU_THRESHOLD), ~present
  )
  return right_noun, right_box


def cut_to_image(
  boxes: Float[Array, "b r 4"], image_size: Int[Array, "b 2"]
) -> Float[Array, "b r 4"]:
  """Cuts predicted boxes to where the image lies on its canvas.

  What a box has outside the image nobody can have annotated; the authors'
  code cuts it before IoU too.

  Args:
    boxes: cx cy w h over the canvas side.
    image_size: height, width of the original, pixels.
  """
  share = image_size / jnp.max(image_size, axis=-1, keepdims=True)
  half = share[:, None, ::-1] / 2  # of width, height
  low, high = 0.5 - half, 0.5 + half
  corners = box_ops.to_corners(boxes)
  corners = jnp.clip(
    corners,
    jnp.concatenate([low, low], axis=-1),
    jnp.concatenate([high, high], axis=-1),
  )
  return box_ops.to_centres(corners)


def example_scores(
  outputs: Mapping[str, Array], batch: Mapping[str, Array]
) -> Float[Array, "b k"]:
  """One row an example, a column for each of ALL_SCORES, in 0..1."""
  verb = verb_hits(outputs[out.VERB_SCORES], batch)
  right_noun, right_box = role_hits(outputs, batch)
  roles = batch[schema.ROLE_MASK]
  grounded = right_noun & right_box

  def share(right):
    return jnp.sum(right & roles, axis=-1) / jnp.maximum(
      jnp.sum(roles, axis=-1), 1
    )

  def every(right):
    return jnp.all(right | ~roles, axis=-1)

  frame = {
    "value": share(right_noun),
    "value_all": every(right_noun),
    "grnd": share(grounded),
    "grnd_all": every(grounded),
  }
  # The frame is filled for the true verb; it counts where the verb counts.
  counts = {"top1": verb["verb_top1"], "top5": verb["verb_top5"], "gt": True}
  scores = verb | {
    f"{name}_{condition}": value * counts[condition]
    for condition in _CONDITIONS
    for name, value in frame.items()
  }
  return jnp.stack(
    [scores[name].astype(jnp.float32) for name in ALL_SCORES], axis=-1
  )


def sum_per_verb(
  scores: Float[Array, "b k"],
  batch: Mapping[str, Array],
  num_verbs: int,
) -> dict[str, Array]:
  """Adds up scores and examples by true verb; filler adds nothing."""
  mask = batch[schema.EXAMPLE_MASK].astype(jnp.float32)

  def total(x):
    return jax.ops.segment_sum(x, batch[schema.VERB], num_verbs)

  return {
    "sums": total(jnp.where(mask[:, None] > 0, scores, 0)),
    "counts": total(mask),
  }


@dataclasses.dataclass(frozen=True)
class VerbTotals:
  """Sums [V, K] and counts [V] of some columns of scores."""

  names: tuple[str, ...]
  sums: np.ndarray
  counts: np.ndarray

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
