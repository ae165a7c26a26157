"""MIPD of interactions: pairs of boxes where `mipd.Mipd` has roles.

The student's decoder has one query per pair; in the teacher branch each pair
reads inside its two boxes. The geometry features are those of Zhang et al.
2021, "Spatially conditioned graphs for detecting human-object interactions"
(section 3.3), without their logarithms of all features: areas and ratios only.
Boxes are shares of the canvas side.
"""

import math
from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from input_pipeline import schema
from mipd_jax.models import layers, outputs, visual_prompts
from mipd_jax.models.mipd import Mipd
from mipd_jax.models.student import Student
from mipd_jax.models.teaching.teacher_branch import TeacherBranch

FEATURES = 19
_SMALL = 1e-4
_FAR = 5.0  # clips offsets and log ratios: a pair may be any two boxes


def features(pairs: Float[Array, "*b 8"]) -> Float[Array, "*b 19"]:
  """Geometry of pairs, float32 values of about one.

  Args:
    pairs: cx cy w h of the person, then of the object.

  Returns:
    The eight numbers; cx cy w h of the box around both; the object's centre
    minus the person's, in widths and heights of the person; logarithms of the
    ratios of widths and of heights, object to person; square roots of both
    areas; IoU.
  """
  pairs = pairs.astype(jnp.float32)
  person, thing = pairs[..., :4], pairs[..., 4:]
  a, b = visual_prompts.corners(person), visual_prompts.corners(thing)
  low = jnp.minimum(a[..., :2], b[..., :2])
  high = jnp.maximum(a[..., 2:], b[..., 2:])
  around = jnp.concatenate([(low + high) / 2, high - low], axis=-1)
  size = jnp.maximum(person[..., 2:], _SMALL)
  offset = (thing[..., :2] - person[..., :2]) / size
  ratio = jnp.log(jnp.maximum(thing[..., 2:], _SMALL) / size)
  areas = jnp.stack([_area(person), _area(thing)], axis=-1)
  meet = jnp.maximum(
    jnp.minimum(a[..., 2:], b[..., 2:]) - jnp.maximum(a[..., :2], b[..., :2]), 0
  )
  shared = meet[..., 0] * meet[..., 1]
  union = areas.sum(axis=-1) - shared
  iou = shared / jnp.maximum(union, _SMALL**2)
  return jnp.concatenate(
    [
      pairs,
      around,
      jnp.clip(offset, -_FAR, _FAR),
      jnp.clip(ratio, -_FAR, _FAR),
      jnp.sqrt(areas),
      iou[..., None],
    ],
    axis=-1,
  )


def _area(boxes_cxcywh: Float[Array, "*b 4"]) -> Float[Array, "*b"]:
  return jnp.maximum(boxes_cxcywh[..., 2] * boxes_cxcywh[..., 3], 0)


def inside(
  pairs: Float[Array, "b p 8"], grid: int
) -> tuple[Bool[Array, "b p g*g"], Bool[Array, "b p g*g"]]:
  """Cells of a square grid that lie in the person's and the object's box.

  Every box has at least one.
  """

  def cells(boxes: Array) -> Int[Array, "b p 4"]:
    return visual_prompts.box_cells(visual_prompts.corners(boxes), grid)

  def flat(boxes: Array) -> Bool[Array, "b p g*g"]:
    mask = visual_prompts.box_cell_mask(cells(boxes), grid)
    return mask.reshape(*mask.shape[:-2], grid * grid)

  return flat(pairs[..., :4]), flat(pairs[..., 4:])


# Key of the banks: which object an interaction is with.
VERB_OBJECT = "verb_object"  # int32 [V]
# Initial share of hits among (pair, interaction): about one in 50.
_FIRST_BIAS = -4.0


class PairStudent(Student):
  """Image tokens, pairs of boxes and text banks to each pair's interactions.

  The encoder's projection, the image's own embedding and the decoder are
  `Student`'s; a query is made of what a pair of boxes shows, not of a role's
  name. `banks` holds `verb_text` [V, E] (the interactions' texts),
  `verb_object` [V] and `noun_text` [O, E] (the objects'), of any lists.
  """

  @nn.compact
  def __call__(
    self,
    tokens_BxNxS: Float[Array, "b n s"],
    pairs: Mapping[str, Array],
    banks: Mapping[str, Array],
    *,
    train: bool = False,
  ) -> dict[str, Array]:
    """Returns the student half of `models.outputs` for interactions.

    Args:
      tokens_BxNxS: image tokens, class token first.
      pairs: PAIR_BOXES, PAIR_OBJECT, PAIR_MASK of the batch contract.
      banks: text embeddings of the vocabulary.
      train: whether dropout is on (RNG stream "dropout").
    """
    tokens, memory = self._read(tokens_BxNxS, train)
    result = self._verb(tokens, memory, banks["verb_text"], train)
    queries = self._pair_queries(tokens, pairs, banks["noun_text"], train)
    decoded = self._decode(queries, memory, pairs[schema.PAIR_MASK], train)
    scene = result[outputs.VERB_SCORES]
    return result | self._interactions(decoded, scene, pairs, banks)

  def _pair_queries(self, tokens, pairs, noun_text, train):
    """One query per pair, [B, P, D], from tokens [B, N, D].

    Made of where its boxes are, what they show (the mean of the image tokens
    inside each box) and the object's name.
    """
    grid = math.isqrt(tokens.shape[1] - 1)
    boxes = pairs[schema.PAIR_BOXES]
    person, thing = inside(boxes, grid)
    patches = tokens[:, 1:]

    def pooled(mask):
      share = mask / jnp.maximum(mask.sum(axis=-1, keepdims=True), 1)
      return jnp.einsum("bpn,bnd->bpd", share.astype(self.dtype), patches)

    text = layers.unit(noun_text)[jnp.maximum(pairs[schema.PAIR_OBJECT], 0)]
    # Unit vectors have entries of about 1/sqrt(E); bring them to about one.
    gain = jnp.sqrt(text.shape[-1]).astype(jnp.float32)
    shown = jnp.concatenate(
      [
        pooled(person),
        pooled(thing),
        (gain * text).astype(self.dtype),
        features(boxes).astype(self.dtype),
      ],
      axis=-1,
    )
    return layers.Mlp(
      (2 * self.config.hidden, self.config.hidden),
      self.config.dropout.decoder,
      self.dtype,
      name="pair_query",
    )(shown, train=train)

  def _interactions(self, decoded, scene, pairs, banks):
    """Similarity of decoded [B, P, D] with the interactions of its object.

    The image's own scores, `scene` [B, V], are added with one learned weight,
    zero at first.
    """
    width = banks["verb_text"].shape[-1]
    embedding = layers.Linear(width, self.dtype, name="pair_out")(decoded)
    embedding = embedding.astype(jnp.float32)
    text = layers.unit(banks["verb_text"])
    bias = self.param("pair_bias", nn.initializers.constant(_FIRST_BIAS), ())
    share = self.param("scene_share", nn.initializers.zeros, ())
    scores = layers.learned_scale(self, "pair_scale") * (
      layers.unit(embedding) @ text.T
    )
    scores = scores + bias + share * scene.astype(jnp.float32)[:, None]
    return {
      outputs.PAIR_EMBEDDING: embedding,
      outputs.PAIR_SCORES: of_the_object(scores, pairs, banks),
    }


def of_the_object(
  scores: Float[Array, "b #p v"],
  pairs: Mapping[str, Array],
  banks: Mapping[str, Array],
) -> Float[Array, "b p v"]:
  """Scores of interactions with a pair's own object; NEVER for all others."""
  own = pairs[schema.PAIR_OBJECT][..., None] == banks[VERB_OBJECT]
  own = own & pairs[schema.PAIR_MASK][..., None]
  return jnp.where(own, scores, outputs.NEVER)


class PairTeacherBranch(TeacherBranch):
  """`TeacherBranch` with pairs in the place of roles.

  The instance prompt is stretched into every person's and every object's
  box. A pair's query is its object's text and what it reads of the gaze
  rationale; it reads the tokens inside its two boxes.
  """

  def _slot_text(self, batch, banks):
    objects = jnp.maximum(batch[schema.PAIR_OBJECT], 0)
    return layers.unit(banks["noun_text"])[objects]

  def _prompted_boxes(self, batch):
    boxes, mask = batch[schema.PAIR_BOXES], batch[schema.PAIR_MASK]
    both = jnp.concatenate([boxes[..., :4], boxes[..., 4:]], axis=1)
    mask = jnp.concatenate([mask, mask], axis=1)
    return visual_prompts.corners(both), mask

  def _inside(self, batch: Mapping[str, Array]) -> Bool[Array, "b p m"]:
    """Tokens that a pair may read: those in either box, all for filler."""
    grid = math.isqrt(batch[schema.TEACHER_TOKENS].shape[1] - 1)
    person, thing = inside(batch[schema.PAIR_BOXES], grid)
    filler = ~batch[schema.PAIR_MASK][..., None]
    return jnp.concatenate([filler, person | thing | filler], axis=-1)

  def _gaze_scores(self, target, batch, banks):
    bias = self.param("gaze_bias", nn.initializers.constant(_FIRST_BIAS), ())
    text = layers.unit(banks["verb_text"])
    scores = layers.learned_scale(self, "gaze_scale") * (
      layers.unit(target) @ text.T
    )
    return {
      outputs.TEACHER_PAIR_SCORES: of_the_object(scores + bias, batch, banks)
    }


class PairMipd(Mipd):
  """Batches with pairs to the outputs of `models.outputs`; see `Mipd`."""

  student_type: ClassVar[type[nn.Module]] = PairStudent
  teacher_type: ClassVar[type[nn.Module]] = PairTeacherBranch
  has_roles: ClassVar[bool] = False

  def predict(
    self,
    batch: Mapping[str, Array],
    banks: Mapping[str, Array],
    *,
    train: bool = False,
  ) -> dict[str, Array]:
    pairs = {key: batch[key] for key in schema.PAIR_ANNOTATIONS if key in batch}
    tokens = self.eyes(batch, train=train)
    return self.student(tokens, pairs, banks, train=train)
