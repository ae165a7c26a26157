"""What both tasks share of the terms on a teacher's targets."""

import jax
from jaxtyping import Array, Bool, Float

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


def aligned(given: Given, other: Bool[Array, "b b"]) -> Term:
  """`terms.info_nce` of the scene target; reads the fields `align_*`.

  Args:
    given: has SCENE_POSITIVE and SCENE_NEGATIVE.
    other: whose positive rationales compete in each row.
  """
  return of_every(
    terms.info_nce(
      given.target,
      given.outputs[out.SCENE_POSITIVE],
      given.outputs[out.SCENE_NEGATIVE],
      other,
      given.settings.align_temperature,
      given.settings.align_negative,
    )
  )
