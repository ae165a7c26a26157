"""The total loss: which terms there are, on what, with which weights."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from input_pipeline import schema
from mipd_jax.losses import terms
from mipd_jax.losses.config import LossConfig
from mipd_jax.losses.terms import Term
from mipd_jax.models import outputs as out

# Entries of `banks` beside the text embeddings, from the training split.
VERB_LOG_PRIOR = "verb_log_prior"  # [V] log share of training images
VERB_TRAINED = "verb_trained"  # [V] whether the verb has any
# What `LossConfig.verb_kl_source` distils.
KL_SOURCES = {"teacher": schema.VERB_LOGITS, "clip": schema.CLIP_LOGITS}


def total_loss(
  outputs: Mapping[str, Array],
  batch: Mapping[str, Array],
  banks: Mapping[str, Array],
  config: LossConfig,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
  """The weighted sum of all terms, and each term's mean by name.

  Args:
    outputs: of `Mipd.__call__`.
    batch: of the batch contract.
    banks: VERB_LOG_PRIOR and VERB_TRAINED are read here.
    config: weights and forms; a term has the name of its weight.
  """
  every = batch[schema.EXAMPLE_MASK].astype(jnp.float32)
  computed = (
    _verb_terms(outputs, batch, banks, config)
    | _scene_terms(outputs, batch, banks, config)
    | _noun_terms(outputs, batch, config)
    | _gaze_terms(outputs, batch, config)
  )
  found = {name: Term(value, every) for name, value in computed.items()}
  found |= _box_terms(outputs, batch, every)
  means = {name: term.mean() for name, term in found.items()}
  total = sum(getattr(config, name) * mean for name, mean in means.items())
  return total, means | {"total": total}


def _verb_cross_entropy(scores, batch, banks, config):
  labels = batch[schema.VERB][:, None]
  return terms.smoothed_cross_entropy(
    scores,
    labels,
    config.verb_smoothing,
    banks[VERB_LOG_PRIOR] if config.verb_prior else None,
    banks[VERB_TRAINED] if config.verb_names == "trained" else None,
  )[:, 0]


def _verb_terms(outputs, batch, banks, config):
  scores = outputs[out.VERB_SCORES]
  found = {"verb": _verb_cross_entropy(scores, batch, banks, config)}
  if config.verb_kl:
    found["verb_kl"] = terms.verb_kl(
      batch[KL_SOURCES[config.verb_kl_source]],
      scores,
      banks[VERB_TRAINED],
      config.verb_kl_temperature,
      config.verb_kl_names,
      listed=config.verb_kl_listed,
      gain=config.verb_kl_gain,
      log_prior=banks[VERB_LOG_PRIOR] if config.verb_kl_prior else None,
    )
  return found


def _scene_terms(outputs, batch, banks, config):
  if out.SCENE_TARGET not in outputs:
    return {}
  found = {}
  target = outputs[out.SCENE_TARGET]
  if config.scene_distill:
    taught = jax.lax.stop_gradient(target) if config.detach_teacher else target
    student = outputs[out.VERB_EMBEDDING]
    if config.scene_distill_form == "l1":
      found["scene_distill"] = jnp.mean(
        terms.absolute(student - taught), axis=-1
      )
    else:
      found["scene_distill"] = 1 - terms.cosine(student, taught)
  if config.scene_contrast:
    found["scene_contrast"] = terms.contrast_hinge(
      target, outputs[out.SCENE_NEGATIVE]
    )
  if config.scene_align:
    found["scene_align"] = terms.info_nce(
      target,
      outputs[out.SCENE_POSITIVE],
      outputs[out.SCENE_NEGATIVE],
      batch[schema.VERB],
      batch[schema.EXAMPLE_MASK],
      config.align_temperature,
      config.align_negative,
    )
  if config.teacher_verb:
    found["teacher_verb"] = _verb_cross_entropy(
      outputs[out.TEACHER_VERB_SCORES], batch, banks, config
    )
  return found


def _noun_cross_entropy(scores, batch, smoothing):
  """Sum over annotators, mean over roles (reference `nce`)."""
  loss_BxRxA = terms.smoothed_cross_entropy(
    scores, batch[schema.NOUNS], smoothing
  )
  return terms.per_role_mean(
    jnp.sum(loss_BxRxA, axis=-1), batch[schema.ROLE_MASK]
  )


def _noun_terms(outputs, batch, config):
  heads = {
    "noun_sum": out.NOUN_SCORES,
    "noun_closed": out.NOUN_CLOSED,
    "noun_text": out.NOUN_TEXT,
  }
  return {
    name: _noun_cross_entropy(outputs[head], batch, config.noun_smoothing)
    for name, head in heads.items()
    if getattr(config, name)
  }


def _gaze_terms(outputs, batch, config):
  if out.GAZE_TARGET not in outputs:
    return {}
  found = {}
  target = outputs[out.GAZE_TARGET]
  roles = batch[schema.ROLE_MASK]

  def over_roles(value):
    """Preset reference has one gaze vector an image, ours one a role."""
    return terms.per_role_mean(value, roles) if value.ndim == 2 else value

  if config.gaze_distill:
    taught = jax.lax.stop_gradient(target) if config.detach_teacher else target
    found["gaze_distill"] = over_roles(
      1 - terms.cosine(outputs[out.ROLE_EMBEDDING], taught)
    )
  if config.gaze_contrast:
    found["gaze_contrast"] = over_roles(
      terms.contrast_hinge(target, outputs[out.GAZE_NEGATIVE])
    )
  if config.teacher_noun:
    found["teacher_noun"] = _noun_cross_entropy(
      outputs[out.TEACHER_NOUN_SCORES], batch, config.noun_smoothing
    )
  return found


def _box_terms(outputs, batch, every):
  l1, giou, has_box = terms.box_regression(
    outputs[out.BOX], batch[schema.BOXES], batch[schema.BOX_MASK]
  )
  boxed = every * has_box
  confidence = terms.per_role_mean(
    terms.binary_cross_entropy(
      outputs[out.BOX_CONFIDENCE], batch[schema.BOX_MASK]
    ),
    batch[schema.ROLE_MASK],
  )
  return {
    "box": Term(l1, boxed),
    "giou": Term(giou, boxed),
    "confidence": Term(confidence, every),
  }
