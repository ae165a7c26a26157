"""The frozen encoders as compiled functions of a batch of pixels or texts."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from input_pipeline import schema
from input_pipeline.feature_cache import (
  ANSWERS,
  CLIP_LOGITS,
  INSTANCE_TEXT,
  PARTS,
  TEACHER,
  TEXT,
  VERB_LOGITS,
  Field,
  parts_of,
)
from input_pipeline.feature_cache.int8 import INT8, LEVELS, scale_name
from input_pipeline.io.errors import InputError
from mipd_jax.devices import sharding
from mipd_jax.models.eyes import ENCODER_TOKENS, Eyes
from mipd_jax.teachers.answers import Asker
from mipd_jax.teachers.checkpoints import hf_weights
from mipd_jax.teachers.interfaces import (
  Encoder,
  ImageTeacher,
  Instances,
  Params,
)

# The verbs in the student encoder's own text space.
CLIP_VERB_TEXT = "clip_verb_text"
_ERROR = "_error"
_SENTENCE_LENGTH = 40
Features = dict[str, jax.Array]


class Encoders:
  """The frozen encoders on a mesh: pixels and texts in, features out.

  `encode` only starts the arithmetic; reading a value waits for it. A key's
  features do not depend on the other keys of the call.
  """

  def __init__(
    self,
    student: Encoder,
    teacher: ImageTeacher,
    text: Encoder,
    verbs: Sequence[str],
    bank: Mapping[str, np.ndarray],
    mesh: Mesh,
    dtype: str,
    eyes: Eyes = ENCODER_TOKENS,
    asker: Asker | None = None,
  ):
    """`bank` serves the logits of `verbs`; `dtype` is of the features."""
    self.asker = asker
    self._mesh = mesh
    self._student_parts = (*parts_of(eyes.keys), CLIP_LOGITS)
    self._sides = (student.image_size, teacher.image_size)
    whole = sharding.replicated(mesh)
    self._student_params = jax.device_put(student.params, whole)
    self._text_params = jax.device_put(text.params, whole)
    self._teacher_params = jax.device_put(
      teacher.params, teacher.shardings(mesh)
    )
    self._names = {
      **dict.fromkeys(self._student_parts, student.name),
      **dict.fromkeys((TEACHER, VERB_LOGITS, ANSWERS), teacher.name),
      **dict.fromkeys((TEXT, INSTANCE_TEXT), text.name),
    }
    self._clip_text = jax.device_put(bank[CLIP_VERB_TEXT], whole)
    self._programs = {
      "student": _Program(student_view(student, dtype, eyes)),
      "see": _Program(lambda params, batch: teacher.see(params, **batch)),
      "keep": _Program(lambda seen: teacher_view(seen, dtype)),
      "score": _Program(teacher.scorer(verbs, bank)),
      "read": _Program(rationale_view(text, dtype)),
      "tell": _Program(sentence_view(text, dtype)),
    }
    if asker:
      self._programs["ask"] = _Program(asker.program)

  @property
  def flops(self) -> float:
    """Operations of one device so far, by the compiler's count."""
    return sum(program.flops for program in self._programs.values())

  def encode(
    self,
    parts: Sequence[str],
    pixels: Mapping[int, np.ndarray],
    texts: tuple[np.ndarray, np.ndarray] | None,
    instances: Instances | None = None,
    sentences: Mapping[str, np.ndarray] | None = None,
  ) -> Features:
    """Features of a batch for the given parts of the cache.

    Args:
      parts: of `feature_cache.PARTS`.
      pixels: uint8 [B, s, s, 3] by canvas side.
      texts: ids int32 and mask bool [B, 4, L], for the part `text`.
      instances: of these images, for the part `answers`.
      sentences: ids int32, mask bool [B, I, 2, L] and there bool [B, I, 2], for
        the part `instance_text`.

    Returns:
      The fields of the parts; for those stored as int8 also their squared
      error and square, float32 [B, 2], by `error_name`.
    """
    features: Features = {}
    run = self._programs
    if set(self._student_parts) & set(parts):
      batch = self._put(pixels=pixels[self._sides[0]])
      features |= run["student"](self._student_params, self._clip_text, batch)
    asked = self.asker if ANSWERS in parts else None
    seen = None
    if (
      TEACHER in parts or VERB_LOGITS in parts or (asked and asked.needs_tokens)
    ):
      batch = self._put(pixels=pixels[self._sides[1]])
      seen = run["see"](self._teacher_params, batch)
      if TEACHER in parts:
        kept = {k: seen[k] for k in ("kept", "tokens") if k in seen}
        features |= run["keep"](kept)
      if VERB_LOGITS in parts:
        logits = run["score"](self._teacher_params, seen)
        features[schema.VERB_LOGITS] = logits
    if asked:
      features |= asked.answers(
        run["ask"],
        self._teacher_params,
        seen["tokens"] if asked.needs_tokens else None,
        pixels[asked.canvas],
        instances,
      )
    if TEXT in parts:
      batch = self._put(ids=texts[0], mask=texts[1])
      features |= run["read"](self._text_params, batch)
    if INSTANCE_TEXT in parts:
      batch = self._put(**sentences)
      features |= run["tell"](self._text_params, batch)
    return features

  def check(
    self, part: str, rows: Mapping[str, np.ndarray], images: Sequence[str]
  ) -> None:
    """Raises for features that are NaN or infinite.

    It checks the arrays fetched for writing, so it waits for nothing. Of tokens
    stored as int8 it checks the scales.

    Args:
      part: of `feature_cache.PARTS`.
      rows: its fields, name -> [B, ...], on the host.
      images: the names of the B images.

    Raises:
      InputError: names the encoder and the first such image.
    """
    for name, values in rows.items():
      if hf_weights.all_finite(values):
        continue
      bad = [
        image
        for image, row in zip(images, values, strict=True)
        if not hf_weights.all_finite(row)
      ]
      is_text = part in (TEXT, INSTANCE_TEXT)
      what = "the rationales of image" if is_text else "image"
      raise InputError(
        f"{self._names[part]} gives NaN or infinite {name} for {what} "
        f"{bad[0]} and {len(bad) - 1} others of its batch",
        "check the encoder's weights and config.json; where its numbers are "
        "too large for the dtype, use float32 or bfloat16",
      )

  def _put(self, **batch: np.ndarray) -> dict[str, jax.Array]:
    return sharding.put_batch(self._mesh, batch)


class _Program:
  """A function compiled at the first call of each shape; counts operations.

  The first argument, the parameters, always has the same shapes.
  """

  def __init__(self, function: Callable):
    self._jitted = jax.jit(function)
    self._compiled: dict[Any, tuple[Any, float]] = {}
    self.flops = 0.0

  def __call__(self, *args: Any) -> Any:
    shapes = tuple(np.shape(leaf) for leaf in jax.tree.leaves(args[1:]))
    if shapes not in self._compiled:
      compiled = self._jitted.lower(*args).compile()
      costs = compiled.cost_analysis() or {}
      self._compiled[shapes] = compiled, float(costs.get("flops", 0.0))
    compiled, flops = self._compiled[shapes]
    self.flops += flops
    return compiled(*args)


def student_view(
  student: Encoder, dtype: str, eyes: Eyes = ENCODER_TOKENS
) -> Callable:
  """(params, verb_text [V, X], {pixels}) -> what the eyes read, clip_logits."""

  def view(params, verb_text, batch):
    pixels = batch["pixels"]
    tokens, image = student.image_features(params, pixels)
    logits = zero_shot_logits(image, verb_text, student.logit_scale)
    features = eyes.features(pixels, tokens if eyes.uses_encoder else None)
    return {**all_stored(features, dtype), schema.CLIP_LOGITS: logits}

  return view


def student_features(
  student: Encoder, eyes: Eyes, params: Params, pixels: jax.Array
) -> Features:
  """What the student's eyes read of uint8 pixels [B, s, s, 3], unrounded."""
  tokens = student.image_tokens(params, pixels) if eyes.uses_encoder else None
  return eyes.features(pixels, tokens)


def zero_shot_logits(
  image: jax.Array, text: np.ndarray | jax.Array, scale: float
) -> jax.Array:
  """Embeddings [B, X], unit rows [V, X] -> CLIP's logits float32 [B, V]."""
  image = image.astype(jnp.float32)
  image /= jnp.linalg.norm(image, axis=-1, keepdims=True)
  return (scale * image @ text.T).astype(jnp.float32)


def teacher_view(seen: Mapping[str, jax.Array], dtype: str) -> Features:
  """{tokens [B, M, T]} -> {teacher_tokens}.

  Where layers stay open, the tokens that these read ("kept").
  """
  kept = seen.get("kept", seen["tokens"])
  return stored(schema.TEACHER_TOKENS, kept, dtype)


def rationale_view(text: Encoder, dtype: str) -> Callable:
  """(params, {ids, mask} [B, 4, L]) -> {rationale_tokens, rationale_mask}.

  Filler tokens are zero.
  """

  def view(params, batch):
    ids, mask = batch["ids"], batch["mask"]
    flat = (-1, ids.shape[-1])
    tokens = text.text_tokens(params, ids.reshape(flat), mask.reshape(flat))
    tokens = jnp.where(mask.reshape(flat)[..., None], tokens, 0)
    tokens = tokens.reshape(*ids.shape, -1)
    return {
      **stored(schema.RATIONALE_TOKENS, tokens, dtype),
      schema.RATIONALE_MASK: mask,
    }

  return view


def sentence_length(text: Encoder) -> int:
  """Tokens kept of an instance's text."""
  return text.tokenize([""], _SENTENCE_LENGTH)[1].shape[1]


def tokenized_sentences(
  text: Encoder, told: Sequence[Sequence[tuple[str, str]]]
) -> dict[str, np.ndarray]:
  """Texts about B x I instances, positive and negative, for `sentence_view`.

  Returns:
    ids int32, mask bool [B, I, 2, L], and there bool [B, I, 2], False for "".
  """
  flat = [one for pairs in told for pair in pairs for one in pair]
  ids, mask = text.tokenize(flat, sentence_length(text))
  shape = (len(told), len(told[0]), 2)
  return {
    "ids": ids.reshape(*shape, -1),
    "mask": mask.reshape(*shape, -1),
    "there": np.array([bool(one) for one in flat]).reshape(shape),
  }


def sentence_view(text: Encoder, dtype: str) -> Callable:
  """(params, {ids, mask [B, I, 2, L], there [B, I, 2]}) -> the part's fields.

  Embeddings have unit length, and are zero where there is no text.
  """

  def view(params, batch):
    flat = (-1, batch["ids"].shape[-1])
    ids, mask = (batch[key].reshape(flat) for key in ("ids", "mask"))
    rows = text.text_embedding(params, ids, mask).astype(jnp.float32)
    rows /= jnp.linalg.norm(rows, axis=-1, keepdims=True)
    there = batch["there"]
    rows = jnp.where(there[..., None], rows.reshape(*there.shape, -1), 0)
    return {
      **stored(schema.INSTANCE_TEXT, rows, dtype),
      schema.INSTANCE_TEXT_MASK: there,
    }

  return view


def error_name(field: str) -> str:
  """Key of the error of a field that is stored as int8."""
  return field + _ERROR


def as_cached(features: Mapping[str, jax.Array], dtype: str) -> Features:
  """Features as the cache keeps them: rounded, int8 with scales."""
  kept = all_stored(features, dtype)
  return {key: x for key, x in kept.items() if not key.endswith(_ERROR)}


def all_stored(features: Mapping[str, jax.Array], dtype: str) -> Features:
  """`stored` of each, by name."""
  features_and_errors: Features = {}
  for name, values in features.items():
    features_and_errors |= stored(name, values, dtype)
  return features_and_errors


def stored(name: str, tokens: jax.Array, dtype: str) -> Features:
  """Tokens [B, ..., D] as the cache keeps them; int8 as in `int8.py`.

  Arrays that are not floats stay as they are.
  """
  if not jnp.issubdtype(tokens.dtype, jnp.floating):
    return {name: tokens}
  if dtype != INT8:
    return {name: tokens.astype(dtype)}
  tokens = tokens.astype(jnp.float32)
  scale = jnp.abs(tokens).max(axis=-1) / LEVELS
  # A token of zeros has scale 0 and codes 0.
  codes = jnp.round(tokens / jnp.maximum(scale, 1e-30)[..., None])
  error = tokens - codes * scale[..., None]
  axes = tuple(range(1, tokens.ndim))
  sums = [jnp.square(x).sum(axis=axes) for x in (error, tokens)]
  return {
    name: codes.astype(jnp.int8),
    scale_name(name): scale,
    error_name(name): jnp.stack(sums, axis=-1),
  }


def feature_fields(
  student: Encoder,
  teacher: ImageTeacher,
  text: Encoder,
  num_verbs: int,
  text_length: int,
  dtype: str,
  eyes: Eyes = ENCODER_TOKENS,
  answered: Collection[Field] = (),
  told: int = 0,
) -> tuple[Field, ...]:
  """Shape and dtype of every feature of one example; computes nothing.

  `answered`: those of the teacher's answers, from `answers.fields`; `told`: the
  instances of an image whose texts are embedded.
  """

  def pixels(side: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, side, side, 3), np.uint8)

  def see(params, pixels):
    return teacher_view(teacher.see(params, pixels), dtype)

  def look(params, pixels):
    features = student_features(student, eyes, params, pixels)
    return all_stored(features, dtype)

  shape = (1, len(schema.RATIONALES), text_length)
  tokens = {
    "ids": jax.ShapeDtypeStruct(shape, np.int32),
    "mask": jax.ShapeDtypeStruct(shape, np.bool_),
  }
  logits = jax.ShapeDtypeStruct((1, num_verbs), np.float32)
  shapes = {
    **jax.eval_shape(look, student.params, pixels(student.image_size)),
    **jax.eval_shape(see, teacher.params, pixels(teacher.image_size)),
    **jax.eval_shape(rationale_view(text, dtype), text.params, tokens),
    schema.VERB_LOGITS: logits,
    schema.CLIP_LOGITS: logits,
  }
  if told:
    length = sentence_length(text)
    sentences = {
      "ids": jax.ShapeDtypeStruct((1, told, 2, length), np.int32),
      "mask": jax.ShapeDtypeStruct((1, told, 2, length), np.bool_),
      "there": jax.ShapeDtypeStruct((1, told, 2), np.bool_),
    }
    shapes |= jax.eval_shape(sentence_view(text, dtype), text.params, sentences)
  keys = [key for names in PARTS.values() for key in names]
  names = [name for key in keys for name in (key, scale_name(key))]
  return (
    *(
      Field(name, tuple(shapes[name].shape[1:]), str(shapes[name].dtype))
      for name in names
      if name in shapes
    ),
    *answered,
  )
