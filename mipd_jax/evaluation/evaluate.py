"""Evaluation of any named predictor over a split, each image once."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from input_pipeline import schema, stream
from input_pipeline.progress import Progress
from mipd_jax import sharding
from mipd_jax.metrics import scores
from mipd_jax.models import outputs as out

# (params, batch, banks) -> outputs with VERB_SCORES at least.
Predict = Callable[[Any, Mapping, Mapping], Mapping[str, jax.Array]]


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """Totals per verb, and the predicted verb of each image of the split."""

  totals: scores.VerbTotals
  verb: np.ndarray  # int32 [n]
  probability: np.ndarray  # float32 [n]


def cached_logits(key: str) -> Predict:
  """Predicts by verb logits of the cache; without nouns, without boxes."""

  def predict(params: Any, batch: Mapping, banks: Mapping) -> dict:
    del params, banks
    return {out.VERB_SCORES: batch[key]}

  return predict


def compile_eval_step(predict: Predict, num_verbs: int) -> Callable:
  """Jits (params, batch, banks) -> totals per verb, verb, probability."""

  def step(params, batch, banks):
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
    verbs = jax.nn.softmax(outputs[out.VERB_SCORES].astype(jnp.float32))
    return scores.sum_per_verb(columns, batch, num_verbs) | {
      "verb": jnp.argmax(verbs, axis=-1).astype(jnp.int32),
      "probability": jnp.max(verbs, axis=-1),
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
) -> Evaluation:
  """Runs a compiled step over all of a split.

  Batches are padded and masked; sums are float32 on the devices for one
  batch and float64 on the host across batches, so they are exact.
  """
  sums = counts = 0
  verbs, probabilities = [], []
  batches = stream.eval_batches(
    source,
    batch_size=batch_size,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )
  with Progress(what, source.num_examples, "images") as progress:
    for batch in batches:
      result = step(params, sharding.put_batch(mesh, batch), banks)
      result = multihost_utils.process_allgather(result, tiled=True)
      sums = sums + np.asarray(result["sums"], np.float64)
      counts = counts + np.asarray(result["counts"], np.float64)
      verbs.append(np.asarray(result["verb"]))
      probabilities.append(np.asarray(result["probability"]))
      progress.advance(
        min(batch_size, source.num_examples - batch_size * (len(verbs) - 1))
      )
  names = scores.ALL_SCORES if sums.shape[-1] > 2 else scores.VERB_SCORES
  keep = source.num_examples
  return Evaluation(
    scores.VerbTotals(names, sums, counts),
    np.concatenate(verbs)[:keep],
    np.concatenate(probabilities)[:keep],
  )
