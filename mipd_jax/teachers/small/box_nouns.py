"""How well an image tower tells what is in a box of a small world."""

from collections.abc import Callable, Sequence

import jax
import numpy as np

from input_pipeline.small_world import lessons
from input_pipeline.small_world.regions import Region
from mipd_jax.teachers import token_boxes
from mipd_jax.teachers.clip import Clip, Params
from mipd_jax.teachers.small.clip_training import Images

PROBE, OWN = "probe", "own answers"
_BATCH = 64
_PROBE_IMAGES = 3000
_RIDGE = 30.0


def scores(
  world: lessons.AnyWorld, model: Clip, params: Params, images: Images
) -> dict[str, float]:
  """Share of true boxes whose noun is told, percent.

  "probe" is a ridge regression from the mean of the tokens in the box, fitted
  to some training images: what the tokens know. "own answers" is the noun
  whose text embedding is next to the box's: what the model says.
  """
  glosses = lessons.of(world).nouns(world)
  known = Boxes(world, images.scenes[:_PROBE_IMAGES], glosses)
  asked = Boxes(world, images.eval_scenes, glosses)

  @jax.jit
  def see(pixels, boxes):
    tokens = model.image_tokens(params, pixels)
    inside = token_boxes.pooled(tokens, boxes)
    return inside, model.region_embedding(params, tokens, boxes)

  pixels = images.pixels[: len(known.boxes)]
  features, _ = known.seen(see, pixels)
  held, embedded = asked.seen(see, images.eval_pixels)
  tokens = model.tokenize(glosses, 8)
  text = np.array(jax.jit(model.text_embedding)(params, *tokens))
  text /= np.linalg.norm(text, axis=1, keepdims=True)
  answers = (embedded @ text.T).argmax(axis=1)
  guesses = ridge_probe(features, known.nouns, held, len(glosses))
  return {
    PROBE: percent(guesses == asked.nouns),
    OWN: percent(answers == asked.nouns),
  }


class Boxes:
  """The boxes of scenes that hold a noun.

  Attributes:
    boxes: corners float32 [n, K, 4], filler without area.
    questions: what is asked of each box, n * K in order.
    nouns: of the boxes that are there, in order.
  """

  def __init__(
    self,
    world: lessons.AnyWorld,
    scenes: Sequence,
    glosses: Sequence[str],
  ):
    place = {gloss: i for i, gloss in enumerate(glosses)}
    found: list[list[Region]] = [
      [r for r in lessons.of(world).regions(scene) if r.name in place]
      for scene in scenes
    ]
    most = max(len(some) for some in found)
    self.boxes = np.zeros((len(scenes), most, 4), np.float32)
    self.questions = [
      some[k].question if k < len(some) else ""
      for some in found
      for k in range(most)
    ]
    for i, some in enumerate(found):
      for k, region in enumerate(some):
        self.boxes[i, k] = region.box
    self.nouns = np.array([place[r.name] for some in found for r in some])
    self._there = np.array(
      [[k < len(some) for k in range(most)] for some in found]
    )

  def seen(
    self, see: Callable, pixels: np.ndarray, *others: np.ndarray
  ) -> tuple[np.ndarray, ...]:
    """The results [n, K, ...] of (pixels, boxes, *others), of boxes there."""
    arrays = (pixels, self.boxes, *others)
    parts = [
      see(*(array[i : i + _BATCH] for array in arrays))
      for i in range(0, len(pixels), _BATCH)
    ]
    return tuple(
      np.concatenate([np.asarray(x, np.float32) for x in column])[self._there]
      for column in zip(*parts, strict=True)
    )


def ridge_probe(
  features: np.ndarray, labels: np.ndarray, held: np.ndarray, classes: int
) -> np.ndarray:
  """Classes int [m] of features [m, D], by ridge regression on one-hot rows.

  Args:
    features: float [n, D], with labels int [n].
    labels: of 0 to classes - 1.
    held: float [m, D].
    classes: number of classes.
  """
  mean, std = features.mean(axis=0), features.std(axis=0) + 1e-6
  x = (features - mean) / std
  y = np.eye(classes)[labels] - 1 / classes
  gram = x.T @ x + _RIDGE * np.eye(x.shape[1])
  weights = np.linalg.solve(gram, x.T @ y)
  return (((held - mean) / std) @ weights).argmax(axis=1)


def percent(right: np.ndarray) -> float:
  return round(100 * float(right.mean()), 1)
