"""Prompted teacher vision aligned with rationales (NMPA); training only.

Scene branch: teacher tokens with the scene-aware prompt, read by the glimpse
rationale. Gaze branch: teacher tokens with the instance-perception prompt,
read role by role inside the role's box with the help of the gaze rationale.
Both results live in the space of text embeddings, where losses align them
with the positive rationale and push them from the negative one (paper:
negative-guided multimodal prompting alignment).

`teacher_pooling="cls"` with `gaze=False` is the reference: one attention
query, the teacher's class token, which no prompt ever touches (row 1).
"""

import math
from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from input_pipeline import schema
from mipd_jax.models import layers, outputs, prompts
from mipd_jax.models.config import ModelConfig

_GLIMPSE_POS, _GLIMPSE_NEG, _GAZE_POS, _GAZE_NEG = range(4)


class TeacherBranch(nn.Module):
  """Teacher tokens and rationales to distillation targets."""

  config: ModelConfig
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(
    self, batch: Mapping[str, Array], banks: Mapping[str, Array]
  ) -> dict[str, Array]:
    """Returns the teacher half of `models.outputs`.

    Args:
      batch: TEACHER_TOKENS, RATIONALE_TOKENS, RATIONALE_MASK, ROLES,
        ROLE_MASK, BOXES, BOX_MASK of the batch contract.
      banks: text embeddings of the vocabulary.
    """
    tokens_BxMxT = batch[schema.TEACHER_TOKENS]
    project, project_prompt = self._projection(tokens_BxMxT.shape[-1])
    tokens = project(tokens_BxMxT)
    scene, instance = self._add_prompts(tokens, project_prompt, batch)
    texts, masks = self._project_texts(batch)
    attention = layers.Attention(
      self.config.hidden, 1, dtype=self.dtype, name="attention"
    )
    if self.config.teacher_pooling == "cls":
      return self._class_token_targets(scene, texts, masks, attention)
    width = banks["verb_text"].shape[-1]
    result = self._scene_targets(scene, texts, masks, attention, width)
    result[outputs.TEACHER_VERB_SCORES] = _scores(
      self, "scene_scale", result[outputs.SCENE_TARGET], banks["verb_text"]
    )
    if self.config.gaze:
      result |= self._gaze_targets(instance, texts, masks, batch, banks)
      result[outputs.TEACHER_NOUN_SCORES] = _scores(
        self, "gaze_scale", result[outputs.GAZE_TARGET], banks["noun_text"]
      )
    return result

  # What both presets share.

  def _projection(self, width):
    """The teacher's projection as a pair of functions: tokens, prompts.

    Prompts are learned at the teacher's width and enter before the
    projection in the paper; they are projected alone here, which is the
    same by linearity and touches 32 x 32 vectors instead of every token.
    """
    kernel = self.param(
      "project_kernel", layers.TORCH_KERNEL, (width, self.config.hidden)
    ).astype(self.dtype)
    bias = self.param(
      "project_bias", layers.torch_bias(width), (self.config.hidden,)
    ).astype(self.dtype)

    def project_prompt(x):
      return x.astype(self.dtype) @ kernel

    return lambda x: project_prompt(x) + bias, project_prompt

  def _add_prompts(self, tokens_BxMxD, project, batch):
    """Adds each prompt to the patch tokens; the class token stays."""
    width = batch[schema.TEACHER_TOKENS].shape[-1]
    grid = math.isqrt(tokens_BxMxD.shape[1] - 1)
    scene = instance = tokens_BxMxD
    if self.config.scene_prompt:
      edges = [
        project(self.param(f"scene_{side}", nn.initializers.zeros, (width,)))
        for side in ("top", "bottom", "left", "right")
      ]
      border = prompts.scene_prompt(*edges, grid=grid)
      scene = _add_to_patches(tokens_BxMxD, border[None])
    if self.config.instance_prompt:
      base = self.param(
        "instance_map",
        nn.initializers.normal(1e-5),
        (prompts.MAP_SIDE, prompts.MAP_SIDE, width),
      )
      corners = _corners(batch[schema.BOXES])
      inside = prompts.instance_prompt(
        project(base), corners, batch[schema.BOX_MASK], grid
      )
      instance = _add_to_patches(tokens_BxMxD, inside)
    return scene, instance

  def _project_texts(self, batch):
    """Four projected rationales [B, L, D] and their masks [B, L]."""
    names = ("glimpse_pos", "glimpse_neg", "gaze_pos", "gaze_neg")
    tokens = batch[schema.RATIONALE_TOKENS].astype(self.dtype)
    texts = [
      layers.Linear(self.config.hidden, self.dtype, name=f"text_{name}")(
        tokens[:, i]
      )
      for i, name in enumerate(names)
    ]
    masks = [batch[schema.RATIONALE_MASK][:, i] for i in range(len(names))]
    if not self.config.mask_padding:
      masks = [jnp.ones_like(mask) for mask in masks]
    return texts, masks

  # Preset `reference`.

  def _class_token_targets(self, tokens, texts, masks, attention):
    """The class token attends to the positive rationale, unit length."""
    query = tokens[:, :1]

    def aligned(positive):
      mask = masks[positive][:, None, :]
      return layers.unit(attention(query, texts[positive], mask)[:, 0])

    return {
      outputs.SCENE_TARGET: aligned(_GLIMPSE_POS),
      outputs.SCENE_NEGATIVE: layers.masked_mean(
        texts[_GLIMPSE_NEG], masks[_GLIMPSE_NEG]
      ),
      outputs.GAZE_TARGET: aligned(_GAZE_POS),
      outputs.GAZE_NEGATIVE: layers.masked_mean(
        texts[_GAZE_NEG], masks[_GAZE_NEG]
      ),
    }

  # Preset `mipd`.

  def _scene_targets(self, tokens, texts, masks, attention, width):
    """The glimpse rationale reads the prompted tokens, or they read it."""
    positive = layers.masked_mean(texts[_GLIMPSE_POS], masks[_GLIMPSE_POS])
    negative = layers.masked_mean(texts[_GLIMPSE_NEG], masks[_GLIMPSE_NEG])
    if self.config.teacher_pooling == "text":
      query = positive[:, None].astype(self.dtype)
      pooled = attention(query, tokens)[:, 0]
    else:
      mask = masks[_GLIMPSE_POS][:, None, :]
      pooled = jnp.mean(
        tokens + attention(tokens, texts[_GLIMPSE_POS], mask), axis=1
      )
    to_text_space = layers.Linear(width, self.dtype, name="scene_out")
    return {
      outputs.SCENE_TARGET: to_text_space(pooled).astype(jnp.float32),
      outputs.SCENE_POSITIVE: to_text_space(positive.astype(self.dtype)).astype(
        jnp.float32
      ),
      outputs.SCENE_NEGATIVE: to_text_space(negative.astype(self.dtype)).astype(
        jnp.float32
      ),
    }

  def _gaze_targets(self, tokens, texts, masks, batch, banks):
    """Each role reads the gaze text, then the teacher inside its box."""
    role_text = layers.unit(banks["role_text"])
    roles = role_text[jnp.maximum(batch[schema.ROLES], 0)]
    gain = jnp.sqrt(role_text.shape[-1]).astype(jnp.float32)
    query = layers.Linear(self.config.hidden, self.dtype, name="gaze_query")(
      (gain * roles).astype(self.dtype)
    )
    read_text = layers.Attention(
      self.config.hidden, 1, dtype=self.dtype, name="gaze_text_attention"
    )
    read_image = layers.Attention(
      self.config.hidden, 1, dtype=self.dtype, name="gaze_attention"
    )

    def told(rationale):
      return read_text(query, texts[rationale], masks[rationale][:, None, :])

    where = self._inside(tokens.shape[1], batch)
    positive = told(_GAZE_POS)
    seen = read_image(query + positive, tokens, where)
    width = banks["noun_text"].shape[-1]
    to_text_space = layers.Linear(width, self.dtype, name="gaze_out")
    return {
      outputs.GAZE_TARGET: to_text_space(seen).astype(jnp.float32),
      outputs.GAZE_NEGATIVE: to_text_space(told(_GAZE_NEG)).astype(jnp.float32),
    }

  def _inside(
    self, num_tokens: int, batch: Mapping[str, Array]
  ) -> Bool[Array, "b r m"]:
    """Tokens a role may read: those in its box, all where it has none."""
    grid = math.isqrt(num_tokens - 1)
    cells = prompts.box_cells(_corners(batch[schema.BOXES]), grid)
    inside = prompts.box_cell_mask(cells, grid)
    inside = inside.reshape(*inside.shape[:2], grid * grid)
    no_box = ~batch[schema.BOX_MASK][..., None]
    return jnp.concatenate([no_box, inside | no_box], axis=-1)


def _add_to_patches(
  tokens_BxMxD: Array, prompt_BxGxGxD: Array
) -> Float[Array, "b m d"]:
  flat = prompt_BxGxGxD.reshape(
    prompt_BxGxGxD.shape[0], -1, prompt_BxGxGxD.shape[-1]
  )
  return tokens_BxMxD.at[:, 1:].add(flat)


def _corners(boxes_cxcywh: Array) -> Float[Array, "b r 4"]:
  centre, half = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:] / 2
  return jnp.concatenate([centre - half, centre + half], axis=-1)


def _scores(
  module: nn.Module, name: str, x: Array, text: Float[Array, "v e"]
) -> Array:
  """Scaled cosine similarity of x [..., E] with every text [V, E]."""
  return layers.learned_scale(module, name) * (
    layers.unit(x) @ layers.unit(text).T
  )
