"""Files of a student's predictions of a split, in the scored form.

`python -m mipd_jax.metrics.swig` scores them (form: `metrics.swig_files`) and
gives the run's own table: the frame of the true verb is the one that was
scored, box corners are the float64 numbers that were judged, and verbs are in
the order that ranked them.
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from input_pipeline import schema, stream
from input_pipeline.io import atomic
from input_pipeline.ov_swig import vocabulary
from mipd_jax.devices import sharding
from mipd_jax.evaluation import situations
from mipd_jax.feeding.dequantise import dequantise
from mipd_jax.metrics.swig_scores import TOP

_LISTED, _FRAMES = "listed_verbs", "frames_of_verbs"
# One image's verbs, best first, and the fillers of some verbs' roles.
Filler = dict[str, Any]
Entry = dict[str, Any]


def listed_verbs(verb_scores: np.ndarray) -> np.ndarray:
  """The best five verbs, or all if there are fewer: int32 [n, k].

  Of equal scores [n, V] the lower index comes first, as in the ranking.
  """
  order = np.argsort(-verb_scores, axis=-1, kind="stable")
  return order[:, :TOP].astype(np.int32)


def listed_frames(
  evaluator: situations.Evaluator,
  source: stream.Source,
  *,
  verbs: np.ndarray,
  frames: np.ndarray,
) -> situations.Frames:
  """The filled frames of several verbs for each image of a split.

  All processes take part, and all get the result.

  Args:
    evaluator: of the student, with a step of `compile_frames_step`.
    source: the split.
    verbs: int32 [n, k], which verbs, by position in the split.
    frames: int32 [V, R], role ids of every verb, -1 = padding.

  Returns:
    Nouns [n, k, R] and boxes [n, k, R, 4].
  """
  tables = jax.device_put(
    {_LISTED: verbs, _FRAMES: frames}, sharding.replicated(evaluator.mesh)
  )
  evaluator = dataclasses.replace(
    evaluator, banks={**evaluator.banks, **tables}
  )
  parts, places = [], []
  for result, indices, mask in evaluator.results(
    source, "frames of the listed verbs"
  ):
    count, listed = int(mask.sum()), verbs.shape[1]
    rows = {name: np.asarray(x)[mask] for name, x in result.items()}
    flat = {name: x.reshape(-1, *x.shape[2:]) for name, x in rows.items()}
    frames_of_part = situations.frames_of(flat)
    parts.append(
      (
        frames_of_part.noun.reshape(count, listed, -1),
        frames_of_part.box.reshape(count, listed, -1, 4),
      )
    )
    places.append(indices[mask])
  order = np.argsort(np.concatenate(places))
  nouns, boxes = zip(*parts, strict=True)
  return situations.Frames(
    np.concatenate(nouns)[order], np.concatenate(boxes)[order]
  )


def compile_frames_step(predict: situations.Predict) -> Callable:
  """Jits (params, batch, banks) -> rows [B, k, ...] for `listed_frames`."""

  def step(params, batch, banks):
    batch, banks = dequantise(batch), dict(banks)
    listed = banks.pop(_LISTED)[batch[schema.INDEX]]
    frames = banks.pop(_FRAMES)

    def fill(verb):
      roles = frames[verb]
      asked = {
        schema.VERB: verb,
        schema.ROLES: roles,
        schema.ROLE_MASK: roles >= 0,
      }
      filled = situations.predicted_roles(
        predict(params, {**batch, **asked}, banks)
      )
      return filled | {situations.TRUE_SIZE: batch[schema.IMAGE_SIZE]}

    # One verb after the other needs the memory of one evaluation only.
    filled = jax.lax.map(fill, listed.T)
    return {name: jnp.swapaxes(x, 0, 1) for name, x in filled.items()}

  return jax.jit(step)


def entries(
  words: vocabulary.Vocabulary,
  true_verbs: np.ndarray,
  scored: situations.Frames,
  verbs: np.ndarray,
  listed: situations.Frames,
) -> Iterable[Entry]:
  """One entry per image, in the order of the split.

  Args:
    words: names of verbs, roles and nouns.
    true_verbs: int [n].
    scored: the frames of the true verbs, [n, R], as they were scored.
    verbs: int [n, k], best first.
    listed: the frames of `verbs`, [n, k, R].
  """
  for row, true in enumerate(true_verbs):
    frames = {
      words.verbs[verb]: _fillers(
        words, verb, listed.noun[row, i], listed.box[row, i]
      )
      for i, verb in enumerate(verbs[row])
    }
    frames[words.verbs[true]] = _fillers(
      words, true, scored.noun[row], scored.box[row]
    )
    yield entry([words.verbs[verb] for verb in verbs[row]], frames)


def _fillers(
  words: vocabulary.Vocabulary, verb: int, nouns: np.ndarray, boxes: np.ndarray
) -> dict[str, Filler]:
  """A frame: nouns [R] as ids, boxes [R, 4] in pixels."""
  return {
    role: filler(words.nouns[nouns[i]], boxes[i])
    for i, role in enumerate(words.frame_roles(verb))
  }


def filler(noun: str, box: Sequence[float] | None) -> Filler:
  """What fills a role; a NaN box means no box."""
  corners = None if box is None else [float(x) for x in box]
  if corners is not None and np.isnan(corners[0]):
    corners = None
  return {"noun": "" if noun == vocabulary.BLANK else noun, "box": corners}


def entry(
  verbs: Sequence[str], frames: Mapping[str, Mapping[str, Filler]]
) -> Entry:
  return {"verbs": list(verbs), "frames": dict(frames)}


def write(
  path: str | os.PathLike[str], named: Iterable[tuple[str, Entry]]
) -> None:
  """Writes (image name, entry) pairs, one per line; whole or not at all."""
  with writing(path) as add:
    for name, content in named:
      add(name, content)


@contextlib.contextmanager
def writing(
  path: str | os.PathLike[str],
) -> Iterator[Callable[[str, Entry], None]]:
  """`write` for entries that come one by one: yields a function for them."""
  with (
    atomic.replacing(path) as temporary,
    temporary.open("w", encoding="utf-8") as file,
  ):
    file.write("{")
    mark = "\n"

    def add(name: str, content: Entry) -> None:
      nonlocal mark
      file.write(f"{mark}{json.dumps(name)}: {json.dumps(content)}")
      mark = ",\n"

    yield add
    file.write("\n}\n")
    file.flush()
