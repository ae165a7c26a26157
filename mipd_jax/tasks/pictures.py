"""The sheet of test images: predictions drawn beside the truth."""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from input_pipeline import feature_cache, schema
from input_pipeline.geometry import Letterbox
from mipd_jax.config import Config
from mipd_jax.evaluation.evaluate import Evaluation, Predict
from mipd_jax.models import outputs as out
from mipd_jax.report import sheet
from mipd_jax.tasks.prepared import Prepared

_NOTE = (
  "Chosen at random, evenly over groups and over right and wrong verbs; "
  "roles are filled for the true verb's frame."
)


def write_sheet(
  config: Config,
  prepared: Prepared,
  evaluation: Evaluation,
  predict: Predict,
  params: Any,
  banks: Mapping[str, jax.Array],
  path: pathlib.Path,
) -> None:
  """Predicts a few images again, frame and boxes too, and draws them."""
  source = prepared.cache.split(config.eval.split, (feature_cache.STUDENT,))
  truth = source.annotations
  chosen = sheet.choose_examples(
    truth[schema.GROUP],
    evaluation.verb == truth[schema.VERB],
    config.eval.sheet_examples,
    config.seed,
  )
  batch = source.read(np.asarray(chosen))
  batch[schema.EXAMPLE_MASK] = np.ones(len(chosen), bool)

  def frames(params, batch, banks):
    outputs = predict(params, batch, banks)
    return {
      "noun": outputs[out.NOUN_SCORES].argmax(axis=-1),
      "box": outputs[out.BOX],
      "present": outputs[out.BOX_CONFIDENCE] >= 0,
    }

  found = jax.device_get(jax.jit(frames)(params, batch, banks))
  images = prepared.dataset.split(config.eval.split)
  examples = [
    _example(prepared, evaluation, images, batch, found, row, index)
    for row, index in enumerate(chosen)
  ]
  sheet.example_sheet(
    examples,
    path,
    columns=3,
    title=f"{config.name}: {config.eval.split}",
    note=_NOTE,
  )


def _example(prepared, evaluation, images, batch, found, row, index):
  words = prepared.dataset.vocabulary
  geometry = Letterbox(*batch[schema.IMAGE_SIZE][row].tolist())
  true_boxes = geometry.boxes_to_pixels(batch[schema.BOXES][row])
  boxes = geometry.boxes_to_pixels(found["box"][row])

  def box(values, present):
    return tuple(float(x) for x in values) if present else None

  verb = int(batch[schema.VERB][row])
  roles = [
    sheet.RoleExample(
      role=words.roles[role],
      true_nouns=tuple(
        noun_word(words, noun) for noun in batch[schema.NOUNS][row, i]
      ),
      predicted_noun=noun_word(words, found["noun"][row, i]),
      true_box=box(true_boxes[i], batch[schema.BOX_MASK][row, i]),
      predicted_box=box(boxes[i], found["present"][row, i]),
    )
    for i, role in enumerate(words.frames[verb])
  ]
  return sheet.Example(
    image=images.image(index),
    name=images.names[index],
    group=schema.GROUPS[batch[schema.GROUP][row]],
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
