"""The student as three pure functions: see, rank verbs, fill roles.

Arrays in, arrays out: `Predictor` compiles them, and an exported program is
made of them. `seen` is what the student's eyes read of the images
(models/eyes.py), from `see`. Letters: B images, V verbs, E width of texts, R
role slots, Q roles of the list, C noun classes of training, W nouns of the
list, k guesses.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from input_pipeline import schema
from mipd_jax.feeding.dequantise import dequantise
from mipd_jax.metrics import scores
from mipd_jax.models import outputs as out
from mipd_jax.models.eyes import Eyes
from mipd_jax.models.mipd import Mipd
from mipd_jax.teachers import encoding
from mipd_jax.teachers.interfaces import Encoder

# How nouns are scored: by the whole noun head, for nouns of training only; or
# against texts alone, for lists with other words.
AS_EVALUATED, BY_TEXT = "as evaluated", "by text"
NOUN_RULES = (AS_EVALUATED, BY_TEXT)
_LEAST = jnp.finfo(jnp.float32).min

Params = Any
Banks = Mapping[str, Array]


def see(encoder: Encoder, eyes: Eyes, dtype: str) -> Callable:
  """(params, uint8 pixels [B, s, s, 3]) -> features as a cache has them.

  `params` are the encoder's, or empty if the eyes need none.

  The features are rounded as in the cache of training (`dtype`). They are the
  same bits as long as this is a program of its own: within a larger one
  compilers may skip the rounding.
  """

  def program(params: Params, pixels: Array) -> dict[str, Array]:
    features = encoding.student_features(encoder, eyes, params, pixels)
    return encoding.as_cached(features, dtype)

  return program


def rank_verbs(model: Mipd, k: int) -> Callable:
  """(params, seen, banks, mask [V]) -> probability [B, k], verb [B, k].

  Verbs where the mask is False are filler and come last.
  """

  def program(
    params: Params, seen: Mapping[str, Array], banks: Banks, mask: Array
  ) -> dict[str, Array]:
    batch = dict(seen)
    size = jax.tree.leaves(batch)[0].shape[0]
    batch[schema.VERB] = jnp.zeros(size, jnp.int32)
    batch[schema.ROLES] = jnp.full((size, schema.MAX_ROLES), -1, jnp.int32)
    batch[schema.ROLE_MASK] = jnp.zeros((size, schema.MAX_ROLES), bool)
    logits = _predict(model, params, batch, banks)[out.VERB_SCORES]
    logits = jnp.where(mask, logits.astype(jnp.float32), _LEAST)
    probability, verb = _best(logits, k)
    return {"probability": probability, "verb": verb}

  return program


def fill_roles(model: Mipd, rule: str, k: int) -> Callable:
  """Compares nouns and predicts boxes for one frame per image.

  Args:
    model: the student.
    rule: of NOUN_RULES.
    k: guesses per role.

  Returns:
    (params, seen, frames, banks, nouns) -> outputs. `frames`: verb [B] and
    roles [B, R], rows of the banks, role_mask [B, R], image_size [B, 2].
    `nouns`: text [W, E], column [W] (class of training), mask [W]. Outputs:
    probability and noun [B, R, k], box [B, R, 4] (cx cy w h over the canvas
    side, cut to the image), confidence [B, R], a logit.
  """

  def program(
    params: Params,
    seen: Mapping[str, Array],
    frames: Mapping[str, Array],
    banks: Banks,
    nouns: Mapping[str, Array],
  ) -> dict[str, Array]:
    outputs = _predict(model, params, {**seen, **frames}, banks)
    if rule == BY_TEXT:
      logits = _text_scores(model, params, {**seen, **frames}, banks, nouns)
    else:
      logits = outputs[out.NOUN_SCORES][..., nouns["column"]]
    logits = jnp.where(nouns["mask"], logits.astype(jnp.float32), _LEAST)
    probability, noun = _best(logits, k)
    box = scores.cut_to_image(outputs[out.BOX], frames[schema.IMAGE_SIZE])
    return {
      "probability": probability,
      "noun": noun,
      "box": box,
      "confidence": outputs[out.BOX_CONFIDENCE],
    }

  return program


def _best(logits, k):
  """Probability and index [..., k] of the k best; ties in order of index.

  Ordered by logits: close ones may become equal as probabilities.
  """
  best, index = jax.lax.top_k(logits, k)
  total = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
  return jnp.exp(best - total), index


def _text_scores(model, params, batch, banks, nouns):
  """Logits [B, R, W] of the text branch, for any list of nouns.

  Head "sum" adds a classifier with a column per noun of training, so the
  parameters are run as head "text", which has none.
  """
  head = model.config.noun_head
  if head == "sum":
    config = dataclasses.replace(model.config, noun_head="text")
    model = model.clone(config=config)
  banks = {**banks, "noun_text": nouns["text"]}
  return _predict(model, params, batch, banks)[out.NOUN_TEXT]


def _predict(model, params, batch, banks):
  return model.apply(
    {"params": params}, dequantise(batch), banks, method=model.predict
  )
