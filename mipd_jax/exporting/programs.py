"""Pixels to verbs, nouns and boxes as one exported program.

It is made of the predictor's own functions. Free sizes: b images and, where
words are passed, v verbs, q roles and n nouns. Words are passed as arrays:

| name | shape and dtype | meaning |
|---|---|---|
| verb_text | float32 [v, E] | embedding of each verb |
| verb_mask | bool [v] | False for filler |
| verb_row | int32 [v] | the verb whose role queries are asked |
| roles | int32 [v, 6] | each verb's frame, rows of role_text; -1: no role |
| role_text | float32 [q, E] | embedding of each role |
| noun_text | float32 [n, E] | embedding of each noun |
| noun_column | int32 [n] | its class of training, 0 for a new word |
| noun_mask | bool [n] | False for filler |
| noun_bank | float32 [C, E] | embeddings of training's classes |
| by_text | bool [] | whether nouns are compared by text alone |
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
from input_pipeline.schema import MAX_ROLES
from mipd_jax.exporting import weights as weights_lib
from mipd_jax.inference import programs
from mipd_jax.inference.lexicon import Lexicon
from mipd_jax.inference.workdir import Opened
from mipd_jax.models import eyes as eyes_lib
from mipd_jax.teachers import encoding

PLATFORMS = ("cpu", "cuda", "tpu")
# Prefixes of the parameters' names.
ENCODER, STUDENT = "clip", "student"
# Inputs after the weights (and words), in this order.
INPUTS = {
  "pixels": "uint8 [b, side, side, 3]: RGB, letterboxed as predict.py does it",
  "image_size": "int32 [b, 2]: height and width of the originals",
  "verb": "int32 [b]: the verb that is known, or -1 for the best one",
}
# Output name -> meaning, for the model card and the labels.
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
  """All parameters of the program by name, in the predictor's dtypes."""
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
    opened: the student; its parameters are not read.
    dtypes: of `parameters`.
    top_k: guesses of verbs, and of nouns for each role.
    by_text: how nouns are compared; None: as `words` says.

  Returns:
    (weights, words, pixels uint8 [b, s, s, 3], image_size int32 [b, 2]
    (height, width), verb int32 [b]) -> OUTPUTS. `weights` is from
    `weights.stored`, `words` from `arrays`; a negative verb asks for the
    best verb's frame.
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
    words: arrays of the list; their values matter only if they are baked.
    baked: whether the words are inside; then they are no argument.
  """
  rule = bool(words["by_text"]) if baked else None
  program = make(opened, dtypes, top_k, rule)
  names, least = ("b",), ()
  if not baked:
    names = (*names, *FREE)
    least = (f"v >= {top_k}", f"n >= {top_k}")
  dimensions = export.symbolic_shape(", ".join(names), constraints=least)
  sizes = dict(zip(names, dimensions, strict=True))
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
        for size, length in zip(SHAPES[name], array.shape, strict=True)
      ),
      array.dtype,
    )
    for name, array in words.items()
  }
  return export.export(jax.jit(program), platforms=PLATFORMS)(
    given, free, *rest
  )


def _see(opened: Opened, params: Any, pixels: Array) -> dict[str, Array]:
  """What the student's eyes read, [b, ...] by key, as the cache has it.

  In one program with the student, compilers may drop a conversion to
  bfloat16 and back as a round trip; they keep this rounding.
  """
  dtype = opened.token_dtype
  eyes = eyes_lib.of(opened.model.config)
  features = encoding.student_features(opened.encoder, eyes, params, pixels)
  return encoding.as_cached(
    {key: _rounded(x, dtype) for key, x in features.items()}, dtype
  )


def _rounded(features: Array, dtype: str) -> Array:
  """Floats rounded to a dtype, kept in float32; int8 rounds later."""
  if dtype == INT8 or not jnp.issubdtype(features.dtype, jnp.floating):
    return features
  digits = jnp.finfo(dtype)
  return jax.lax.reduce_precision(
    features.astype(jnp.float32), digits.nexp, digits.nmant
  )


def _fill(opened: Opened, top_k: int, by_text: bool | None) -> Callable:
  """(by_text, arguments of `programs.fill_roles`) -> its result."""
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


FREE = _V, _Q, _N = "v", "q", "n"  # free sizes when words are passed
SHAPES: dict[str, tuple[str | None, ...]] = {
  "verb_text": (_V, None),
  "verb_mask": (_V,),
  "verb_row": (_V,),
  "roles": (_V, None),
  "role_text": (_Q, None),
  "noun_text": (_N, None),
  "noun_column": (_N,),
  "noun_mask": (_N,),
  "noun_bank": (None, None),
  "by_text": (),
}
Arrays = dict[str, np.ndarray]


def arrays(lexicon: Lexicon, least: int) -> Arrays:
  """The arrays of a list.

  Args:
    lexicon: the words.
    least: rows that lists have at least, padded with filler.
  """
  nouns = lexicon.nouns
  verbs, used = len(lexicon.verbs), len(nouns.names)
  rows = max(verbs, least)
  roles = np.full((rows, MAX_ROLES), -1, np.int32)
  for frame, row in zip(lexicon.frames, roles, strict=False):
    row[: len(frame.rows)] = frame.rows
  result = {
    "verb_text": _rows(lexicon.verb_text[:verbs], rows),
    "verb_mask": np.arange(rows) < verbs,
    "verb_row": _rows(np.array(lexicon.verb_rows, np.int32), rows),
    "roles": roles,
    "role_text": lexicon.banks["role_text"],
    "noun_text": _rows(nouns.arrays["text"][:used], max(used, least)),
    "noun_column": _rows(nouns.arrays["column"][:used], max(used, least)),
    "noun_mask": np.arange(max(used, least)) < used,
    "noun_bank": lexicon.banks["noun_text"],
    "by_text": np.array(nouns.rule == programs.BY_TEXT),
  }
  return {name: np.asarray(x, order="C") for name, x in result.items()}


def labels(lexicon: Lexicon) -> dict[str, list]:
  """The words themselves, in the order of the arrays' rows."""
  return {
    "verbs": list(lexicon.verbs),
    "frames": [list(frame.roles) for frame in lexicon.frames],
    "abstracts": [frame.abstract for frame in lexicon.frames],
    "nouns": list(lexicon.nouns.names),
    "noun_classes": list(lexicon.nouns.classes),
  }


def _rows(array: np.ndarray, count: int) -> np.ndarray:
  filler = [(0, count - len(array))] + [(0, 0)] * (array.ndim - 1)
  return np.pad(array, filler)
