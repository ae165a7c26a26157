"""The sheet of test images: predictions drawn beside the truth."""

import pathlib
from typing import Any

import numpy as np

from input_pipeline import schema
from input_pipeline.geometry import Letterbox
from mipd_jax.config import Config
from mipd_jax.evaluation.situations import Evaluation
from mipd_jax.report import examples, sheets
from mipd_jax.tasks.prepared import Prepared

_NOTE = (
  "Chosen at random, evenly over groups and over right and wrong verbs; "
  "roles are filled for the true verb's frame."
)


def write_sheet(
  config: Config,
  prepared: Prepared,
  evaluation: Evaluation,
  path: pathlib.Path,
) -> None:
  """Draws a few images with the frames that were scored."""
  truth = prepared.cache.split(config.eval.split, ()).annotations
  chosen = examples.choose_for_sheet(
    truth[schema.GROUP],
    evaluation.verb == truth[schema.VERB],
    config.eval.sheet_examples,
    config.seed,
  )
  images = prepared.dataset.split(config.eval.split)
  shown = [
    _example(prepared, evaluation, images, truth, index) for index in chosen
  ]
  sheets.example_sheet(
    shown,
    path,
    columns=3,
    title=f"{config.name}: {config.eval.split}",
    note=_NOTE,
  )


def _example(prepared, evaluation, images, truth, index):
  words = prepared.dataset.vocabulary
  geometry = Letterbox(*truth[schema.IMAGE_SIZE][index].tolist())
  true_boxes = geometry.boxes_to_pixels(truth[schema.BOXES][index])
  nouns, boxes = evaluation.frames.noun[index], evaluation.frames.box[index]

  def box(values, present):
    return tuple(float(x) for x in values) if present else None

  verb = int(truth[schema.VERB][index])
  roles = [
    examples.RoleExample(
      role=words.roles[role],
      true_nouns=tuple(
        noun_word(words, noun) for noun in truth[schema.NOUNS][index, i]
      ),
      predicted_noun=noun_word(words, nouns[i]),
      true_box=box(true_boxes[i], truth[schema.BOX_MASK][index, i]),
      predicted_box=box(boxes[i], not np.isnan(boxes[i, 0])),
    )
    for i, role in enumerate(words.frames[verb])
  ]
  return examples.Example(
    image=images.image(index),
    name=images.names[index],
    group=schema.GROUPS[truth[schema.GROUP][index]],
    true_verb=words.verbs[verb],
    predicted_verb=words.verbs[evaluation.verb[index]],
    probability=float(evaluation.probability[index]),
    roles=roles,
  )


def noun_word(words: Any, noun: int) -> str:
  """The first gloss of a noun class; "" for blank."""
  name = words.nouns[noun]
  glosses = words.noun_glosses[noun]
  return "" if name == "blank" else glosses[0] if glosses else name
