"""The loss terms of interactions; `situations` says how to add one.

  pair              focal binary cross entropy of each pair's interactions
  verb              cross entropy of the image's scores, mean over the
                    interactions that the image has
  teacher_verb      `verb` on the scene target's scores
  teacher_noun      `pair` on the gaze targets' scores
  scene_*, gaze_*   as in situations; scene_distill by cosine only; gaze over
                    labelled pairs
  answers           KL of each pair's scores to the teacher's answers about it
  verb_kl           KL of each labelled pair's scores to the teacher's logits of
                    the image, among the interactions of the pair's object

The focal form of one (pair, interaction) of label y with probability p, where
q = p if y else 1 - p (Lin et al. 2017; the normalisation is that of Zhang et
al. 2022, UPT):  - a_y (1 - q)^gamma log q, a_1 = alpha, a_0 = 1 - alpha, summed
over trained interactions of the pairs' objects, divided by the number of
positive labels in the batch, where an image without any counts as one.
Untrained interactions take no part: a missing label says nothing about them.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from input_pipeline import schema
from mipd_jax.losses import distillation, terms
from mipd_jax.losses.banks import VERB_TRAINED
from mipd_jax.losses.config import KL_SOURCES, LossConfig
from mipd_jax.losses.distillation import foretell, scene_contrast
from mipd_jax.losses.objective import Given, loss_term
from mipd_jax.losses.terms import Term, of_every
from mipd_jax.models import outputs as out


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairLosses(LossConfig):
  """The shared weights and forms, and the pairs' own.

  Attributes:
    pair, focal_alpha, focal_gamma, answers_names: as in
      `tasks.config.InteractionsConfig`; see the top of this file.
  """

  pair: float
  focal_alpha: float
  focal_gamma: float
  answers_names: str


# Labels.
_LABELS = (schema.PAIR_LABELS, schema.PAIR_MASK)
# What `_Labels` reads.
_LABELLED = {"batch": _LABELS, "banks": (VERB_TRAINED,)}


class _Labels:
  """A batch's labels as the terms need them.

  Attributes:
    of_pair: bool [B, P, V].
    of_image: bool [B, V].
    labelled: bool [B, P], pairs with a label.
  """

  def __init__(self, given: Given):
    count = given.banks[VERB_TRAINED].shape[0]
    numbers = given.batch[schema.PAIR_LABELS]
    there = (numbers >= 0) & given.batch[schema.PAIR_MASK][..., None]
    # Padding gets class `count`, which one_hot leaves out; hot is [B, P, H, V].
    hot = jax.nn.one_hot(jnp.where(there, numbers, count), count, dtype=bool)
    self.of_pair = hot.any(axis=-2)
    self.of_image = self.of_pair.any(axis=-2)
    self.labelled = there.any(axis=-1)

  def over_labelled(self, value: Float[Array, "b p"]) -> Term:
    """Mean over labelled pairs; images without one do not count."""
    mean = terms.masked_mean(value, self.labelled)
    return Term(mean, self.labelled.any(axis=-1).astype(jnp.float32))


# Pairs.

_PAIR = {**_LABELLED, "fields": ("focal_alpha", "focal_gamma")}


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


def _focal(given: Given, key: str) -> Term:
  """Loss of scores [B, P, V] per positive, weighted by the positives.

  So the batch's mean is its whole loss divided by all its positives, where an
  image without any counts as one.
  """
  labels, scores = _Labels(given), given.outputs[key]
  counted = (scores > out.NEVER / 2) & given.banks[VERB_TRAINED]
  logits = jnp.where(counted, scores, 0)
  settings = given.settings
  each = focal(
    logits, labels.of_pair, settings.focal_alpha, settings.focal_gamma
  )
  total = jnp.sum(jnp.where(counted, each, 0), axis=(1, 2))
  # At least one per image, so that an image of negatives alone counts too.
  positives = jnp.maximum(
    jnp.sum(counted & labels.of_pair, axis=(1, 2)), 1
  ).astype(jnp.float32)
  return Term(total / positives, positives)


@loss_term(outputs=(out.PAIR_SCORES,), **_PAIR)
def pair(given: Given) -> Term:
  """Focal loss of the pairs' scores."""
  return _focal(given, out.PAIR_SCORES)


@loss_term(target=out.GAZE_TARGET, outputs=(out.TEACHER_PAIR_SCORES,), **_PAIR)
def teacher_noun(given: Given) -> Term:
  """Focal loss of the gaze targets' scores.

  Named as in situations, so that both tasks share one weight.
  """
  return _focal(given, out.TEACHER_PAIR_SCORES)


@loss_term(
  outputs=(out.PAIR_SCORES,),
  **_LABELLED,
  sources={"verb_kl_source": KL_SOURCES},
  fields=(
    "verb_kl_temperature",
    "verb_kl_names",
    "verb_kl_listed",
    "verb_kl_gain",
  ),
)
def verb_kl(given: Given) -> Term:
  """Per labelled pair, KL among the interactions of its object.

  The teacher saw the image, not the pair: where the image has two such objects
  its logits are about both.
  """
  settings, scores = given.settings, given.outputs[out.PAIR_SCORES]
  # teacher is [B, 1, V]; scores, own, trained and known are [B, P, V].
  own = scores > out.NEVER / 2
  teacher = given.batch[KL_SOURCES[settings.verb_kl_source]][:, None]
  trained = jnp.broadcast_to(given.banks[VERB_TRAINED], scores.shape)
  known = trained | terms.listed_names(
    given.banks[VERB_TRAINED], settings.verb_kl_listed
  )
  value_BxP = terms.kl_among(
    settings.verb_kl_gain * teacher.astype(jnp.float32),
    jnp.where(own, scores, 0),
    terms.name_groups(trained & own, known & own, settings.verb_kl_names),
    settings.verb_kl_temperature,
  )
  return _Labels(given).over_labelled(value_BxP)


@loss_term(
  outputs=(out.PAIR_SCORES,),
  batch=schema.ANSWER_KEYS,
  banks=(VERB_TRAINED,),
  fields=("answers_temperature", "answers_names"),
)
def answers(given: Given) -> Term:
  """KL of pairs' scores to the teacher's answers about each pair."""
  scores = given.outputs[out.PAIR_SCORES]
  candidates = scores > out.NEVER / 2
  if given.settings.answers_names == "trained":
    candidates = candidates & given.banks[VERB_TRAINED]
  return distillation.answered(given, out.PAIR_SCORES, candidates)


# The image.


def several_labels(
  logits: Float[Array, "b v"],
  labels: Bool[Array, "b v"],
  allowed: Bool[Array, "v"],
) -> Float[Array, "b"]:
  """Cross entropy among allowed classes, mean over an example's labels.

  Only allowed labels count; an example without any has a loss of 0.
  """
  logits = logits.astype(jnp.float32)
  log_sum = jax.nn.logsumexp(logits, axis=-1, where=allowed)
  labels = labels & allowed
  count = jnp.maximum(labels.sum(axis=-1), 1)
  mean = jnp.sum(jnp.where(labels, logits, 0), axis=-1) / count
  return jnp.where(labels.any(axis=-1), log_sum - mean, 0)


def _cross_entropy(given: Given, key: str) -> Term:
  """Of scores [B, V], mean over the image's labels.

  An image without any counts in the batch's mean, with a loss of 0; in
  `_Labels.over_labelled` it does not count.
  """
  labels, trained = _Labels(given).of_image, given.banks[VERB_TRAINED]
  return of_every(several_labels(given.outputs[key], labels, trained))


@loss_term(outputs=(out.VERB_SCORES,), **_LABELLED)
def verb(given: Given) -> Term:
  """Cross entropy of the image's scores."""
  return _cross_entropy(given, out.VERB_SCORES)


@loss_term(
  target=out.SCENE_TARGET, outputs=(out.TEACHER_VERB_SCORES,), **_LABELLED
)
def teacher_verb(given: Given) -> Term:
  """Cross entropy of the scene target's scores."""
  return _cross_entropy(given, out.TEACHER_VERB_SCORES)


@loss_term(
  target=out.SCENE_TARGET,
  outputs=(out.VERB_EMBEDDING,),
  fields=("detach_teacher",),
)
def scene_distill(given: Given) -> Term:
  """Distance of the image's embedding to the scene target."""
  return of_every(distillation.distance(given, out.VERB_EMBEDDING))


@loss_term(
  target=out.SCENE_TARGET,
  outputs=(out.SCENE_POSITIVE, out.SCENE_NEGATIVE),
  batch=(*_LABELS, schema.EXAMPLE_MASK),
  banks=(VERB_TRAINED,),
  fields=("align_temperature", "align_negative"),
)
def scene_align(given: Given) -> Term:
  """The scene target picks its own positive rationale.

  Rationales of images that share an interaction with it do not compete.
  """
  shared = _Labels(given).of_image.astype(jnp.float32)
  other = shared @ shared.T == 0
  other = other & given.batch[schema.EXAMPLE_MASK][None, :]
  positive = given.outputs[out.SCENE_POSITIVE]
  return distillation.aligned(given, given.target, positive, other)


# The gaze targets.


@loss_term(
  target=out.GAZE_TARGET,
  outputs=(out.PAIR_EMBEDDING,),
  fields=("detach_teacher",),
  **_LABELLED,
)
def gaze_distill(given: Given) -> Term:
  """Distance of labelled pairs' embeddings to their gaze targets."""
  value = distillation.distance(given, out.PAIR_EMBEDDING)
  return _Labels(given).over_labelled(value)


@loss_term(target=out.GAZE_TARGET, outputs=(out.GAZE_NEGATIVE,), **_LABELLED)
def gaze_contrast(given: Given) -> Term:
  """Pushes labelled pairs' gaze targets away from the negative rationale."""
  negative = given.outputs[out.GAZE_NEGATIVE]
  value = terms.contrast_hinge(given.target, negative)
  return _Labels(given).over_labelled(value)


@loss_term(
  target=out.GAZE_TARGET,
  outputs=(out.GAZE_POSITIVE, out.GAZE_NEGATIVE),
  batch=(schema.PAIR_OBJECT, schema.INSTANCE_TEXT_MASK, schema.EXAMPLE_MASK),
  fields=("align_temperature", "align_negative"),
)
def gaze_align(given: Given) -> Term:
  """Each pair's gaze target picks the sentence about its own object."""
  return distillation.gaze_aligned(
    given,
    given.target,
    given.outputs[out.GAZE_POSITIVE],
    given.batch[schema.PAIR_OBJECT],
  )


# In the order in which they are added.
TERMS = (
  pair,
  verb,
  scene_distill,
  scene_contrast,
  scene_align,
  teacher_verb,
  gaze_distill,
  gaze_contrast,
  gaze_align,
  teacher_noun,
  verb_kl,
  answers,
  foretell,
)
