"""What the report shows of single images: pixels, words, boxes, rationales."""

import collections
from collections.abc import Mapping, Sequence

import numpy as np

from input_pipeline import feature_cache, schema
from input_pipeline.geometry import Letterbox
from input_pipeline.io import json_files
from mipd_jax.inference.sentence import sentence
from mipd_jax.rationales import source
from mipd_jax.report.cards import ExampleView, RoleView
from mipd_jax.report.drawing import Box
from mipd_jax.tasks.pictures import noun_word
from mipd_jax.tasks.prepared import Prepared

# Of `report_rows.Predicted`: of several images, or of one.
Values = Mapping[str, np.ndarray]


class Viewer:
  """Puts together what is shown of the images of one split."""

  def __init__(self, prepared: Prepared, split: str):
    self._words = prepared.dataset.vocabulary
    self._images = prepared.dataset.split(split)
    cached = prepared.cache.split(split, ())
    self._truth, self.names = cached.annotations, cached.names

  def have_texts(self, indices: Sequence[int]) -> int:
    """How many of some images have rationales in the dataset's own files."""
    return sum(self._images.rationales(i) is not None for i in indices)

  def view(
    self,
    index: int,
    found: Values,
    own: Values,
    score: float,
    rationales: tuple[str, ...] = (),
  ) -> ExampleView:
    """One image; its pixels are read here.

    Args:
      index: position in the split.
      found: what was predicted of it, roles for the true verb's frame.
      own: the same, roles for the frame of the predicted verb.
      score: see `examples.RULE`.
      rationales: of the image, if any.
    """
    words = self._words
    height, width = self._truth[schema.IMAGE_SIZE][index].tolist()
    verb, guess = int(self._truth[schema.VERB][index]), int(found["verb"])
    roles = self._roles(index, found, Letterbox(height, width))
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
      true_probability=float(found["true_probability"]),
      student=(words.verbs[guess], float(found["probability"])),
      teacher=self._teacher(found),
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
    self, index: int, found: Values, geometry: Letterbox
  ) -> list[RoleView]:
    words, truth = self._words, self._truth
    true_boxes = geometry.boxes_to_pixels(truth[schema.BOXES][index])
    return [
      RoleView(
        role=words.roles[role],
        true_nouns=tuple(
          noun_word(words, int(noun)) for noun in truth[schema.NOUNS][index, i]
        ),
        noun=noun_word(words, int(found["noun"][i])),
        true_box=_box(true_boxes[i], truth[schema.BOX_MASK][index, i]),
        box=_box(found["box"][i], not np.isnan(found["box"][i, 0])),
        noun_right=bool(found["noun_right"][i]),
        box_right=bool(found["box_right"][i]),
      )
      for i, role in enumerate(words.frames[truth[schema.VERB][index]])
    ]

  def _teacher(self, found: Values) -> tuple[str, float] | None:
    if "teacher_verb" not in found:
      return None
    verb = self._words.verbs[int(found["teacher_verb"])]
    return verb, float(found["teacher_probability"])

  def _sentence(self, verb: int, nouns: Mapping[str, str]) -> str:
    abstract = self._words.verb_abstracts[verb]
    return sentence(self._words.verbs[verb], nouns, abstract)


def split_views(
  viewer: Viewer,
  indices: Sequence[int],
  found: Values,
  own: Values,
  scores: np.ndarray,
) -> dict[int, ExampleView]:
  """By position in the split.

  Args:
    viewer: of the split.
    indices: of the images that are shown.
    found: values of all images of the split, for the true verbs' frames.
    own: values of the images shown, for the frames of predicted verbs.
    scores: of all images of the split, see `examples.RULE`.
  """
  return {
    index: viewer.view(
      *(index, _row(found, index), _row(own, row), float(scores[index]))
    )
    for row, index in enumerate(indices)
  }


def training_views(
  viewer: Viewer,
  cache: feature_cache.Cache,
  indices: Sequence[int],
  found: Values,
  own: Values,
  scores: np.ndarray,
) -> list[ExampleView]:
  """Training images with their rationales; arrays have a row for each."""
  texts = _rationales(cache, {viewer.names[i] for i in indices})
  return [
    viewer.view(
      *(index, _row(found, row), _row(own, row), float(scores[row])),
      texts.get(viewer.names[index], ()),
    )
    for row, index in enumerate(indices)
  ]


def _rationales(
  cache: feature_cache.Cache, names: set[str]
) -> dict[str, tuple[str, ...]]:
  """The texts of some training images; read line by line."""
  path = f"train/{feature_cache.RATIONALES}"
  found: dict[str, tuple[str, ...]] = {}
  if path not in cache.files:
    return found
  for number, line in enumerate(cache.lines(path), 1):
    where = f"{cache.folder / path}, line {number}"
    record = json_files.parse(line, where, source.FORM, source.AGAIN)
    if record["image"] in names:
      found[record["image"]] = tuple(record[k] for k in schema.RATIONALES)
  return found


def _row(values: Values, row: int) -> Values:
  return {name: value[row] for name, value in values.items()}


def _box(corners: np.ndarray, present: bool) -> Box | None:
  return tuple(float(x) for x in corners) if present else None


def _commonest(nouns: Sequence[str]) -> str:
  """What most annotators gave; of equals the first."""
  return collections.Counter(nouns).most_common(1)[0][0] if nouns else ""
