"""What a frozen teacher answers when it is shown one instance of an image.

For every annotated box (or pair of boxes) the teacher is shown the instance
and asked what it is. Its distribution over the candidates, all that fill this
role in training, is kept as the best few and the mass of the rest.
"""

import dataclasses
import functools
import hashlib
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from input_pipeline import schema
from input_pipeline.feature_cache import Field
from input_pipeline.io.errors import InputError
from mipd_jax.devices import sharding
from mipd_jax.teachers import showing, token_boxes
from mipd_jax.teachers.interfaces import (
  ImageTeacher,
  Instances,
  InstanceSource,
  InstanceTeacher,
  Params,
)

_BATCH = 32  # instances of one call, on all devices


@dataclasses.dataclass(frozen=True)
class Showing:
  """How instances are shown, and how much of the answers is kept.

  Attributes:
    way: of `showing.WAYS`.
    margin: of `showing.shower`.
    top_k: J, the best answers that are kept.
  """

  way: str
  margin: float = 0.1
  top_k: int = 16


def fields(slots: int, top_k: int) -> tuple[Field, ...]:
  """Shape and dtype of an image's answers in the cache."""
  return (
    Field(schema.ANSWER_CLASSES, (slots, top_k), "int32"),
    Field(schema.ANSWER_LOG_SHARES, (slots, top_k), "float32"),
    Field(schema.ANSWER_LOG_REST, (slots,), "float32"),
  )


def options(source: InstanceSource, how: Showing) -> dict[str, str]:
  """What the answers depend on, for a cache's plan."""
  asked = [[k.question, k.classes.tolist(), k.names] for k in source.kinds]
  digest = hashlib.sha256(json.dumps(asked).encode()).hexdigest()
  questions = sorted({kind.question for kind in source.kinds})
  return {
    "instance_questions": f"{questions[0]} ... {digest[:16]}",
    "instance_show": f"{how.way} margin={how.margin:g} top_k={how.top_k}",
  }


def check_teacher(teacher: ImageTeacher, way: str) -> None:
  """Raises InputError if a teacher cannot be asked about instances in a way."""
  if not hasattr(teacher, "answer_scores"):
    raise InputError(
      f"{teacher.name} cannot be asked about instances",
      "give a BLIP-2 as --config.teacher.teacher_encoder, or leave "
      "--config.teacher.instances.show empty and --config.loss.answers=0",
    )
  if way == showing.TOKENS and not hasattr(teacher, "see_part"):
    raise InputError(
      f"{teacher.name} is a dual encoder: nothing has taught its tokens in a "
      "box to stand for themselves",
      "show instances otherwise: --config.teacher.instances.show=crop",
    )


class Asker:
  """Asks a teacher about instances, on a mesh.

  A batch's instances are asked kind by kind, `_BATCH` at a time: those of one
  kind share question and candidates.
  """

  def __init__(
    self,
    teacher: InstanceTeacher,
    source: InstanceSource,
    how: Showing,
    mesh: Mesh,
  ):
    check_teacher(teacher, how.way)
    self.source, self._how, self._mesh = source, how, mesh
    shards = mesh.shape[sharding.DATA]
    self._batch = _BATCH + -_BATCH % shards
    self._side = teacher.image_size
    texts = [kind.question for kind in source.kinds]
    ids, mask = teacher.questions(texts)
    length = int(mask.sum(axis=1).max())
    self._questions = np.asarray(ids)[:, :length], np.asarray(mask)[:, :length]
    self._teacher = teacher
    self._candidates: dict[int, Any] = {}
    how_many = how.top_k

    def best(params, seen, ids, mask, candidates, count):
      shape = (self._batch, ids.shape[0])
      question = tuple(jnp.broadcast_to(x, shape) for x in (ids, mask))
      scores = teacher.answer_scores(params, seen, question, candidates)
      there = jnp.arange(scores.shape[-1]) < count
      return top_shares(scores, there, how_many)

    def ask_tokens(params, tokens, images, boxes, *rest):
      chosen = tokens[images]
      covered = token_boxes.token_coverage(boxes, tokens.shape[1])
      return best(params, teacher.see_part(params, chosen, covered), *rest)

    def ask_pixels(params, pixels, boxes, *rest):
      show = showing.shower(how.way, self._side, how.margin)
      return best(params, teacher.see(params, show(pixels, boxes)), *rest)

    by_tokens = how.way == showing.TOKENS
    self.needs_tokens = by_tokens
    self._ask = ask_tokens if by_tokens else ask_pixels

  @property
  def canvas(self) -> int:
    """Side of the square images that are shown, pixels."""
    return showing.canvas_side(self._how.way, self._side)

  @property
  def program(self) -> Any:
    """The pure function to compile; see `encoding`."""
    return self._ask

  def answers(
    self,
    run: Any,
    params: Params,
    tokens: jax.Array | None,
    pixels: np.ndarray,
    found: Instances,
  ) -> dict[str, "_Later"]:
    """The answers' fields of a batch of images; starts all, waits for none.

    Args:
      run: the compiled `program`.
      params: the teacher's, on the mesh.
      tokens: [B, M, T], if `needs_tokens`.
      pixels: uint8 [B, s, s, 3], else; s is `canvas`.
      found: the instances of these B images.
    """
    pending = _Pending(found.kind.shape, self._how.top_k)
    for kind in np.unique(found.kind[found.kind >= 0]):
      image, slot = np.nonzero(found.kind == kind)
      for start in range(0, len(image), self._batch):
        some = slice(start, start + self._batch)
        at = image[some], slot[some]
        shown = self._shown(run, params, tokens, pixels, found.boxes, at, kind)
        pending.add(*at, shown, self.source.kinds[kind].classes)
    return pending.fields()

  def _shown(self, run, params, tokens, pixels, boxes, at, kind):
    image, slot = (np.resize(x, self._batch) for x in at)
    batch = {"boxes": boxes[image, slot]}
    if not self.needs_tokens:
      batch["pixels"] = pixels[image]
    placed = sharding.put_batch(self._mesh, batch)
    what = (
      (tokens, image.astype(np.int32))
      if tokens is not None
      else (placed["pixels"],)
    )
    ids, mask = (x[kind] for x in self._questions)
    count = np.int32(len(self.source.kinds[kind].classes))
    candidates = self._of_kind(int(kind))
    return run(params, *what, placed["boxes"], ids, mask, candidates, count)

  def _of_kind(self, kind: int) -> Any:
    if kind not in self._candidates:
      names = self.source.kinds[kind].names
      self._candidates[kind] = self._teacher.candidates(names)
    return self._candidates[kind]


def top_shares(
  scores: jax.Array, there: jax.Array, count: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """The best candidates, their log shares, and the log share of the rest.

  Args:
    scores: float32 [I, C], logits.
    there: bool [C], False for filler.
    count: J.

  Returns:
    Places int32 [I, J], log shares float32 [I, J] (-inf where there are fewer
    candidates) and float32 [I] (-inf where nothing is left).
  """
  shares = jax.nn.log_softmax(scores, axis=-1, where=there)
  shares = jnp.where(there, shares, -jnp.inf)
  room = max(0, count - shares.shape[-1])
  padded = jnp.pad(shares, ((0, 0), (0, room)), constant_values=-jnp.inf)
  best, place = jax.lax.top_k(padded, count)
  chosen = jnp.zeros(padded.shape, bool)
  chosen = jnp.put_along_axis(chosen, place, True, axis=-1, inplace=False)
  rest = jax.nn.logsumexp(jnp.where(chosen, -jnp.inf, padded), axis=-1)
  return place.astype(jnp.int32), best, rest


# Log share of what is not there: finite, so that no arithmetic gives NaN.
NONE = -1e4


class _Pending:
  """The answers about a batch's instances, which devices still compute."""

  def __init__(self, shape: tuple[int, int], top_k: int):
    """`shape` is [B, K]."""
    self._shape, self._top_k = shape, top_k
    # Per call: images and slots of its instances, its results, its classes.
    self._calls: list[tuple] = []

  def add(
    self, image: np.ndarray, slot: np.ndarray, shown: tuple, classes: np.ndarray
  ) -> None:
    self._calls.append((image, slot, shown, classes))

  def fields(self) -> dict[str, "_Later"]:
    return {name: _Later(self, name) for name in schema.ANSWER_KEYS}

  @functools.cached_property
  def arrays(self) -> dict[str, np.ndarray]:
    """All fields; waits for the devices."""
    wide = (*self._shape, self._top_k)
    classes = np.full(wide, -1, np.int32)
    shares = np.full(wide, NONE, np.float32)
    rest = np.full(self._shape, NONE, np.float32)
    for image, slot, shown, of_kind in self._calls:
      place, share, left = (np.asarray(x)[: len(image)] for x in shown)
      there = ~np.isneginf(share)  # NaN stays, to be found and named
      known = np.take(of_kind, np.minimum(place, len(of_kind) - 1))
      classes[image, slot] = np.where(there, known, -1)
      shares[image, slot] = np.where(there, share, NONE)
      rest[image, slot] = np.where(np.isneginf(left), NONE, left)
    return {
      schema.ANSWER_CLASSES: classes,
      schema.ANSWER_LOG_SHARES: shares,
      schema.ANSWER_LOG_REST: rest,
    }


@dataclasses.dataclass(frozen=True)
class _Later:
  """One field; numpy waits for it."""

  pending: _Pending
  name: str

  def __array__(self, dtype=None, copy=None) -> np.ndarray:
    del copy
    return np.asarray(self.pending.arrays[self.name], dtype)
