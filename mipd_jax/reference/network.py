"""The reference's forward pass: its batch and output names, our modules."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from input_pipeline import schema
from mipd_jax import presets
from mipd_jax.losses import banks as bank_lib
from mipd_jax.losses import box_ops
from mipd_jax.models import outputs as out
from mipd_jax.models.config import Sizes
from mipd_jax.models.mipd import Mipd

CANVAS = 336  # side of the canvas of its boxes, pixels
MODES = ("eval", "train")

# The reference's output names and ours.
OUTPUTS: Mapping[str, str] = {
  "pred_verb": out.VERB_SCORES,
  "verb_scale": out.VERB_EMBEDDING,
  "pred_verb_prompt": out.SCENE_TARGET,
  "pred_verb_prompt_neg": out.SCENE_NEGATIVE,
  "pred_class_prompt": out.GAZE_TARGET,
  "pred_class_prompt_neg": out.GAZE_NEGATIVE,
  "pred_noun": out.NOUN_CLOSED,
  "pred_noun_ovClass": out.NOUN_TEXT,
  "pred_bbox": out.BOX,
  "pred_bbox_conf": out.BOX_CONFIDENCE,
}


def forward(
  params: Mapping[str, Any],
  batch: Mapping[str, Array],
  *,
  label_emb: Float[Array, "v d"],
  class_emb: Float[Array, "c d"],
  mode: str = "eval",
  dropout_key: jax.Array | None = None,
) -> dict[str, Array]:
  """All outputs of the reference, by its names.

  Args:
    params: from `params_from_state_dict`.
    batch: verb [B], roles [B, 6] with -1 for none, num_roles [B],
      boxes_xyxy_px [B, 6, 4] on the 336 canvas, q_feat [B, 577, s], q_form
      [B, 257, t], captions [B, 4, 77, x]; other keys are ignored.
    label_emb: text embedding of each verb.
    class_emb: text embedding of each noun class.
    mode: "eval" or "train". They differ only in dropout, which needs
      `dropout_key`: without one both are the same.
    dropout_key: random key of the dropout in mode "train".

  Returns:
    The keys of OUTPUTS: pred_verb [B, v], verb_scale and the four prompts
    [B, d], pred_noun and pred_noun_ovClass [B, 6, c], pred_bbox [B, 6, 4]
    (cx cy w h, shares of the canvas), pred_bbox_conf [B, 6, 1]. Float32;
    zero in unused role slots.

  Raises:
    ValueError: an unknown mode.
  """
  if mode not in MODES:
    raise ValueError(f"mode={mode!r} is not one of {MODES}")
  dropout = mode == "train" and dropout_key is not None
  params = jax.tree.map(jnp.asarray, params)
  outputs = model_of(params).apply(
    {"params": params},
    _contract(batch),
    _banks(label_emb, class_emb, params),
    train=dropout,
    rngs={"dropout": dropout_key} if dropout else None,
  )
  result = {theirs: outputs[ours] for theirs, ours in OUTPUTS.items()}
  result["pred_bbox_conf"] = result["pred_bbox_conf"][..., None]
  return result


def model_of(params: Mapping[str, Any]) -> Mipd:
  """Preset `reference` at the sizes of the parameters."""
  student = params["student"]
  hidden, heads, _ = student["decoder"]["self_attention"]["query"][
    "kernel"
  ].shape
  config = dataclasses.replace(
    presets.preset_defaults("reference")[0],
    hidden=hidden,
    heads=heads,
    feed_forward=student["decoder"]["linear1"]["dense"]["bias"].size,
  )
  sizes = Sizes(
    num_verbs=student["verb_embedding"].shape[0],
    num_roles=student["role_embedding"].shape[0],
    num_nouns=student["noun_classifier"]["layer_1"]["dense"]["bias"].size,
  )
  return Mipd(config, sizes)


def _contract(batch: Mapping[str, Array]) -> dict[str, Array]:
  """The inputs of the modules, from the reference's batch."""
  roles = jnp.asarray(batch["roles"])
  role_mask = (
    jnp.arange(roles.shape[1]) < jnp.asarray(batch["num_roles"])[:, None]
  )
  boxes = jnp.asarray(batch["boxes_xyxy_px"], jnp.float32)
  captions = jnp.asarray(batch["captions"])
  return {
    schema.VERB: jnp.asarray(batch["verb"]),
    schema.ROLES: roles,
    schema.ROLE_MASK: role_mask,
    schema.BOXES: box_ops.to_centres(boxes) / CANVAS,
    schema.BOX_MASK: role_mask & jnp.all(boxes >= 0, axis=-1),
    schema.STUDENT_TOKENS: jnp.asarray(batch["q_feat"]),
    schema.TEACHER_TOKENS: jnp.asarray(batch["q_form"]),
    schema.RATIONALE_TOKENS: captions,
    schema.RATIONALE_MASK: jnp.ones(captions.shape[:3], bool),
  }


def _banks(label_emb, class_emb, params) -> dict[str, Array]:
  """Text banks; the reference has no texts of roles and no verb prior."""
  roles, width = params["student"]["role_embedding"].shape
  verbs = jnp.shape(label_emb)[0]
  return {
    "verb_text": jnp.asarray(label_emb),
    "noun_text": jnp.asarray(class_emb),
    "role_text": jnp.zeros((roles, width)),
    bank_lib.VERB_LOG_PRIOR: jnp.zeros(verbs),
    bank_lib.VERB_TRAINED: jnp.ones(verbs, bool),
  }
