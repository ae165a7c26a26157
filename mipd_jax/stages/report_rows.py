"""The pass over a split that the report is made of: one row an image."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from input_pipeline import schema, stream
from mipd_jax.evaluation import situations as eval_lib
from mipd_jax.feeding.dequantise import dequantise
from mipd_jax.metrics import calibration
from mipd_jax.models import outputs as out
from mipd_jax.report.measures import Guesses, Rows

_TEACHER = "teacher_"
_SCORES, _SHARE = "verb_scores", "box_share"


class Chosen:
  """Some examples of a source, perhaps with the frames of other verbs.

  Args:
    source: where they are read.
    indices: int [n], positions in it.
    frames: arrays of `schema.VERB`, `ROLES` and `ROLE_MASK`, n rows, that
      take the place of the true ones.
  """

  def __init__(
    self,
    source: stream.Source,
    indices: Sequence[int],
    frames: Mapping[str, np.ndarray] | None = None,
  ):
    self._source, self._frames = source, frames or {}
    self._indices = np.asarray(indices, np.int64)
    self.num_examples = len(self._indices)

  def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
    found = dict(self._source.read(self._indices[indices]))
    return found | {key: x[indices] for key, x in self._frames.items()}


def compile_step(predict: eval_lib.Predict) -> Callable:
  """Jits (params, batch, banks) -> rows that `predict_rows` reads."""

  def step(params, batch, banks):
    batch = dequantise(batch)
    outputs = predict(params, batch, banks)
    verb_scores = outputs[out.VERB_SCORES].astype(jnp.float32)
    found = {
      **_guess(verb_scores, batch[schema.VERB]),
      _SCORES: verb_scores,
      **eval_lib.predicted_roles(outputs),
      **eval_lib.truth(batch),
      _SHARE: jax.nn.sigmoid(outputs[out.BOX_CONFIDENCE]),
    }
    if schema.VERB_LOGITS in batch:
      logits = batch[schema.VERB_LOGITS].astype(jnp.float32)
      teacher = _guess(logits, batch[schema.VERB])
      found |= {_TEACHER + name: value for name, value in teacher.items()}
    return found

  return jax.jit(step)


def _guess(logits, true):
  shares = jax.nn.softmax(logits)
  at_true = jnp.take_along_axis(shares, true[:, None], axis=-1)[:, 0]
  return {
    "verb": jnp.argmax(logits, axis=-1).astype(jnp.int32),
    "probability": jnp.max(shares, axis=-1),
    "true_probability": at_true,
  }


def _judged(part: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Judges the roles as the evaluation does; the truth itself is left out."""
  judged = eval_lib.judge(part)
  found = {
    name: value
    for name, value in part.items()
    if not eval_lib.is_truth(name) and name != _SHARE
  }
  return found | {
    "box": judged.frames.box,
    "confidence": part[_SHARE],
    "noun_right": judged.noun,
    "box_right": judged.box,
    "overlapping": judged.overlapping,
  }


@dataclasses.dataclass(frozen=True, eq=False)
class Predicted:
  """What the step said of each image, in the order of the source.

  Attributes:
    values: by name, arrays of n rows; the verb's scores are left out. Boxes
      are corners in pixels, NaN where there is none.
    rivals: the best trained name against the best untrained one.
  """

  values: Mapping[str, np.ndarray]
  rivals: calibration.Rivals

  def rows(self, truth: Mapping[str, np.ndarray]) -> Rows:
    """Beside the annotations of the same images."""
    values = self.values
    has_teacher = f"{_TEACHER}verb" in values
    return Rows(
      verb=truth[schema.VERB],
      group=truth[schema.GROUP],
      student=self._guesses(""),
      teacher=self._guesses(_TEACHER) if has_teacher else None,
      role_mask=truth[schema.ROLE_MASK],
      box_mask=truth[schema.BOX_MASK],
      **{
        name: values[name]
        for name in ("noun_right", "box_right", "overlapping", "confidence")
      },
    )

  def _guesses(self, prefix: str) -> Guesses:
    names = ("verb", "probability", "true_probability")
    return Guesses(*(self.values[prefix + name] for name in names))


def predict_rows(
  evaluator: eval_lib.Evaluator,
  source: stream.Source,
  *,
  trained: np.ndarray,
  what: str,
) -> Predicted:
  """Runs a step of `compile_step` over a source, each image once.

  Of the scores of all verbs only the rivals are kept, so memory does not grow
  with the vocabulary.

  Args:
    evaluator: of the student, with that step.
    source, what: of `Evaluator.results`.
    trained: bool [V], which verbs have training images.
  """
  parts: list[dict[str, np.ndarray]] = []
  rivals, places = [], []
  for result, indices, mask in evaluator.results(source, what):
    part = {name: np.asarray(value)[mask] for name, value in result.items()}
    verb_scores, verb = part.pop(_SCORES), part[eval_lib.TRUE_VERB]
    rivals.append(calibration.rivals(verb_scores, verb, trained))
    parts.append(_judged(part))
    places.append(indices[mask])
  order = np.argsort(np.concatenate(places))

  def joined(arrays):
    return np.concatenate(arrays)[order]

  return Predicted(
    {name: joined([part[name] for part in parts]) for name in parts[0]},
    calibration.Rivals(*map(joined, zip(*rivals, strict=True))),
  )
