"""The reference's losses and metrics by its names, from ours."""

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from input_pipeline import schema
from mipd_jax import presets
from mipd_jax.losses import box_ops, situations
from mipd_jax.losses.objective import Objective
from mipd_jax.metrics import scores, swig_scores
from mipd_jax.models import outputs as out
from mipd_jax.reference.network import OUTPUTS

LOSSES = (
  "loss_vce",
  "loss_nce_1",
  "loss_nce_3",
  "loss_bbox",
  "loss_giou",
  "loss_bbox_conf",
  "total",
)
# What the reference calls a score, by our stem; it has no others.
_NAMES = {
  "verb": "verb_acc",
  "value": "noun_acc",
  "value_all": "noun_acc_all",
  "grnd": "bbox_acc",
  "grnd_all": "bbox_acc_all",
}
_CONDITIONS = ("top1", "top5", "gt")
# The metric names of the reference, by ours.
METRICS: Mapping[str, str] = {
  score.name: f"{_NAMES[score.stem]}_{score.condition}"
  for score in swig_scores.SCORES
  if score.stem in _NAMES and score.condition in _CONDITIONS
}


def criterion(
  outputs: Mapping[str, Array],
  targets: Mapping[str, Array],
  *,
  eval: bool = False,
) -> dict[str, Float[Array, ""]]:
  """Losses, their total and the metrics: means over the batch.

  Args:
    outputs: from `forward`; differentiable in all of them.
    targets: verb [B], roles [B, 6], num_roles [B], labels [B, 6, 3],
      boxes_cxcywh [B, 6, 4] (shares of the canvas, -1 where absent); width,
      height of the resized image, shift_0 (down), shift_1 (right), max_width,
      max_height of the canvas [B], in pixels. With `eval` also
      orig_boxes_xyxy [B, 6, 4] in pixels of the original image, and scale.
    eval: score boxes in pixels of the original image. Losses are on the
      canvas either way.

  Returns:
    LOSSES (unweighted except for `total`) and, in percent, the values of
    METRICS and mean_acc. Scalars.
  """
  by_our_name = {
    ours: jnp.asarray(outputs[name]) for name, ours in OUTPUTS.items()
  }
  by_our_name[out.BOX_CONFIDENCE] = by_our_name[out.BOX_CONFIDENCE][..., 0]
  by_our_name[out.NOUN_SCORES] = by_our_name[out.NOUN_CLOSED]
  batch = _contract(targets)
  _, config = presets.preset_defaults("reference")
  # The reference has no verb prior, so the banks are not read.
  total, terms = Objective(situations.TERMS, config)(by_our_name, batch, {})
  losses = {
    "loss_vce": terms["verb"]
    + config.scene_distill * terms["scene_distill"]
    + config.scene_contrast * terms["scene_contrast"],
    "loss_nce_1": 0.01 * terms["noun_text"],
    "loss_nce_3": terms["noun_closed"]
    + config.gaze_contrast * terms["gaze_contrast"],
    "loss_bbox": terms["box"],
    "loss_giou": terms["giou"],
    "loss_bbox_conf": terms["confidence"],
    "total": total,
  }
  return losses | _metrics(by_our_name, batch, targets, eval)


def predicted_pixels(
  boxes: Float[Array, "b r 4"], targets: Mapping[str, Array]
) -> Float[Array, "b r 4"]:
  """Canvas shares, cx cy w h -> corners in canvas pixels, cut to the image.

  The reference cuts predictions to the image before it scores them.
  """
  corners = box_ops.to_corners(boxes)
  corners *= _per_axis(targets, "max_width", "max_height")
  low = _per_axis(targets, "shift_1", "shift_0")
  return jnp.clip(corners, low, low + _per_axis(targets, "width", "height"))


def to_original(
  corners: Float[Array, "b r 4"], targets: Mapping[str, Array]
) -> Float[Array, "b r 4"]:
  """Corners in canvas pixels -> in pixels of the original image."""
  scale = jnp.asarray(targets["scale"])[:, None, None]
  return (corners - _per_axis(targets, "shift_1", "shift_0")) / scale


def _per_axis(targets, x_name, y_name) -> Float[Array, "b 1 4"]:
  """Two values per image, as x, y, x, y."""
  pair = [targets[x_name], targets[y_name]] * 2
  return jnp.stack([jnp.asarray(x) for x in pair], axis=-1)[:, None]


def _contract(targets: Mapping[str, Array]) -> dict[str, Array]:
  """The inputs of losses and scores, from the reference's targets."""
  roles = jnp.asarray(targets["roles"])
  role_mask = _exists(roles, targets["num_roles"])
  boxes = jnp.asarray(targets["boxes_cxcywh"], jnp.float32)
  return {
    schema.EXAMPLE_MASK: jnp.ones(roles.shape[0], bool),
    schema.VERB: jnp.asarray(targets["verb"]),
    schema.ROLES: roles,
    schema.ROLE_MASK: role_mask,
    schema.NOUNS: jnp.asarray(targets["labels"]).astype(jnp.int32),
    schema.BOXES: boxes,
    # A missing box is four times -1, and nothing else is missing.
    schema.BOX_MASK: role_mask & (boxes[..., 0] != -1),
  }


def _exists(roles: Array, num_roles: Array) -> Bool[Array, "b r"]:
  return jnp.arange(roles.shape[1]) < jnp.asarray(num_roles)[:, None]


def _metrics(outputs, batch, targets, original) -> dict[str, Array]:
  """Percent over the batch; boxes in pixels, of the canvas or the original.

  IoU does not depend on the unit, so both go through `scores` in the same way.
  """
  guess = predicted_pixels(outputs[out.BOX], targets)
  if original:
    guess = to_original(guess, targets)
    true = box_ops.to_centres(jnp.asarray(targets["orig_boxes_xyxy"], float))
  else:
    side = _per_axis(targets, "max_width", "max_height")
    true = batch[schema.BOXES] * side
  batch = batch | {schema.BOXES: true}
  outputs = outputs | {out.BOX: box_ops.to_centres(guess)}
  mean = 100 * jnp.mean(scores.example_scores(outputs, batch), axis=0)
  ours = dict(zip(swig_scores.NAMES, mean, strict=True))
  result = {theirs: ours[name] for name, theirs in METRICS.items()}
  chosen = jnp.stack([ours[name] for name in swig_scores.MEAN_ACC])
  return result | {"mean_acc": jnp.mean(chosen)}
