"""What both tasks share of the terms on a teacher's targets."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from input_pipeline import schema
from mipd_jax.losses import terms
from mipd_jax.losses.objective import Given, loss_term
from mipd_jax.losses.terms import Term, of_every
from mipd_jax.models import outputs as out


def taught(given: Given) -> Float[Array, "*b d"]:
  """The target [..., D]; no gradient passes it if `detach_teacher`."""
  target = given.target
  detached = given.settings.detach_teacher
  return jax.lax.stop_gradient(target) if detached else target


def distance(given: Given, student: str) -> Float[Array, "*b"]:
  """1 - cosine of an output of the student [..., D] to the target."""
  return 1 - terms.cosine(given.outputs[student], taught(given))


@loss_term(target=out.SCENE_TARGET, outputs=(out.SCENE_NEGATIVE,))
def scene_contrast(given: Given) -> Term:
  """Pushes the scene target away from the negative rationale."""
  negative = given.outputs[out.SCENE_NEGATIVE]
  return of_every(terms.contrast_hinge(given.target, negative))


@loss_term(outputs=(out.FORETOLD,), batch=(schema.TEACHER_TOKENS,))
def foretell(given: Given) -> Term:
  """1 - cosine of the foretold patches to the teacher's, layer-normed."""
  wanted = given.batch[schema.TEACHER_TOKENS][:, 1:].astype(jnp.float32)
  wanted = jax.nn.standardize(wanted, epsilon=1e-5)
  close = terms.cosine(given.outputs[out.FORETOLD], wanted)
  return of_every(jnp.mean(1 - close, axis=-1))


def aligned(
  given: Given,
  vector: Float[Array, "b e"],
  positive: Float[Array, "b e"],
  other: Bool[Array, "b b"],
) -> Term:
  """`terms.info_nce` of glimpse rationales; reads the fields `align_*`.

  Args:
    given: has SCENE_NEGATIVE.
    vector: picks one of the positive rationales.
    positive: SCENE_POSITIVE.
    other: whose positive rationales compete in each row.
  """
  return of_every(
    terms.info_nce(
      vector,
      positive,
      given.outputs[out.SCENE_NEGATIVE],
      other,
      given.settings.align_temperature,
      given.settings.align_negative,
    )
  )


def gaze_aligned(
  given: Given,
  vectors: Float[Array, "b i e"],
  positive: Float[Array, "b i e"],
  kind: Int[Array, "b i"],
) -> Term:
  """`terms.info_nce` of gaze rationales; reads the fields `align_*`.

  Args:
    given: has GAZE_NEGATIVE and INSTANCE_TEXT_MASK.
    vectors: each picks one of the positive sentences.
    positive: GAZE_POSITIVE.
    kind: what each instance is; those of one kind do not compete, since their
      sentences say nearly the same.
  """
  told = given.batch[schema.INSTANCE_TEXT_MASK]
  told = told & given.batch[schema.EXAMPLE_MASK][:, None, None]
  shape = kind.shape
  right, wrong = (told[..., i].reshape(-1) for i in range(2))
  flat = kind.reshape(-1)

  def rows(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])

  value = terms.info_nce(
    rows(vectors),
    rows(positive),
    rows(given.outputs[out.GAZE_NEGATIVE]),
    (flat[:, None] != flat[None, :]) & right[None, :],
    given.settings.align_temperature,
    wrong & given.settings.align_negative,
  )
  asked = right.reshape(shape)
  mean = terms.masked_mean(value.reshape(shape), asked)
  return Term(mean, asked.any(axis=-1).astype(jnp.float32))


def answered(
  given: Given, scores: str, candidates: Bool[Array, "b i c"]
) -> Term:
  """`terms.answers_kl` of an output [B, I, C], mean over asked instances.

  Args:
    given: has `schema.ANSWER_KEYS` and the field `answers_temperature`.
    scores: name of the output.
    candidates: the classes that compete; others of the teacher's answers are
      left out.
  """
  classes = given.batch[schema.ANSWER_CLASSES]
  competes = jnp.take_along_axis(
    candidates, jnp.maximum(classes, 0), axis=-1
  ) & (classes >= 0)
  value = terms.answers_kl(
    given.batch[schema.ANSWER_LOG_SHARES],
    jnp.where(competes, classes, -1),
    given.batch[schema.ANSWER_LOG_REST],
    given.outputs[scores],
    candidates,
    given.settings.answers_temperature,
  )
  asked = competes.any(axis=-1)
  mean = terms.masked_mean(value, asked)
  return Term(mean, asked.any(axis=-1).astype(jnp.float32))
