"""Evaluation of any predictor of interactions: the best hypotheses per image.

With pairwise non-maximum suppression like GEN-VLKT's `--use_nms_filter`: of two
pairs with the same interaction the worse one is dropped where (IoU of the
persons) * (IoU of the objects) ** 0.5 exceeds a threshold (0.7 there).
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from input_pipeline import schema, stream
from input_pipeline.hico_det import pair_columns
from mipd_jax.evaluation.situations import Evaluator, Predict
from mipd_jax.feeding.dequantise import dequantise
from mipd_jax.feeding.feeds import Feed
from mipd_jax.metrics.hico_det_matching import Detections, iou
from mipd_jax.models import outputs as out
from mipd_jax.models.pairs import of_the_object

_OBJECT_POWER = 0.5


def suppress(hits: Detections, threshold: float) -> Detections:
  """The detections of one image that stay, the best first."""
  order = np.argsort(-hits.score, kind="stable")
  kept: list[int] = []
  for row in order:
    same = [i for i in kept if hits.interaction[i] == hits.interaction[row]]
    if not same or _overlap(hits.boxes, row, same).max() <= threshold:
      kept.append(int(row))
  return Detections(
    hits.image[kept],
    hits.boxes[kept],
    hits.interaction[kept],
    hits.score[kept],
  )


def _overlap(boxes_Nx8: np.ndarray, row: int, others: list[int]) -> np.ndarray:
  """Overlap of one pair with each of the others, [len(others)]."""
  mine = np.repeat(boxes_Nx8[row : row + 1], len(others), axis=0)
  theirs = boxes_Nx8[others]
  persons = iou(mine[:, :4], theirs[:, :4])
  return persons * iou(mine[:, 4:], theirs[:, 4:]) ** _OBJECT_POWER


# Hypotheses kept per reported one, since some will be suppressed.
_SPARE = 3
_SURE = 1e-6


def cached_pair_logits(key: str) -> Predict:
  """Predicts from an image's logits in the cache.

  A pair's probabilities are their softmax among the interactions of its
  object, so all pairs of an image with the same object get the same.
  """

  def predict(params: Any, batch: Mapping, banks: Mapping) -> dict:
    del params
    logits = batch[key].astype(jnp.float32)[:, None]
    own = of_the_object(logits, batch, banks)
    share = jnp.clip(jax.nn.softmax(own, axis=-1), _SURE, 1 - _SURE)
    scores = jnp.log(share) - jnp.log1p(-share)
    return {out.PAIR_SCORES: of_the_object(scores, batch, banks)}

  return predict


def by_slots(
  predict: Predict,
  params: Any,
  batch: Mapping[str, Array],
  banks: Mapping[str, Array],
  slots: int,
) -> Float[Array, "b p v"]:
  """PAIR_SCORES of any number of pairs, `slots` at a time.

  The best detections come first; the pairs of one turn see each other.
  """
  size, pairs = batch[schema.PAIR_MASK].shape
  if pairs <= slots:
    return predict(params, batch, banks)[out.PAIR_SCORES].astype(jnp.float32)
  keys = [k for k, key in schema.PAIR_ANNOTATIONS.items() if "P" in key.axes]

  def turns(x):
    return jnp.moveaxis(x.reshape(size, -1, slots, *x.shape[2:]), 1, 0)

  def turn(some):
    scores = predict(params, {**batch, **some}, banks)[out.PAIR_SCORES]
    return scores.astype(jnp.float32)

  scores = jax.lax.map(turn, {k: turns(batch[k]) for k in keys})
  return jnp.moveaxis(scores, 0, 1).reshape(size, pairs, -1)


def compile_pair_step(
  predict: Predict, *, slots: int, top_k: int, detection_power: float
) -> Callable:
  """Jits (params, batch, banks) -> the best hypotheses of each image.

  Returns:
    A function whose result has score, pair, interaction [B, K], sorted, the
    boxes [B, K, 8] on the canvas, and the images' sizes [B, 2]. A score is
    sigmoid(logit) * (product of both detection scores) ** detection_power,
    -1 where there is no hypothesis.
  """

  def step(params, batch, banks):
    batch = dequantise(batch)
    logits = by_slots(predict, params, batch, banks, slots)
    detected = batch[schema.PAIR_DETECTION].prod(axis=-1) ** detection_power
    scores = jax.nn.sigmoid(logits) * detected[..., None]
    scores = jnp.where(logits > out.NEVER / 2, scores, -1)
    flat = scores.reshape(len(scores), -1)
    best, place = jax.lax.top_k(flat, min(_SPARE * top_k, flat.shape[-1]))
    pair = place // scores.shape[-1]
    boxes = jnp.take_along_axis(
      batch[schema.PAIR_BOXES], pair[..., None], axis=1
    )
    return {
      "score": best,
      "pair": pair,
      "interaction": place % scores.shape[-1],
      "boxes": boxes,
      "image_size": batch[schema.IMAGE_SIZE],
    }

  return jax.jit(step)


def evaluate(
  evaluator: Evaluator,
  source: stream.Source,
  *,
  top_k: int,
  nms_threshold: float | None = None,
  what: str = "evaluate",
  feed: Feed | None = None,
) -> list[Detections]:
  """The best hypotheses of every image of a split.

  Args:
    evaluator: with a step of `compile_pair_step`.
    source, what, feed: as in `Evaluator.results`.
    top_k, nms_threshold: as in `detections`.
  """
  best: list[Detections] = []
  for result, images, mask in evaluator.results(source, what, feed):
    best += detections(
      result, images, mask, top_k=top_k, nms_threshold=nms_threshold
    )
  return best


def detections(
  result: Mapping[str, np.ndarray],
  images: np.ndarray,
  mask: np.ndarray,
  *,
  top_k: int,
  nms_threshold: float | None,
) -> Iterator[Detections]:
  """The reported hypotheses of a batch, image by image.

  Args:
    result: of a step.
    images: int [B], the image of each row.
    mask: bool [B], False for filler.
    top_k: the most that are kept of an image.
    nms_threshold: see `suppress`; None keeps overlapping pairs.
  """
  for row in np.flatnonzero(mask):
    there = result["score"][row] >= 0
    hits = Detections(
      image=np.full(int(there.sum()), images[row], np.int32),
      boxes=pair_columns.to_pixels(
        result["image_size"][row], result["boxes"][row][there]
      ),
      interaction=result["interaction"][row][there].astype(np.int32),
      score=result["score"][row][there].astype(np.float64),
    )
    if nms_threshold is not None:
      hits = suppress(hits, nms_threshold)
    yield Detections(
      hits.image[:top_k],
      hits.boxes[:top_k],
      hits.interaction[:top_k],
      hits.score[:top_k],
    )
