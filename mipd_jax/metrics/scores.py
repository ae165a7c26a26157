"""SWiG's scores as a jax program, for a training step.

A run is evaluated on the host, by `swig_scores`; `example_scores` gives the
same scores on the devices, where the reference counts its training accuracy.
`swig_scores.SCORES` defines the scores; this file computes what they read.
"""

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from input_pipeline import boxes as box_rule
from input_pipeline import schema
from mipd_jax.losses import box_ops
from mipd_jax.metrics import swig_scores
from mipd_jax.models import outputs as out


def nouns(noun_scores: Float[Array, "*b r c"]) -> Int[Array, "*b r"]:
  """The best noun class of each role; padding, the last class, is no noun."""
  return jnp.argmax(noun_scores[..., :-1], axis=-1).astype(jnp.int32)


def ranks(
  verb_scores: Float[Array, "b v"], batch: Mapping[str, Array]
) -> Int[Array, "b"]:
  """Place of the true verb, from 0.

  Ties count against the model only from lower indices, as `top_k` orders.
  """
  scores = verb_scores.astype(jnp.float32)
  verb = batch[schema.VERB][:, None]
  true = jnp.take_along_axis(scores, verb, axis=-1)
  index = jnp.arange(scores.shape[-1])
  ahead = (scores > true) | ((scores == true) & (index < verb))
  return jnp.sum(ahead, axis=-1)


def role_hits(
  outputs: Mapping[str, Array], batch: Mapping[str, Array]
) -> tuple[Bool[Array, "b r"], Bool[Array, "b r"]]:
  """Which roles have a right noun, and which a right grounding.

  Grounding: where a box exists IoU >= 0.5 and confidence >= 0, where none
  does confidence < 0. IoU on the letterboxed canvas equals IoU in original
  pixels: the map is one scale and a shift.
  """
  noun = nouns(outputs[out.NOUN_SCORES])
  right_noun = jnp.any(noun[..., None] == batch[schema.NOUNS], axis=-1)
  iou, _ = box_ops.iou_and_union(
    box_ops.to_corners(outputs[out.BOX]),
    box_ops.to_corners(batch[schema.BOXES]),
  )
  present = outputs[out.BOX_CONFIDENCE] >= 0
  right_box = jnp.where(
    batch[schema.BOX_MASK], present & (iou >= box_rule.IOU_THRESHOLD), ~present
  )
  return right_noun, right_box


def cut_to_image(
  boxes: Float[Array, "b r 4"], image_size: Int[Array, "b 2"]
) -> Float[Array, "b r 4"]:
  """Cuts predicted boxes to where the image lies on its canvas.

  Annotators cannot mark what lies outside the image. The rule on pixels is
  `input_pipeline.boxes.cut`.

  Args:
    boxes: cx cy w h over the canvas side.
    image_size: height, width of the original, pixels.
  """
  share = image_size / jnp.max(image_size, axis=-1, keepdims=True)
  half = share[:, None, ::-1] / 2  # of width, height
  low, high = 0.5 - half, 0.5 + half
  corners = box_ops.to_corners(boxes)
  corners = jnp.clip(
    corners,
    jnp.concatenate([low, low], axis=-1),
    jnp.concatenate([high, high], axis=-1),
  )
  return box_ops.to_centres(corners)


def example_scores(
  outputs: Mapping[str, Array], batch: Mapping[str, Array]
) -> Float[Array, "b k"]:
  """A row per example, a column for each of `swig_scores.SCORES`, in 0..1.

  Every score has a value for every example, even if it does not count.
  """
  right_noun, right_box = role_hits(outputs, batch)
  mask = batch[schema.ROLE_MASK]
  roles = jnp.sum(mask, axis=-1)
  judged = swig_scores.Judged(
    rank=ranks(outputs[out.VERB_SCORES], batch),
    roles=roles,
    divisor=jnp.maximum(roles, 1),
    noun=right_noun,
    box=right_box,
    total=lambda right: jnp.sum(right & mask, axis=-1),
  )
  columns = [score.value(judged) for score in swig_scores.SCORES]
  return jnp.stack([x.astype(jnp.float32) for x in columns], axis=-1)
