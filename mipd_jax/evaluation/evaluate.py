"""Evaluation of any named predictor over a split, each image once."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from input_pipeline import order, schema, stream
from input_pipeline.progress import Progress
from mipd_jax.feeding.dequantise import dequantise
from mipd_jax.feeding.feeds import Feed, Streaming
from mipd_jax.losses.total import VERB_TRAINED
from mipd_jax.metrics import scores
from mipd_jax.models import outputs as out

# What comes out a row an image.
_ROWS = ("verb", "probability", "verb_scores")
# (params, batch, banks) -> outputs with VERB_SCORES at least.
Predict = Callable[[Any, Mapping, Mapping], Mapping[str, jax.Array]]


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """Totals per verb, and what each image of the split was taken for."""

  totals: scores.VerbTotals
  verb: np.ndarray  # int32 [n]
  probability: np.ndarray  # float32 [n]
  verb_scores: np.ndarray  # float32 [n, V]


def cached_logits(key: str) -> Predict:
  """Predicts by verb logits of the cache; without nouns, without boxes."""

  def predict(params: Any, batch: Mapping, banks: Mapping) -> dict:
    del params, banks
    return {out.VERB_SCORES: batch[key]}

  return predict


def less_trained(predict: Predict, bias: float) -> Predict:
  """The same predictor with `bias` off the scores of trained verbs.

  A classifier scores the names of verbs without training images too low
  (calibrated stacking; `metrics/calibration.py`).
  """

  def less(params: Any, batch: Mapping, banks: Mapping) -> dict:
    found = dict(predict(params, batch, banks))
    trained = banks[VERB_TRAINED].astype(jnp.float32)
    found[out.VERB_SCORES] = (
      found[out.VERB_SCORES].astype(jnp.float32) - bias * trained
    )
    return found

  return less


def compile_eval_step(predict: Predict, num_verbs: int) -> Callable:
  """Jits (params, batch, banks) -> totals per verb, and per image the rest."""

  def step(params, batch, banks):
    batch = dequantise(batch)
    outputs = predict(params, batch, banks)
    if out.NOUN_SCORES in outputs:
      boxes = scores.cut_to_image(outputs[out.BOX], batch[schema.IMAGE_SIZE])
      outputs = {**outputs, out.BOX: boxes}
      columns = scores.example_scores(outputs, batch)
    else:
      hits = scores.verb_hits(outputs[out.VERB_SCORES], batch)
      columns = jnp.stack(
        [hits[name].astype(jnp.float32) for name in scores.VERB_SCORES], axis=-1
      )
    verb_scores = outputs[out.VERB_SCORES].astype(jnp.float32)
    verbs = jax.nn.softmax(verb_scores)
    return scores.sum_per_verb(columns, batch, num_verbs) | {
      "verb": jnp.argmax(verbs, axis=-1).astype(jnp.int32),
      "probability": jnp.max(verbs, axis=-1),
      "verb_scores": verb_scores,
    }

  return jax.jit(step)


def evaluate(
  step: Callable,
  params: Any,
  source: stream.Source,
  banks: Mapping[str, jax.Array],
  mesh: jax.sharding.Mesh,
  *,
  batch_size: int,
  what: str = "evaluate",
  feed: Feed | None = None,
) -> Evaluation:
  """Runs a compiled step over all of a split.

  Batches are padded and masked; sums are float32 on the devices for one
  batch and float64 on the host across batches, so they are exact. All
  processes get all of it.

  Args:
    step: from `compile_eval_step`.
    params: that it predicts with.
    source: the split.
    banks: text embeddings.
    mesh: of all processes.
    batch_size: images a step over all devices.
    what: for the progress line.
    feed: gives the split's batches in that size; reads them if None.
  """
  sums = counts = 0
  parts: list[dict[str, np.ndarray]] = []
  places: list[np.ndarray] = []
  for result, indices, mask in results(
    *(step, params, source, banks, mesh),
    batch_size=batch_size,
    what=what,
    feed=feed,
  ):
    sums = sums + np.asarray(result["sums"], np.float64)
    counts = counts + np.asarray(result["counts"], np.float64)
    parts.append({name: np.asarray(result[name])[mask] for name in _ROWS})
    places.append(indices[mask])
  names = scores.ALL_SCORES if sums.shape[-1] > 2 else scores.VERB_SCORES
  order_back = np.argsort(np.concatenate(places))
  rows = {
    name: np.concatenate([part[name] for part in parts])[order_back]
    for name in _ROWS
  }
  return Evaluation(scores.VerbTotals(names, sums, counts), **rows)


def results(
  step: Callable,
  params: Any,
  source: stream.Source,
  banks: Mapping[str, jax.Array],
  mesh: jax.sharding.Mesh,
  *,
  batch_size: int,
  what: str,
  feed: Feed | None = None,
) -> Iterator[tuple[Mapping[str, np.ndarray], np.ndarray, np.ndarray]]:
  """What a compiled step says of each batch of a split; see `evaluate`.

  Yields:
    The step's result, whole on every process; the examples of its rows, int
    [B], and which rows are no filler, bool [B].
  """
  total = source.num_examples
  feed = feed or Streaming(source, batch_size, mesh)
  with Progress(what, total, "images") as progress:
    for number, batch in enumerate(feed.evaluate()):
      result = step(params, batch, banks)
      result = multihost_utils.process_allgather(result, tiled=True)
      indices, mask = order.eval_indices(number, total, batch_size)
      yield result, indices, mask
      progress.advance(int(mask.sum()))
