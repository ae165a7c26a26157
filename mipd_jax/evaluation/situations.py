"""Evaluation of any named predictor over a split, each image once.

The devices predict; the host judges, in float64 and in pixels, by the same
functions as for files of predictions (`metrics.swig_scores`).
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from input_pipeline import boxes, order, schema, stream
from input_pipeline.io.progress import Progress
from mipd_jax.feeding.dequantise import dequantise
from mipd_jax.feeding.feeds import Feed, Streaming
from mipd_jax.losses.banks import VERB_TRAINED
from mipd_jax.metrics import scores, swig_scores
from mipd_jax.models import outputs as out

# Results with one row per image, passed on as they are.
_ROWS = ("verb", "probability", "verb_scores")
_NOUN, _BOX, _CONFIDENCE = "noun", "box", "confidence"
# The keys of a batch that predictions are compared with.
TRUTH = (
  schema.VERB,
  schema.ROLE_MASK,
  schema.NOUNS,
  schema.BOXES,
  schema.BOX_MASK,
  schema.IMAGE_SIZE,
)
_TRUE = "true_"
TRUE_VERB, TRUE_SIZE = _TRUE + schema.VERB, _TRUE + schema.IMAGE_SIZE
# (params, batch, banks) -> outputs with VERB_SCORES at least.
Predict = Callable[[Any, Mapping, Mapping], Mapping[str, jax.Array]]


@dataclasses.dataclass(frozen=True)
class Frames:
  """The fillers of one verb's roles in n images.

  Attributes:
    noun: int32 [n, R] noun classes.
    box: float64 [n, R, 4] corners in pixels of the original, cut to it; NaN
      where there is no box.
  """

  noun: np.ndarray
  box: np.ndarray


@dataclasses.dataclass(frozen=True)
class Judged:
  """Which of the roles of n images are right.

  Attributes:
    frames: their predictions.
    noun, box: bool [n, R], whether noun and grounding are right.
    overlapping: bool [n, R], whether the box overlaps the annotated one enough,
      even if its confidence drops it.
  """

  frames: Frames
  noun: np.ndarray
  box: np.ndarray
  overlapping: np.ndarray


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """Totals per verb, and the predictions for each image of the split.

  `frames` are of the true verbs, as they were scored; None for a predictor
  of verbs alone.
  """

  totals: swig_scores.VerbTotals
  verb: np.ndarray  # int32 [n]
  probability: np.ndarray  # float32 [n]
  verb_scores: np.ndarray  # float32 [n, V]
  frames: Frames | None = None


def cached_logits(key: str) -> Predict:
  """Predicts from verb logits in the cache; without nouns or boxes."""

  def predict(params: Any, batch: Mapping, banks: Mapping) -> dict:
    del params, banks
    return {out.VERB_SCORES: batch[key]}

  return predict


def less_trained(predict: Predict, bias: float) -> Predict:
  """The same predictor with `bias` subtracted from trained verbs' scores.

  A classifier scores the names of verbs without training images too low
  (calibrated stacking; `metrics/calibration.py`).
  """

  def less(params: Any, batch: Mapping, banks: Mapping) -> dict:
    outputs = dict(predict(params, batch, banks))
    trained = banks[VERB_TRAINED].astype(jnp.float32)
    outputs[out.VERB_SCORES] = (
      outputs[out.VERB_SCORES].astype(jnp.float32) - bias * trained
    )
    return outputs

  return less


def compile_eval_step(predict: Predict) -> Callable:
  """Jits (params, batch, banks) -> what `evaluate` reads, a row per image."""

  def step(params, batch, banks):
    batch = dequantise(batch)
    outputs = predict(params, batch, banks)
    verb_scores = outputs[out.VERB_SCORES].astype(jnp.float32)
    verbs = jax.nn.softmax(verb_scores)
    rows = {
      "verb": jnp.argmax(verbs, axis=-1).astype(jnp.int32),
      "probability": jnp.max(verbs, axis=-1),
      "verb_scores": verb_scores,
      TRUE_VERB: batch[schema.VERB],
    }
    if out.NOUN_SCORES in outputs:
      rows |= predicted_roles(outputs) | truth(batch)
    return rows

  return jax.jit(step)


def predicted_roles(outputs: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
  """The part of a model's outputs that `judge` reads."""
  return {
    _NOUN: scores.nouns(outputs[out.NOUN_SCORES]),
    _BOX: outputs[out.BOX].astype(jnp.float32),
    _CONFIDENCE: outputs[out.BOX_CONFIDENCE].astype(jnp.float32),
  }


def truth(batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
  """The part of a batch that `judge` reads."""
  return {_TRUE + name: batch[name] for name in TRUTH}


def is_truth(name: str) -> bool:
  """Whether a row's name is one of `truth`."""
  return name.startswith(_TRUE) and name.removeprefix(_TRUE) in TRUTH


def frames_of(rows: Mapping[str, np.ndarray]) -> Frames:
  """The predictions, from rows with `predicted_roles` and TRUE_SIZE."""
  box = swig_scores.predicted_boxes(
    rows[_BOX], rows[_CONFIDENCE], rows[TRUE_SIZE]
  )
  return Frames(np.asarray(rows[_NOUN], np.int32), box)


def judge(rows: Mapping[str, np.ndarray]) -> Judged:
  """What is right, from rows with `predicted_roles` and `truth`."""
  sizes = rows[TRUE_SIZE]
  frames = frames_of(rows)
  true = swig_scores.true_boxes(
    rows[_TRUE + schema.BOXES], rows[_TRUE + schema.BOX_MASK], sizes
  )
  drawn = swig_scores.predicted_boxes(
    rows[_BOX], np.zeros_like(rows[_CONFIDENCE]), sizes
  )
  return Judged(
    frames=frames,
    noun=swig_scores.right_nouns(frames.noun, rows[_TRUE + schema.NOUNS]),
    box=boxes.right(frames.box, true),
    overlapping=boxes.overlaps(drawn, true),
  )


def image_scores(rows: Mapping[str, np.ndarray]) -> swig_scores.ImageScores:
  """Scores of each image, of verbs alone or of all."""
  rank = swig_scores.ranks(rows["verb_scores"], rows[TRUE_VERB])
  if _NOUN not in rows:
    return swig_scores.of_images(swig_scores.Judged(rank))
  judged = judge(rows)
  image, role = np.nonzero(rows[_TRUE + schema.ROLE_MASK])
  images = swig_scores.judge_images(
    rank, image, judged.noun[image, role], judged.box[image, role]
  )
  return swig_scores.of_images(images)


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluator:
  """A compiled step and its parameters, for any split.

  Attributes:
    step: jitted (params, batch, banks) -> arrays with a row per example.
    params: the model's.
    banks: text embeddings.
    mesh: of all processes.
    batch_size: images per step over all devices.
  """

  step: Callable[[Any, Mapping, Mapping], Mapping[str, jax.Array]]
  params: Any
  banks: Mapping[str, jax.Array]
  mesh: jax.sharding.Mesh
  batch_size: int

  def results(
    self, source: stream.Source, what: str, feed: Feed | None = None
  ) -> Iterator[tuple[Mapping[str, np.ndarray], np.ndarray, np.ndarray]]:
    """The step's results for each batch of a split.

    Args:
      source: the split.
      what: for the progress line.
      feed: gives the split's batches of `batch_size`; None streams them.

    Yields:
      The step's result, whole on every process; the examples of its rows, int
      [B]; False for rows that are filler, bool [B].
    """
    total = source.num_examples
    feed = feed or Streaming(source, self.batch_size, self.mesh)
    with Progress(what, total, "images") as progress:
      for number, batch in enumerate(feed.evaluate()):
        result = self.step(self.params, batch, self.banks)
        result = multihost_utils.process_allgather(result, tiled=True)
        indices, mask = order.eval_indices(number, total, self.batch_size)
        yield result, indices, mask
        progress.advance(int(mask.sum()))


def evaluate(
  evaluator: Evaluator,
  source: stream.Source,
  what: str = "evaluate",
  feed: Feed | None = None,
) -> Evaluation:
  """Runs a step of `compile_eval_step` over all of a split.

  Batches are padded and masked; every image is judged on the host, so the
  figures do not depend on how the work was divided. All processes get the
  whole result.

  Args:
    evaluator: with that step.
    source, what, feed: as in `Evaluator.results`.
  """
  parts: list[dict[str, np.ndarray]] = []
  places: list[np.ndarray] = []
  for result, indices, mask in evaluator.results(source, what, feed):
    parts.append({name: np.asarray(x)[mask] for name, x in result.items()})
    places.append(indices[mask])
  order_back = np.argsort(np.concatenate(places))
  rows = {
    name: np.concatenate([part[name] for part in parts])[order_back]
    for name in parts[0]
  }
  verb, num_verbs = rows[TRUE_VERB], rows["verb_scores"].shape[-1]
  return Evaluation(
    swig_scores.VerbTotals.of(image_scores(rows), verb, num_verbs),
    **{name: rows[name] for name in _ROWS},
    frames=frames_of(rows) if _NOUN in rows else None,
  )
