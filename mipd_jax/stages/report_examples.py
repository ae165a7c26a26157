"""The report's single images: pixels, words, boxes, rationales.

And the pass over a split that the report is made from: one row per image.
"""

import collections
import dataclasses
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from input_pipeline import feature_cache, schema, stream
from input_pipeline.geometry import Letterbox
from input_pipeline.io import json_files
from mipd_jax.evaluation import situations as eval_lib
from mipd_jax.feeding.dequantise import dequantise
from mipd_jax.inference.results import sentence
from mipd_jax.metrics import calibration
from mipd_jax.models import outputs as out
from mipd_jax.rationales import source
from mipd_jax.report.cards import ExampleView, RoleView
from mipd_jax.report.drawing import Box
from mipd_jax.report.measures import Guesses, Rows
from mipd_jax.tasks.prepared import Prepared
from mipd_jax.tasks.situations import noun_word

# Values of `Predicted`: of several images, or of one.
Values = Mapping[str, np.ndarray]


class Viewer:
  """Makes the views of the images of one split."""

  def __init__(self, prepared: Prepared, split: str):
    self._words = prepared.dataset.vocabulary
    self._images = prepared.dataset.split(split)
    cached = prepared.cache.split(split, ())
    self._truth, self.names = cached.annotations, cached.names

  def have_texts(self, indices: Sequence[int]) -> int:
    """How many of these images have rationales in the dataset's files."""
    return sum(self._images.rationales(i) is not None for i in indices)

  def view(
    self,
    index: int,
    scored: Values,
    own: Values,
    score: float,
    rationales: tuple[str, ...] = (),
  ) -> ExampleView:
    """One image; its pixels are read here.

    Args:
      index: position in the split.
      scored: its predictions, roles for the true verb's frame.
      own: the same, roles for the frame of the predicted verb.
      score: see `examples.RULE`.
      rationales: of the image, if any.
    """
    words = self._words
    height, width = self._truth[schema.IMAGE_SIZE][index].tolist()
    verb, guess = int(self._truth[schema.VERB][index]), int(scored["verb"])
    roles = self._roles(index, scored, Letterbox(height, width))
    own_nouns = {
      words.roles[role]: noun_word(words, int(own["noun"][i]))
      for i, role in enumerate(words.frames[guess])
    }
    return ExampleView(
      image=self._images.image(index),
      width=width,
      height=height,
      name=self.names[index],
      group=schema.GROUPS[self._truth[schema.GROUP][index]],
      true_verb=words.verbs[verb],
      true_probability=float(scored["true_probability"]),
      student=(words.verbs[guess], float(scored["probability"])),
      teacher=self._teacher(scored),
      roles=roles,
      true_sentence=self._sentence(
        verb, {r.role: _commonest(r.true_nouns) for r in roles}
      ),
      sentence=self._sentence(guess, own_nouns),
      own_frame=tuple(own_nouns.items()),
      score=score,
      rationales=rationales,
    )

  def _roles(
    self, index: int, scored: Values, geometry: Letterbox
  ) -> list[RoleView]:
    words, truth = self._words, self._truth
    true_boxes = geometry.boxes_to_pixels(truth[schema.BOXES][index])
    return [
      RoleView(
        role=words.roles[role],
        true_nouns=tuple(
          noun_word(words, int(noun)) for noun in truth[schema.NOUNS][index, i]
        ),
        noun=noun_word(words, int(scored["noun"][i])),
        true_box=_box(true_boxes[i], truth[schema.BOX_MASK][index, i]),
        box=_box(scored["box"][i], not np.isnan(scored["box"][i, 0])),
        noun_right=bool(scored["noun_right"][i]),
        box_right=bool(scored["box_right"][i]),
      )
      for i, role in enumerate(words.frames[truth[schema.VERB][index]])
    ]

  def _teacher(self, scored: Values) -> tuple[str, float] | None:
    if "teacher_verb" not in scored:
      return None
    verb = self._words.verbs[int(scored["teacher_verb"])]
    return verb, float(scored["teacher_probability"])

  def _sentence(self, verb: int, nouns: Mapping[str, str]) -> str:
    abstract = self._words.verb_abstracts[verb]
    return sentence(self._words.verbs[verb], nouns, abstract)


def split_views(
  viewer: Viewer,
  indices: Sequence[int],
  scored: Values,
  own: Values,
  scores: np.ndarray,
) -> dict[int, ExampleView]:
  """By position in the split.

  Args:
    viewer: of the split.
    indices: of the images that are shown.
    scored: values of all images of the split, for the true verbs' frames.
    own: values of the images shown, for the frames of predicted verbs.
    scores: of all images of the split, see `examples.RULE`.
  """
  return {
    index: viewer.view(
      index, _row(scored, index), _row(own, row), float(scores[index])
    )
    for row, index in enumerate(indices)
  }


def training_views(
  viewer: Viewer,
  cache: feature_cache.Cache,
  indices: Sequence[int],
  scored: Values,
  own: Values,
  scores: np.ndarray,
) -> list[ExampleView]:
  """Training images with their rationales; arrays have a row for each."""
  texts = _rationales(cache, {viewer.names[i] for i in indices})
  return [
    viewer.view(
      index,
      _row(scored, row),
      _row(own, row),
      float(scores[row]),
      texts.get(viewer.names[index], ()),
    )
    for row, index in enumerate(indices)
  ]


def _rationales(
  cache: feature_cache.Cache, names: set[str]
) -> dict[str, tuple[str, ...]]:
  """The texts of some training images; read line by line."""
  path = f"train/{feature_cache.RATIONALES}"
  texts: dict[str, tuple[str, ...]] = {}
  if path not in cache.files:
    return texts
  for number, line in enumerate(cache.lines(path), 1):
    where = f"{cache.folder / path}, line {number}"
    record = json_files.parse(line, where, source.FORM, source.AGAIN)
    if record["image"] in names:
      texts[record["image"]] = tuple(record[k] for k in schema.RATIONALES)
  return texts


def _row(values: Values, row: int) -> Values:
  return {name: value[row] for name, value in values.items()}


def _box(corners: np.ndarray, present: bool) -> Box | None:
  return tuple(float(x) for x in corners) if present else None


def _commonest(nouns: Sequence[str]) -> str:
  """The commonest of the annotators' nouns; the first of equals."""
  return collections.Counter(nouns).most_common(1)[0][0] if nouns else ""


_TEACHER = "teacher_"
_SCORES, _SHARE = "verb_scores", "box_share"


class Chosen:
  """Some examples of a source, optionally with the frames of other verbs.

  Args:
    source: the examples.
    indices: int [n], positions in it.
    frames: arrays of `schema.VERB`, `ROLES` and `ROLE_MASK`, n rows, which
      replace the true ones.
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
    fields = dict(self._source.read(self._indices[indices]))
    return fields | {key: x[indices] for key, x in self._frames.items()}


def compile_step(predict: eval_lib.Predict) -> Callable:
  """Jits (params, batch, banks) -> rows that `predict_rows` reads."""

  def step(params, batch, banks):
    batch = dequantise(batch)
    outputs = predict(params, batch, banks)
    verb_scores = outputs[out.VERB_SCORES].astype(jnp.float32)
    rows = {
      **_guess(verb_scores, batch[schema.VERB]),
      _SCORES: verb_scores,
      **eval_lib.predicted_roles(outputs),
      **eval_lib.truth(batch),
      _SHARE: jax.nn.sigmoid(outputs[out.BOX_CONFIDENCE]),
    }
    if schema.VERB_LOGITS in batch:
      logits = batch[schema.VERB_LOGITS].astype(jnp.float32)
      teacher = _guess(logits, batch[schema.VERB])
      rows |= {_TEACHER + name: value for name, value in teacher.items()}
    return rows

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
  rows = {
    name: value
    for name, value in part.items()
    if not eval_lib.is_truth(name) and name != _SHARE
  }
  return rows | {
    "box": judged.frames.box,
    "confidence": part[_SHARE],
    "noun_right": judged.noun,
    "box_right": judged.box,
    "overlapping": judged.overlapping,
  }


@dataclasses.dataclass(frozen=True, eq=False)
class Predicted:
  """The step's results for each image, in the order of the source.

  Attributes:
    values: by name, arrays of n rows, without the verb scores. Boxes are
      corners in pixels, NaN where there is none.
    rivals: the best trained name against the best untrained one.
  """

  values: Mapping[str, np.ndarray]
  rivals: calibration.Rivals

  def rows(self, truth: Mapping[str, np.ndarray]) -> Rows:
    """The results with the annotations of the same images."""
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

  Only the rivals are kept of the verb scores, so memory does not grow with the
  vocabulary.

  Args:
    evaluator: of the student, with that step.
    source, what: as in `Evaluator.results`.
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
