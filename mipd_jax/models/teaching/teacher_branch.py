"""Prompted teacher vision aligned with rationales (NMPA); training only.

Scene branch: teacher tokens with the scene-aware prompt, read by the glimpse
rationale. Gaze branch: teacher tokens with the instance-perception prompt,
read role by role inside the role's box with the help of the gaze rationale.
Both results lie in the space of text embeddings, where losses align them with
the positive rationale and push them away from the negative one (paper:
negative-guided multimodal prompting alignment).

`teacher_pooling="cls"` with `gaze=False` is the reference: one attention
query, the teacher's class token, which no prompt touches (row 1).

One to six queries read 257 tokens of the teacher or 77 of a text, so neither
the projected tokens nor the projected texts are ever computed: both are
`Memory`.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from input_pipeline import schema
from mipd_jax.models import layers, outputs, visual_prompts
from mipd_jax.models.attention import Attention
from mipd_jax.models.config import ModelConfig
from mipd_jax.models.memory import Memory, Part
from mipd_jax.models.teaching.open_layers import (
  QFORMER,
  TOWER,
  WEIGHTS,
  OpenLayers,
)

_GLIMPSE_POS, _GLIMPSE_NEG, _GAZE_POS, _GAZE_NEG = range(4)


class TeacherBranch(nn.Module):
  """Teacher tokens and rationales to distillation targets.

  `absorbed` is the form of the attentions; where it is False, all that they
  read is computed. `open_layers` are the teacher's frozen layers that prompts
  pass through, whose weights are in the banks.
  """

  config: ModelConfig
  dtype: jnp.dtype = jnp.float32
  absorbed: bool = True
  open_layers: OpenLayers | None = None

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
    scene, instance = self._tokens(batch, banks)
    texts, masks = self._texts(batch)
    # When pooling by mean every token is a query: nothing to absorb.
    few = self.config.teacher_pooling != "mean"
    attention = self._attention(
      "attention", self.absorbed and few, self.config.scene_heads
    )
    if self.config.teacher_pooling == "cls":
      return self._class_token_targets(scene, texts, masks, attention)
    if self._opens(QFORMER):
      attention = self._through_qformer(batch, banks)
    result = self._scene_targets(scene, texts, masks, attention, banks)
    if self.config.rationale_space == "frozen":
      result |= _frozen_sentences(batch)
    result[outputs.TEACHER_VERB_SCORES] = _scores(
      self, "scene_scale", result[outputs.SCENE_TARGET], banks["verb_text"]
    )
    if self.config.gaze:
      result |= self._gaze_targets(instance, texts, masks, batch, banks)
      result |= self._gaze_scores(result[outputs.GAZE_TARGET], batch, banks)
    return result

  # Slots: here roles.

  def _slot_text(self, batch, banks):
    """Unit text embedding of what each slot asks for, [B, R, E]."""
    role_text = layers.unit(banks["role_text"])
    return role_text[jnp.maximum(batch[schema.ROLES], 0)]

  def _prompted_boxes(self, batch):
    """Corners [B, n, 4] of the boxes that get a prompt, and their mask."""
    return visual_prompts.corners(batch[schema.BOXES]), batch[schema.BOX_MASK]

  def _inside(self, batch: Mapping[str, Array]) -> Bool[Array, "b r m"]:
    """Tokens a role may read: those in its box, all where it has none."""
    grid = math.isqrt(batch[schema.TEACHER_TOKENS].shape[1] - 1)
    cells = visual_prompts.box_cells(
      visual_prompts.corners(batch[schema.BOXES]), grid
    )
    inside = visual_prompts.box_cell_mask(cells, grid)
    inside = inside.reshape(*inside.shape[:2], grid * grid)
    no_box = ~batch[schema.BOX_MASK][..., None]
    return jnp.concatenate([no_box, inside | no_box], axis=-1)

  def _gaze_scores(self, target, batch, banks):
    """Scores of the gaze targets [B, R, E]."""
    del batch
    scores = _scores(self, "gaze_scale", target, banks["noun_text"])
    return {outputs.TEACHER_NOUN_SCORES: scores}

  # Shared by both presets.

  def _attention(self, name, absorbed, heads=1):
    return Attention(
      self.config.hidden, heads, dtype=self.dtype, absorbed=absorbed, name=name
    )

  def _memory(self, memory: Memory) -> Memory:
    return memory if self.absorbed else Memory.of(memory.tokens())

  def _opens(self, kind: str) -> bool:
    """Whether prompts pass through open layers of this kind."""
    return self.open_layers is not None and self.open_layers.kind == kind

  def _tokens(self, batch, banks):
    """The teacher's tokens with the scene and with the instance prompt.

    In the paper, prompts have the teacher's width and are added before the
    projection. Here they are projected alone: the same by linearity, for
    32 x 32 vectors instead of every token. The class token gets none. Before
    open layers of the tower they are added as they are.
    """
    tokens_BxMxT = batch[schema.TEACHER_TOKENS]
    width, grid = tokens_BxMxT.shape[-1], math.isqrt(tokens_BxMxT.shape[1] - 1)
    kernel = self.param(
      "project_kernel", layers.TORCH_KERNEL, (width, self.config.hidden)
    ).astype(self.dtype)
    bias = self.param(
      "project_bias", layers.torch_bias(width), (self.config.hidden,)
    ).astype(self.dtype)
    scene, instance = self._prompts(batch, width, grid)
    if not self._opens(TOWER):
      seen = Memory((Part(self._normed(tokens_BxMxT), kernel),), bias)
      return tuple(
        self._memory(prompt.projected(seen, kernel) if prompt else seen)
        for prompt in (scene, instance)
      )
    raw = tokens_BxMxT.astype(self.dtype)

    def through(prompt):
      seen = raw + prompt.on_tokens() if prompt else raw
      seen = self._normed(self.open_layers.run(banks[WEIGHTS], seen))
      return self._memory(Memory((Part(seen, kernel),), bias))

    if scene is None and instance is None:
      return (through(None),) * 2
    return through(scene), through(instance)

  def _prompts(self, batch, width, grid):
    """The scene prompt and the instance prompt; None where it is off."""
    scene = instance = None
    if self.config.scene_prompt:
      zeros = nn.initializers.zeros
      edges = [
        self.param(f"scene_{side}", zeros, (width,)).astype(self.dtype)
        for side in ("top", "bottom", "left", "right")
      ]
      scene = _Border(edges, grid)
    if self.config.instance_prompt:
      side = visual_prompts.MAP_SIDE
      shape, small = (side, side, width), nn.initializers.normal(1e-5)
      base = self.param("instance_map", small, shape).astype(self.dtype)
      boxes, mask = self._prompted_boxes(batch)
      weights = visual_prompts.instance_weights(boxes, mask, grid, side)
      weights = _after_class(weights.astype(self.dtype))
      instance = _Map(weights, base.reshape(side * side, width))
    return scene, instance

  def _normed(self, tokens):
    """Tokens in the dtype of compute, as the branch reads them."""
    if self.config.teacher_norm:
      # Without scale and bias: the projection has both.
      tokens = jax.nn.standardize(
        tokens.astype(jnp.float32), epsilon=layers.LAYER_NORM_EPSILON
      )
    return tokens.astype(self.dtype)

  def _through_qformer(self, batch, banks):
    """What reads in place of the scene's attention: (queries, _) -> [B, Q, D].

    The queries are beside the Q-Former's own, the layers its frozen ones.
    """
    raw = batch[schema.TEACHER_TOKENS].astype(self.dtype)

    def read(queries, tokens):
      del tokens  # of the learned projection
      return self.open_layers.read(
        banks[WEIGHTS], raw, queries[0], absorb=self.absorbed
      )

    return read

  def _texts(self, batch):
    """Projected rationales [B, L, D], of those that are read, and all masks.

    Masks are [B, L].
    """
    tokens = batch[schema.RATIONALE_TOKENS]
    texts = {
      i: self._memory(
        layers.Linear(
          self.config.hidden, self.dtype, name=f"text_{name}"
        ).memory(tokens[:, i])
      )
      for i, name in enumerate(schema.RATIONALES)
      if name in self.config.projected_rationales
    }
    masks = [
      batch[schema.RATIONALE_MASK][:, i] for i in range(len(schema.RATIONALES))
    ]
    if not self.config.mask_padding:
      masks = [jnp.ones_like(mask) for mask in masks]
    return texts, masks

  # Preset `reference`.

  def _class_token_targets(self, tokens, texts, masks, attention):
    """The class token attends to the positive rationale, [B, D]."""
    query = tokens.token(0)[:, None]

    def aligned(positive):
      mask = masks[positive][:, None, :]
      return layers.unit(attention(query, texts[positive], mask)[:, 0])

    return {
      outputs.SCENE_TARGET: aligned(_GLIMPSE_POS),
      outputs.SCENE_NEGATIVE: texts[_GLIMPSE_NEG].mean(masks[_GLIMPSE_NEG]),
      outputs.GAZE_TARGET: aligned(_GAZE_POS),
      outputs.GAZE_NEGATIVE: texts[_GAZE_NEG].mean(masks[_GAZE_NEG]),
    }

  # Preset `mipd`.

  def _scene_targets(self, tokens, texts, masks, attention, banks):
    """Queries read the prompted tokens, or these the rationale; [B, E]."""
    compared = {
      name: texts[i].mean(masks[i])
      for name, i in (
        (outputs.SCENE_POSITIVE, _GLIMPSE_POS),
        (outputs.SCENE_NEGATIVE, _GLIMPSE_NEG),
      )
      if i in texts
    }
    if self.config.teacher_pooling != "mean":
      positive = compared.get(outputs.SCENE_POSITIVE)
      query = self._scene_query(tokens, positive, banks)
      pooled = attention(query.astype(self.dtype), tokens)
      pooled = self._joined(pooled)
    else:
      tokens, mask = tokens.tokens(), masks[_GLIMPSE_POS][:, None, :]
      pooled = jnp.mean(
        tokens + attention(tokens, texts[_GLIMPSE_POS], mask), axis=1
      )
    width = banks["verb_text"].shape[-1]
    to_text_space = layers.Linear(width, self.dtype, name="scene_out")
    target = to_text_space(pooled).astype(jnp.float32)
    if self.config.rationale_space == "frozen":
      return {outputs.SCENE_TARGET: target}
    return {outputs.SCENE_TARGET: target} | {
      name: to_text_space(text.astype(self.dtype)).astype(jnp.float32)
      for name, text in compared.items()
    }

  def _joined(self, read):
    """What queries read, [B, Q, _] -> [B, D]; several are one row."""
    if read.shape[1:] == (1, self.config.hidden):
      return read[:, 0]
    join = layers.Linear(self.config.hidden, self.dtype, name="scene_join")
    return join(read.reshape(len(read), -1))

  def _query_width(self, banks):
    if self._opens(QFORMER):
      return banks[WEIGHTS]["query_tokens"].shape[-1]
    return self.config.hidden

  def _scene_query(self, tokens, positive, banks):
    """The queries on the prompted tokens, [B, Q, D].

    Either the rationale, or what has never seen one.
    """
    if self.config.teacher_pooling == "class_query":
      return tokens.token(0)[:, None]
    if self.config.teacher_pooling == "learned_query":
      count = self.config.scene_queries
      init = nn.initializers.normal(0.02)
      width = self._query_width(banks)
      learned = self.param("scene_query", init, (count, width))
      batch = tokens.parts[0].x.shape[0]
      return jnp.broadcast_to(learned, (batch, *learned.shape))
    return positive[:, None]

  def _gaze_targets(self, tokens, texts, masks, batch, banks):
    """Each role reads the gaze text, then the teacher in its box; [B, R, E].

    In a frozen space it reads no text, and is compared with what the gaze texts
    say about it.
    """
    roles = self._slot_text(batch, banks)
    gain = jnp.sqrt(roles.shape[-1]).astype(jnp.float32)
    query = layers.Linear(self.config.hidden, self.dtype, name="gaze_query")(
      (gain * roles).astype(self.dtype)
    )
    read_image = self._attention("gaze_attention", self.absorbed)
    width = banks["noun_text"].shape[-1]
    to_text_space = layers.Linear(width, self.dtype, name="gaze_out")
    frozen = self.config.frozen_gaze
    guided = query
    if not frozen:
      read_text = self._attention("gaze_text_attention", self.absorbed)

      def read_rationale(rationale):
        return read_text(query, texts[rationale], masks[rationale][:, None, :])

      guided = query + read_rationale(_GAZE_POS)
    seen = read_image(guided, tokens, self._inside(batch))
    target = {outputs.GAZE_TARGET: to_text_space(seen).astype(jnp.float32)}
    if frozen:
      return target | _frozen_instances(batch)
    negative = to_text_space(read_rationale(_GAZE_NEG)).astype(jnp.float32)
    return target | {outputs.GAZE_NEGATIVE: negative}


class _Border(NamedTuple):
  """The scene prompt: vectors for the four edges of a grid."""

  edges: list[Float[Array, "d"]]
  grid: int

  def on_tokens(self) -> Float[Array, "m d"]:
    border = visual_prompts.scene_prompt(*self.edges, grid=self.grid)
    return _after_class(border.reshape(self.grid * self.grid, -1))

  def projected(self, memory: Memory, kernel: Float[Array, "d k"]) -> Memory:
    edges = [edge @ kernel for edge in self.edges]
    return memory.plus(_Border(edges, self.grid).on_tokens())


class _Map(NamedTuple):
  """The instance prompt: a map, and each token's weights on it."""

  weights: Float[Array, "b m s"]
  base: Float[Array, "s d"]

  def on_tokens(self) -> Float[Array, "b m d"]:
    return self.weights @ self.base

  def projected(self, memory: Memory, kernel: Float[Array, "d k"]) -> Memory:
    return memory.plus(self.weights, self.base @ kernel)


def _shared(
  rows: Float[Array, "*b d"], counts: Bool[Array, "*b"]
) -> Float[Array, "d"]:
  """The mean of the rows that count: what all texts of a batch share.

  Such texts share most of their direction; without it is left what tells them
  apart.
  """
  weight = counts.reshape(-1, 1).astype(jnp.float32)
  total = jnp.sum(rows.reshape(-1, rows.shape[-1]) * weight, axis=0)
  return total / jnp.maximum(weight.sum(), 1)


def _frozen_instances(
  batch: Mapping[str, Array],
) -> dict[str, Float[Array, "b r e"]]:
  """What the gaze texts say about each instance; 0 where they say nothing."""
  counts = batch[schema.INSTANCE_TEXT_MASK]
  counts = counts & batch[schema.EXAMPLE_MASK][:, None, None]
  rows = layers.unit(batch[schema.INSTANCE_TEXT])
  rows = jnp.where(counts[..., None], rows - _shared(rows, counts), 0)
  return {
    outputs.GAZE_POSITIVE: rows[..., 0, :],
    outputs.GAZE_NEGATIVE: rows[..., 1, :],
  }


def _frozen_sentences(
  batch: Mapping[str, Array],
) -> dict[str, Float[Array, "b e"]]:
  """Glimpse sentences as the frozen text encoder embeds them: by end token."""
  mask = batch[schema.RATIONALE_MASK]
  end = jnp.maximum(mask.sum(axis=-1, keepdims=True) - 1, 0)[..., None]
  rows = jnp.take_along_axis(batch[schema.RATIONALE_TOKENS], end, axis=2)
  glimpse = layers.unit(rows[:, : _GLIMPSE_NEG + 1, 0])
  counts = jnp.broadcast_to(
    batch[schema.EXAMPLE_MASK][:, None], glimpse.shape[:2]
  )
  glimpse -= _shared(glimpse, counts)
  return {
    outputs.SCENE_POSITIVE: glimpse[:, _GLIMPSE_POS],
    outputs.SCENE_NEGATIVE: glimpse[:, _GLIMPSE_NEG],
  }


def _after_class(x: Float[Array, "*b p d"]) -> Float[Array, "*b m d"]:
  """Puts a row of zeros, for the class token, before the rows of patches."""
  return jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(1, 0), (0, 0)])


def _scores(
  module: nn.Module, name: str, x: Array, text: Float[Array, "v e"]
) -> Array:
  """Scaled cosine similarity of x [..., E] with every text [V, E]."""
  return layers.learned_scale(module, name) * (
    layers.unit(x) @ layers.unit(text).T
  )
