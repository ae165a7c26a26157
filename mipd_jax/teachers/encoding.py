"""The frozen encoders as compiled functions of a batch of pixels or texts."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from input_pipeline import schema
from input_pipeline.feature_cache import STUDENT, TEACHER, ZERO_SHOT, Field
from mipd_jax import sharding
from mipd_jax.teachers.labels import TextEncoder


class Encoder(TextEncoder, Protocol):
  """What a cache needs of `teachers.clip.Clip`; see there for the shapes."""

  name: str
  revision: str
  image_size: int
  logit_scale: float

  def image_features(
    self, params: dict, pixels: jax.Array
  ) -> tuple[jax.Array, jax.Array]: ...

  def text_tokens(
    self, params: dict, ids: jax.Array, mask: jax.Array
  ) -> jax.Array: ...


class Encoders:
  """The frozen encoders on a mesh: pixels and texts in, features out.

  `encode` only starts the arithmetic; reading a value waits for it. What
  comes out for a key does not depend on which other keys are asked for.
  """

  def __init__(
    self,
    student: Encoder,
    teacher: Encoder,
    text: Encoder,
    teacher_verb_text: np.ndarray,
    mesh: Mesh,
    dtype: str,
  ):
    """`teacher_verb_text` [V, X] has unit rows; `dtype` is of the features."""
    self._student = student
    self._mesh = mesh
    self._sides = (student.image_size, teacher.image_size)
    whole = sharding.replicated(mesh)
    self._student_params = jax.device_put(student.params, whole)
    self._teacher_params = jax.device_put(teacher.params, whole)
    self._text_params = jax.device_put(text.params, whole)
    self._verb_text = jax.device_put(teacher_verb_text, whole)
    self._see_student = jax.jit(student_view(student, dtype))
    self._see_teacher = jax.jit(teacher_view(teacher, dtype))
    self._read = jax.jit(rationale_view(text, dtype))

  def encode(
    self,
    parts: Sequence[str],
    pixels: Mapping[int, np.ndarray],
    texts: tuple[np.ndarray, np.ndarray] | None,
  ) -> dict[str, jax.Array]:
    """Features of a batch for the given parts of the cache.

    Args:
      parts: of `feature_cache.PARTS`.
      pixels: uint8 [B, s, s, 3] by canvas side.
      texts: ids int32 and mask bool [B, 4, L], for the part `teacher`.
    """
    features = {}
    if STUDENT in parts:
      batch = self._put(pixels=pixels[self._sides[0]])
      features |= self._see_student(self._student_params, batch)
    if TEACHER in parts or ZERO_SHOT in parts:
      batch = self._put(pixels=pixels[self._sides[1]])
      features |= self._see_teacher(
        self._teacher_params, self._verb_text, batch
      )
    if TEACHER in parts:
      batch = self._put(ids=texts[0], mask=texts[1])
      features |= self._read(self._text_params, batch)
    return features

  def _put(self, **batch: np.ndarray) -> dict[str, jax.Array]:
    return sharding.put_batch(self._mesh, batch)


def student_view(student: Encoder, dtype: str) -> Callable:
  """(params, {pixels}) -> {student_tokens [B, N, S]}."""

  def view(params, batch):
    tokens, _ = student.image_features(params, batch["pixels"])
    return {schema.STUDENT_TOKENS: tokens.astype(dtype)}

  return view


def teacher_view(teacher: Encoder, dtype: str) -> Callable:
  """(params, verb_text [V, X], {pixels}) -> {teacher_tokens, verb_logits}.

  The logits are CLIP's: scaled cosines of image and label (Radford et al.
  2021, figure 3).
  """

  def view(params, verb_text, batch):
    tokens, image = teacher.image_features(params, batch["pixels"])
    image = image.astype(jnp.float32)
    image /= jnp.linalg.norm(image, axis=-1, keepdims=True)
    logits = teacher.logit_scale * image @ verb_text.T
    return {
      schema.TEACHER_TOKENS: tokens.astype(dtype),
      schema.VERB_LOGITS: logits.astype(jnp.float32),
    }

  return view


def rationale_view(text: Encoder, dtype: str) -> Callable:
  """(params, {ids, mask} [B, 4, L]) -> {rationale_tokens, rationale_mask}.

  Filler tokens are zero.
  """

  def view(params, batch):
    ids, mask = batch["ids"], batch["mask"]
    flat = (-1, ids.shape[-1])
    tokens = text.text_tokens(params, ids.reshape(flat), mask.reshape(flat))
    tokens = jnp.where(mask.reshape(flat)[..., None], tokens, 0)
    return {
      schema.RATIONALE_TOKENS: tokens.reshape(*ids.shape, -1).astype(dtype),
      schema.RATIONALE_MASK: mask,
    }

  return view


def feature_fields(
  student: Encoder,
  teacher: Encoder,
  text: Encoder,
  num_verbs: int,
  text_length: int,
  dtype: str,
) -> tuple[Field, ...]:
  """Shape and dtype of every feature of one example, without arithmetic."""

  def pixels(clip: Encoder) -> dict:
    shape = (1, clip.image_size, clip.image_size, 3)
    return {"pixels": jax.ShapeDtypeStruct(shape, np.uint8)}

  shape = (1, len(schema.RATIONALES), text_length)
  tokens = {
    "ids": jax.ShapeDtypeStruct(shape, np.int32),
    "mask": jax.ShapeDtypeStruct(shape, np.bool_),
  }
  image = jax.eval_shape(
    teacher.image_features, teacher.params, pixels(teacher)["pixels"]
  )[1]
  bank = jax.ShapeDtypeStruct((num_verbs, image.shape[-1]), np.float32)
  shapes = {
    **jax.eval_shape(
      student_view(student, dtype), student.params, pixels(student)
    ),
    **jax.eval_shape(
      teacher_view(teacher, dtype), teacher.params, bank, pixels(teacher)
    ),
    **jax.eval_shape(rationale_view(text, dtype), text.params, tokens),
  }
  return tuple(
    Field(name, tuple(shapes[name].shape[1:]), str(shapes[name].dtype))
    for name in schema.FEATURES
  )
