"""The total loss of interactions; terms and weights as in `losses.total`.

  pair        focal binary cross entropy of each pair's interactions
  verb        of the image's embedding: cross entropy, mean over the
              interactions that the image has
  teacher_verb, teacher_noun    the same two of the scene and gaze targets
  scene_*, gaze_*               as of situations; gaze over labelled pairs
  verb_kl     the teacher's image logits to each labelled pair, among the
              interactions of its object

The focal form of one (pair, interaction) of label y with probability p, where
q = p if y else 1 - p (Lin et al. 2017; the normalisation is that of Zhang et
al. 2022, UPT):  - a_y (1 - q)^gamma log q, a_1 = alpha, a_0 = 1 - alpha, summed
over trained interactions of the pairs' objects, divided by the number of
positive labels in the batch. Untrained interactions take no part: that one
is not labelled says nothing.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from input_pipeline import schema
from mipd_jax.losses import terms
from mipd_jax.losses.config import LossConfig
from mipd_jax.losses.terms import Term
from mipd_jax.losses.total import KL_SOURCES, VERB_TRAINED
from mipd_jax.models import outputs as out


@dataclasses.dataclass(frozen=True)
class PairLosses:
  """Weights: those of situations whose terms there are, and the pairs' own.

  Attributes:
    shared: `verb`, `scene_*`, `teacher_*`, `gaze_*` and `verb_kl*` are used;
      `verb_kl_names` says whether names of untrained interactions are known.
    pair, focal_alpha, focal_gamma: see the top of this file.
  """

  shared: LossConfig
  pair: float = 1.0
  focal_alpha: float = 0.5
  focal_gamma: float = 0.2


class _Labels:
  """A batch's labels as the terms need them.

  Attributes:
    of_pair: bool [B, P, V].
    of_image: bool [B, V].
    labelled: bool [B, P], pairs with a label.
  """

  def __init__(self, batch: Mapping[str, Array], count: int):
    numbers = batch[schema.PAIR_LABELS]
    there = (numbers >= 0) & batch[schema.PAIR_MASK][..., None]
    # Padding falls off the end.
    hot = jax.nn.one_hot(jnp.where(there, numbers, count), count, dtype=bool)
    self.of_pair = hot.any(axis=-2)
    self.of_image = self.of_pair.any(axis=-2)
    self.labelled = there.any(axis=-1)


def total_loss(
  outputs: Mapping[str, Array],
  batch: Mapping[str, Array],
  banks: Mapping[str, Array],
  losses: PairLosses,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
  """The weighted sum of all terms, and each term's mean by name.

  Args:
    outputs: of `PairMipd.__call__`.
    batch: of the contract, with PAIR_ANNOTATIONS.
    banks: VERB_TRAINED is read here.
    losses: weights and forms; a term has the name of its weight.
  """
  every = batch[schema.EXAMPLE_MASK].astype(jnp.float32)
  labels = _Labels(batch, banks[VERB_TRAINED].shape[0])
  found = {
    "pair": _focal(out.PAIR_SCORES, outputs, batch, banks, labels, losses)
  }
  found |= _image_terms(outputs, batch, banks, labels, losses.shared)
  found |= _gaze_terms(outputs, batch, banks, labels, losses)
  if losses.shared.verb_kl:
    found["verb_kl"] = _kl(outputs, batch, banks, labels, losses.shared)
  means = {
    name: Term(term.value, term.weight * every).mean()
    for name, term in found.items()
  }
  weights = {
    name: getattr(losses.shared, name) for name in means if name != "pair"
  }
  weights["pair"] = losses.pair
  total = sum(weights[name] * mean for name, mean in means.items())
  return total, means | {"total": total}


def focal(
  logits: Float[Array, "*b"],
  truth: Bool[Array, "*b"],
  alpha: float,
  gamma: float,
) -> Float[Array, "*b"]:
  """Focal binary cross entropy from logits; see the top of this file."""
  logits = logits.astype(jnp.float32)
  toward = jnp.where(truth, logits, -logits)
  wrong = jax.nn.sigmoid(-toward)
  share = jnp.where(truth, alpha, 1 - alpha)
  if gamma:
    # The floor keeps the gradient finite where gamma is below one.
    share = share * jnp.maximum(wrong, 1e-6) ** gamma
  return share * jax.nn.softplus(-toward)


def several_labels(
  logits: Float[Array, "b v"],
  labels: Bool[Array, "b v"],
  allowed: Bool[Array, "v"],
) -> Float[Array, "b"]:
  """Cross entropy among allowed classes, mean over an example's labels."""
  logits = logits.astype(jnp.float32)
  log_sum = jax.nn.logsumexp(logits, axis=-1, where=allowed)
  labels = labels & allowed
  count = jnp.maximum(labels.sum(axis=-1), 1)
  mean = jnp.sum(jnp.where(labels, logits, 0), axis=-1) / count
  return jnp.where(labels.any(axis=-1), log_sum - mean, 0)


def _focal(key, outputs, batch, banks, labels, losses):
  """Weighted by the number of positives: sum over the batch by their sum."""
  scores = outputs[key]
  asked = (scores > out.NEVER / 2) & banks[VERB_TRAINED]
  logits = jnp.where(asked, scores, 0)
  each = focal(logits, labels.of_pair, losses.focal_alpha, losses.focal_gamma)
  total = jnp.sum(jnp.where(asked, each, 0), axis=(1, 2))
  # At least one each, so that an image of negatives alone counts too.
  positives = jnp.maximum(
    jnp.sum(asked & labels.of_pair, axis=(1, 2)), 1
  ).astype(jnp.float32)
  return Term(total / positives, positives)


def _everywhere(value: Float[Array, "b"]) -> Term:
  return Term(value, jnp.ones_like(value))


def _image_terms(outputs, batch, banks, labels, config):
  trained = banks[VERB_TRAINED]

  def cross_entropy(key):
    return _everywhere(several_labels(outputs[key], labels.of_image, trained))

  found = {"verb": cross_entropy(out.VERB_SCORES)} if config.verb else {}
  if out.SCENE_TARGET not in outputs:
    return found
  target, negative = outputs[out.SCENE_TARGET], outputs[out.SCENE_NEGATIVE]
  if config.scene_distill:
    taught = jax.lax.stop_gradient(target) if config.detach_teacher else target
    found["scene_distill"] = _everywhere(
      1 - terms.cosine(outputs[out.VERB_EMBEDDING], taught)
    )
  if config.scene_contrast:
    found["scene_contrast"] = _everywhere(
      terms.contrast_hinge(target, negative)
    )
  if config.scene_align:
    shared = labels.of_image.astype(jnp.float32)
    other = (shared @ shared.T == 0) & batch[schema.EXAMPLE_MASK][None, :]
    found["scene_align"] = _everywhere(
      terms.nce_among(
        *(target, outputs[out.SCENE_POSITIVE], negative, other),
        *(config.align_temperature, config.align_negative),
      )
    )
  if config.teacher_verb:
    found["teacher_verb"] = cross_entropy(out.TEACHER_VERB_SCORES)
  return found


def _over_labelled(value: Float[Array, "b p"], labels: _Labels) -> Term:
  """Mean over labelled pairs; images without one do not count."""
  mean = terms.per_role_mean(value, labels.labelled)
  return Term(mean, labels.labelled.any(axis=-1).astype(jnp.float32))


def _gaze_terms(outputs, batch, banks, labels, losses):
  if out.GAZE_TARGET not in outputs:
    return {}
  config, found = losses.shared, {}
  target = outputs[out.GAZE_TARGET]
  if config.gaze_distill:
    taught = jax.lax.stop_gradient(target) if config.detach_teacher else target
    found["gaze_distill"] = _over_labelled(
      1 - terms.cosine(outputs[out.PAIR_EMBEDDING], taught), labels
    )
  if config.gaze_contrast:
    found["gaze_contrast"] = _over_labelled(
      terms.contrast_hinge(target, outputs[out.GAZE_NEGATIVE]), labels
    )
  if config.teacher_noun:
    found["teacher_noun"] = _focal(
      out.TEACHER_PAIR_SCORES, outputs, batch, banks, labels, losses
    )
  return found


def _kl(outputs, batch, banks, labels, config):
  """Per labelled pair, KL among the interactions of its object.

  The teacher saw the image, not the pair: where an object is there twice its
  belief is about both.
  """
  scores = outputs[out.PAIR_SCORES]
  asked = scores > out.NEVER / 2
  teacher = batch[KL_SOURCES[config.verb_kl_source]][:, None]
  trained = jnp.broadcast_to(banks[VERB_TRAINED], scores.shape)
  known = trained | terms.listed_names(
    banks[VERB_TRAINED], config.verb_kl_listed
  )
  value = terms.kl_among(
    config.verb_kl_gain * teacher.astype(jnp.float32),
    jnp.where(asked, scores, 0),
    terms.name_groups(trained & asked, known & asked, config.verb_kl_names),
    config.verb_kl_temperature,
  )
  return _over_labelled(value, labels)
