"""The loss terms of situations.

To add one: a term here, its entry in TERMS, and a weight of the same name in
`losses.config`.
"""

import functools

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from input_pipeline import schema
from mipd_jax.losses import distillation, terms
from mipd_jax.losses.banks import (
  ROLE_CANDIDATES,
  VERB_LOG_PRIOR,
  VERB_TRAINED,
)
from mipd_jax.losses.config import KL_SOURCES
from mipd_jax.losses.distillation import foretell, scene_contrast
from mipd_jax.losses.objective import Given, LossTerm, loss_term
from mipd_jax.losses.terms import Term, of_every
from mipd_jax.models import outputs as out

# Verbs.

_VERB = {
  "batch": (schema.VERB,),
  "banks": (VERB_LOG_PRIOR, VERB_TRAINED),
  "fields": ("verb_smoothing", "verb_prior", "verb_names"),
}


def _verb_cross_entropy(given: Given, scores: str) -> Term:
  """Of scores [B, V], against the one verb of each image."""
  form = given.settings
  value_Bx1 = terms.smoothed_cross_entropy(
    given.outputs[scores],
    given.batch[schema.VERB][:, None],
    form.verb_smoothing,
    given.banks[VERB_LOG_PRIOR] if form.verb_prior else None,
    given.banks[VERB_TRAINED] if form.verb_names == "trained" else None,
  )
  return of_every(value_Bx1[:, 0])


@loss_term(outputs=(out.VERB_SCORES,), **_VERB)
def verb(given: Given) -> Term:
  """Cross entropy of the verb scores."""
  return _verb_cross_entropy(given, out.VERB_SCORES)


@loss_term(target=out.SCENE_TARGET, outputs=(out.TEACHER_VERB_SCORES,), **_VERB)
def teacher_verb(given: Given) -> Term:
  """Cross entropy of the scene target's scores."""
  return _verb_cross_entropy(given, out.TEACHER_VERB_SCORES)


@loss_term(
  outputs=(out.VERB_SCORES,),
  banks=(VERB_LOG_PRIOR, VERB_TRAINED),
  sources={"verb_kl_source": KL_SOURCES},
  fields=(
    "verb_kl_temperature",
    "verb_kl_names",
    "verb_kl_listed",
    "verb_kl_gain",
    "verb_kl_prior",
  ),
)
def verb_kl(given: Given) -> Term:
  """KL of the verb scores to a frozen model's logits over the verbs."""
  form = given.settings
  value = terms.verb_kl(
    given.batch[KL_SOURCES[form.verb_kl_source]],
    given.outputs[out.VERB_SCORES],
    given.banks[VERB_TRAINED],
    form.verb_kl_temperature,
    form.verb_kl_names,
    listed=form.verb_kl_listed,
    gain=form.verb_kl_gain,
    log_prior=given.banks[VERB_LOG_PRIOR] if form.verb_kl_prior else None,
  )
  return of_every(value)


# The scene target.


@loss_term(
  target=out.SCENE_TARGET,
  outputs=(out.VERB_EMBEDDING,),
  fields=("detach_teacher", "scene_distill_form"),
)
def scene_distill(given: Given) -> Term:
  """Distance of the verb embedding to the scene target."""
  if given.settings.scene_distill_form == "l1":
    gap = given.outputs[out.VERB_EMBEDDING] - distillation.taught(given)
    return of_every(jnp.mean(terms.absolute(gap), axis=-1))
  return of_every(distillation.distance(given, out.VERB_EMBEDDING))


@loss_term(
  target=out.SCENE_TARGET,
  outputs=(out.SCENE_POSITIVE, out.SCENE_NEGATIVE),
  batch=(schema.VERB, schema.EXAMPLE_MASK),
  fields=("align_temperature", "align_negative"),
)
def scene_align(given: Given) -> Term:
  """The scene target picks its own positive rationale."""
  positive = given.outputs[out.SCENE_POSITIVE]
  return distillation.aligned(given, given.target, positive, _others(given))


@loss_term(
  target=out.SCENE_POSITIVE,
  outputs=(out.VERB_EMBEDDING, out.SCENE_NEGATIVE),
  batch=(schema.VERB, schema.EXAMPLE_MASK),
  fields=("align_temperature", "align_negative"),
)
def verb_sentence(given: Given) -> Term:
  """The verb embedding itself picks the rationale: a control, no teacher."""
  vector = given.outputs[out.VERB_EMBEDDING]
  return distillation.aligned(given, vector, given.target, _others(given))


def _others(given: Given) -> Bool[Array, "b b"]:
  return terms.other_verbs(
    given.batch[schema.VERB], given.batch[schema.EXAMPLE_MASK]
  )


# Nouns.

_NOUN = {
  "batch": (schema.NOUNS, schema.ROLE_MASK),
  "fields": ("noun_smoothing",),
}


def _noun_cross_entropy(scores: str, given: Given) -> Term:
  """Of scores [B, R, C]: sum over annotators, mean over roles.

  As reference `nce`.
  """
  loss_BxRxA = terms.smoothed_cross_entropy(
    given.outputs[scores],
    given.batch[schema.NOUNS],
    given.settings.noun_smoothing,
  )
  return of_every(
    terms.masked_mean(
      jnp.sum(loss_BxRxA, axis=-1), given.batch[schema.ROLE_MASK]
    )
  )


def _noun_term(name: str, scores: str, target: str = "") -> LossTerm:
  value = functools.partial(_noun_cross_entropy, scores)
  return LossTerm(name, value, target=target, outputs=(scores,), **_NOUN)


noun_sum = _noun_term("noun_sum", out.NOUN_SCORES)
noun_closed = _noun_term("noun_closed", out.NOUN_CLOSED)
noun_text = _noun_term("noun_text", out.NOUN_TEXT)
teacher_noun = _noun_term(
  "teacher_noun", out.TEACHER_NOUN_SCORES, target=out.GAZE_TARGET
)


def _answers_term(name: str, scores: str) -> LossTerm:
  """KL of scores [B, R, C] to the teacher's answers about each instance.

  Mean over the roles that it was asked about; images without one do not count.
  """

  def value(given: Given) -> Term:
    role = jnp.maximum(given.batch[schema.ROLES], 0)
    return distillation.answered(
      given, scores, given.banks[ROLE_CANDIDATES][role]
    )

  return LossTerm(
    name,
    value,
    outputs=(scores,),
    batch=(schema.ROLES, *schema.ANSWER_KEYS),
    banks=(ROLE_CANDIDATES,),
    fields=("answers_temperature",),
  )


answers = _answers_term("answers", out.NOUN_SCORES)
# Of what the tokens in each box say.
box_answers = _answers_term("box_answers", out.BOX_NOUN_SCORES)


@loss_term(
  outputs=(out.BOX_NOUN_SCORES,),
  batch=(schema.NOUNS, schema.BOX_MASK),
  fields=("noun_smoothing",),
)
def box_noun(given: Given) -> Term:
  """Cross entropy of what the tokens in each box say; mean over annotators."""
  loss_BxRxA = terms.smoothed_cross_entropy(
    given.outputs[out.BOX_NOUN_SCORES],
    given.batch[schema.NOUNS],
    given.settings.noun_smoothing,
  )
  boxed = given.batch[schema.BOX_MASK]
  mean = terms.masked_mean(jnp.mean(loss_BxRxA, axis=-1), boxed)
  return Term(mean, boxed.any(axis=-1).astype(jnp.float32))


# The gaze targets.


def _over_roles(value: Float[Array, "b r"] | Float[Array, "b"], given: Given):
  """Mean over roles; preset `reference` has one gaze vector per image."""
  if value.ndim == 2:
    value = terms.masked_mean(value, given.batch[schema.ROLE_MASK])
  return of_every(value)


@loss_term(
  target=out.GAZE_TARGET,
  outputs=(out.ROLE_EMBEDDING,),
  batch=(schema.ROLE_MASK,),
  fields=("detach_teacher",),
)
def gaze_distill(given: Given) -> Term:
  """Distance of the role embeddings to the gaze targets."""
  return _over_roles(distillation.distance(given, out.ROLE_EMBEDDING), given)


@loss_term(
  target=out.GAZE_TARGET,
  outputs=(out.GAZE_NEGATIVE,),
  batch=(schema.ROLE_MASK,),
)
def gaze_contrast(given: Given) -> Term:
  """Pushes the gaze targets away from the negative rationale."""
  negative = given.outputs[out.GAZE_NEGATIVE]
  return _over_roles(terms.contrast_hinge(given.target, negative), given)


@loss_term(
  target=out.GAZE_TARGET,
  outputs=(out.GAZE_POSITIVE, out.GAZE_NEGATIVE),
  batch=(schema.NOUNS, schema.INSTANCE_TEXT_MASK, schema.EXAMPLE_MASK),
  fields=("align_temperature", "align_negative"),
)
def gaze_align(given: Given) -> Term:
  """Each gaze target picks the sentence about its own instance."""
  return distillation.gaze_aligned(
    given,
    given.target,
    given.outputs[out.GAZE_POSITIVE],
    given.batch[schema.NOUNS][..., 0],
  )


@loss_term(
  target=out.GAZE_POSITIVE,
  outputs=(out.ROLE_EMBEDDING, out.GAZE_NEGATIVE),
  batch=(schema.NOUNS, schema.INSTANCE_TEXT_MASK, schema.EXAMPLE_MASK),
  fields=("align_temperature", "align_negative"),
)
def role_sentence(given: Given) -> Term:
  """The role embeddings themselves pick the sentences: a control."""
  return distillation.gaze_aligned(
    given,
    given.outputs[out.ROLE_EMBEDDING],
    given.target,
    given.batch[schema.NOUNS][..., 0],
  )


# Boxes.

_BOX = {
  "outputs": (out.BOX,),
  "batch": (schema.BOXES, schema.BOX_MASK),
}


def _box_regression(
  given: Given,
) -> tuple[Float[Array, "b"], Float[Array, "b"], Bool[Array, "b"]]:
  """L1, 1 - GIoU, and which images have a box."""
  return terms.box_regression(
    given.outputs[out.BOX],
    given.batch[schema.BOXES],
    given.batch[schema.BOX_MASK],
  )


@loss_term(**_BOX)
def box(given: Given) -> Term:
  """L1 of the boxes; images without a box do not count."""
  l1, _, has_box = _box_regression(given)
  return Term(l1, has_box.astype(jnp.float32))


@loss_term(**_BOX)
def giou(given: Given) -> Term:
  """1 - GIoU of the boxes; images without a box do not count."""
  _, distance, has_box = _box_regression(given)
  return Term(distance, has_box.astype(jnp.float32))


@loss_term(
  outputs=(out.BOX_CONFIDENCE,), batch=(schema.BOX_MASK, schema.ROLE_MASK)
)
def confidence(given: Given) -> Term:
  """Whether a role has a box, mean over roles."""
  value = terms.binary_cross_entropy(
    given.outputs[out.BOX_CONFIDENCE], given.batch[schema.BOX_MASK]
  )
  return of_every(terms.masked_mean(value, given.batch[schema.ROLE_MASK]))


# In the order in which they are added.
TERMS = (
  verb,
  verb_kl,
  scene_distill,
  scene_contrast,
  scene_align,
  verb_sentence,
  teacher_verb,
  noun_sum,
  noun_closed,
  noun_text,
  answers,
  box_noun,
  box_answers,
  foretell,
  gaze_distill,
  gaze_contrast,
  gaze_align,
  role_sentence,
  teacher_noun,
  box,
  giou,
  confidence,
)
