"""Pixels to verbs, nouns and boxes as one exported program.

It is made of the predictor's own functions. Sizes that stay free: b images
and, where words are passed, v verbs, q roles and n nouns.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import Array

from input_pipeline import schema
from input_pipeline.feature_cache.int8 import INT8
from mipd_jax.exporting import weights as weights_lib
from mipd_jax.exporting import word_arrays as words_lib
from mipd_jax.inference import programs
from mipd_jax.inference.workdir import Opened
from mipd_jax.models import eyes as eyes_lib
from mipd_jax.teachers import encoding

PLATFORMS = ("cpu", "cuda", "tpu")
# What the parameters' names begin with.
ENCODER, STUDENT = "clip", "student"
# What goes in beside weights (and words), in this order.
INPUTS = {
  "pixels": "uint8 [b, side, side, 3]: RGB, letterboxed as predict.py does it",
  "image_size": "int32 [b, 2]: height and width of the originals",
  "verb": "int32 [b]: the verb that is known, or -1 for the best one",
}
# Name -> what comes out, for the model card and the labels.
OUTPUTS = {
  "verb": "int32 [b]: the verb whose frame is filled",
  "verb_index": "int32 [b, k]: the best verbs, the best first",
  "verb_probability": "float32 [b, k]: of them, among all verbs",
  "noun_index": "int32 [b, 6, k]: the best nouns of each role slot",
  "noun_probability": "float32 [b, 6, k]: of them, among all nouns",
  "box": "float32 [b, 6, 4]: cx, cy, w, h as shares of the canvas side",
  "confidence": "float32 [b, 6]: logit that there is a box to draw",
}


def parameters(opened: Opened) -> weights_lib.Arrays:
  """All that the program reads, by name, in the dtypes of the predictor."""
  eyes = eyes_lib.of(opened.model.config)
  image_side = opened.encoder.image_params if eyes.uses_encoder else {}
  return weights_lib.flat({ENCODER: image_side, STUDENT: opened.params})


def make(
  opened: Opened,
  dtypes: Mapping[str, np.dtype],
  top_k: int,
  by_text: bool | None = None,
) -> Callable[..., dict[str, Array]]:
  """The program, to be traced.

  Args:
    opened: the student; of its parameters nothing is read.
    dtypes: of `parameters`.
    top_k: guesses of verbs, and of nouns for each role.
    by_text: how nouns are compared; as `words` says if None.

  Returns:
    (weights, words, pixels uint8 [b, s, s, 3], image_size int32 [b, 2]
    (height, width), verb int32 [b]) -> OUTPUTS. `weights` is
    `weights.stored`, `words` is `words.arrays`; a negative verb asks for the
    best one's frame.
  """
  rank = programs.rank_verbs(opened.model, top_k)
  fill = _fill(opened, top_k, by_text)

  def program(weights, words, pixels, image_size, verb):
    params = weights_lib.restored(weights, dtypes)
    seen = _see(opened, params.get(ENCODER, {}), pixels)
    banks = {name: words[name] for name in ("verb_text", "role_text")}
    banks["noun_text"] = words["noun_bank"]
    student = params[STUDENT]
    verbs = rank(student, seen, banks, words["verb_mask"])
    chosen = jnp.where(verb < 0, verbs["verb"][:, 0], verb)
    roles = words["roles"][chosen]
    frames = {
      schema.VERB: words["verb_row"][chosen],
      schema.ROLES: roles,
      schema.ROLE_MASK: roles >= 0,
      schema.IMAGE_SIZE: image_size,
    }
    nouns = {name: words[f"noun_{name}"] for name in ("text", "column", "mask")}
    filled = fill(words["by_text"], student, seen, frames, banks, nouns)
    return {
      "verb": chosen,
      "verb_index": verbs["verb"],
      "verb_probability": verbs["probability"],
      "noun_index": filled["noun"],
      "noun_probability": filled["probability"],
      "box": filled["box"],
      "confidence": filled["confidence"],
    }

  return program


def exported(
  opened: Opened,
  weights: Mapping[str, Any],
  dtypes: Mapping[str, np.dtype],
  words: Mapping[str, np.ndarray],
  top_k: int,
  *,
  baked: bool,
) -> export.Exported:
  """Traces the program for all platforms, with free sizes.

  Args:
    weights: arrays or shapes, as they will be passed.
    dtypes: of `parameters`.
    words: arrays of the list; their values count only where they are baked.
    baked: whether the words are inside. Then they are no argument.
  """
  rule = bool(words["by_text"]) if baked else None
  program = make(opened, dtypes, top_k, rule)
  names, least = ("b",), ()
  if not baked:
    names = (*names, *words_lib.FREE)
    least = (f"v >= {top_k}", f"n >= {top_k}")
  found = export.symbolic_shape(", ".join(names), constraints=least)
  sizes = dict(zip(names, found, strict=True))
  b = sizes["b"]
  side = opened.encoder.image_size
  rest = (
    jax.ShapeDtypeStruct((b, side, side, 3), np.uint8),
    jax.ShapeDtypeStruct((b, 2), np.int32),
    jax.ShapeDtypeStruct((b,), np.int32),
  )
  given = jax.tree.map(_shape, dict(weights))
  if baked:

    def with_words(weights, pixels, image_size, verb):
      inside = jax.tree.map(jnp.asarray, dict(words))
      return program(weights, inside, pixels, image_size, verb)

    return export.export(jax.jit(with_words), platforms=PLATFORMS)(given, *rest)
  free = {
    name: jax.ShapeDtypeStruct(
      tuple(
        sizes.get(size, length)
        for size, length in zip(
          words_lib.SHAPES[name], array.shape, strict=True
        )
      ),
      array.dtype,
    )
    for name, array in words.items()
  }
  return export.export(jax.jit(program), platforms=PLATFORMS)(
    given, free, *rest
  )


def _see(opened: Opened, params: Any, pixels: Array) -> dict[str, Array]:
  """What the student's eyes read, as the cache has it.

  In one program with the student, compilers may drop a conversion to
  bfloat16 and back as a round trip; this rounding they keep.
  """
  dtype = opened.token_dtype
  eyes = eyes_lib.of(opened.model.config)
  found = encoding.student_features(opened.encoder, eyes, params, pixels)
  return encoding.as_cached(
    {key: _rounded(x, dtype) for key, x in found.items()}, dtype
  )


def _rounded(features: Array, dtype: str) -> Array:
  """Floats at the precision of a dtype, in float32; int8 rounds later."""
  if dtype == INT8 or not jnp.issubdtype(features.dtype, jnp.floating):
    return features
  digits = jnp.finfo(dtype)
  return jax.lax.reduce_precision(
    features.astype(jnp.float32), digits.nexp, digits.nmant
  )


def _fill(opened: Opened, top_k: int, by_text: bool | None) -> Callable:
  """(by_text, arguments of `programs.fill_roles`) -> what that gives."""
  known, free = (
    programs.fill_roles(opened.model, rule, top_k)
    for rule in (programs.AS_EVALUATED, programs.BY_TEXT)
  )
  if by_text is not None:
    return lambda _, *arguments: (free if by_text else known)(*arguments)
  return lambda chosen, *arguments: jax.lax.cond(
    chosen, free, known, *arguments
  )


def _shape(array: Any) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(array.shape, array.dtype)
