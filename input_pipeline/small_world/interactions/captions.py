"""Captioned scenes of persons and objects, for training encoders.

A caption describes one or two pairs: often the interaction, its attributes in
words and the object, sometimes with its look. All interactions are captioned
equally often, since encoders learn from the web, not from a training split.
"""

import numpy as np

from input_pipeline.geometry import letterbox_image
from input_pipeline.small_world import looks
from input_pipeline.small_world.interactions.scenes import (
  PairScene,
  ScenePair,
  draw,
  draw_scene,
)
from input_pipeline.small_world.interactions.world import (
  ATTRIBUTES,
  NO_INTERACTION,
  PairWorld,
  attribute_phrases,
  attribute_words,
)
from input_pipeline.small_world.regions import Region, canvas_corners
from input_pipeline.small_world.situations.captions import (
  FUNCTION_WORDS,
  CaptionConfig,
)

# Further words of interactions' texts and of templates.
_WORDS = ("person", "object", "human", "done", "whom", "what")


def content_words(world: PairWorld) -> list[str]:
  """All words that describe something in a picture, sorted."""
  words = {word for values in ATTRIBUTES.values() for word in values}
  words |= {w for verb in world.actions for w in verb.participle.split()}
  for thing in world.objects:
    words |= {*thing.gloss.split(), *thing.look}
  return sorted(words - set(FUNCTION_WORDS) - set(_WORDS))


def nouns(world: PairWorld) -> list[str]:
  """The nouns of boxes: the objects, without persons."""
  return [thing.gloss for thing in world.objects]


def all_words(world: PairWorld) -> list[str]:
  """The vocabulary of captions, texts and templates, sorted."""
  colours = {*looks.COLOURS, *looks.TEXTURES, *looks.SHAPES}
  names = {verb.name for verb in world.actions}
  names = {word for name in names for word in name.split("_")}
  return sorted(
    {
      *content_words(world),
      *(FUNCTION_WORDS + _WORDS),
      *names,
      *colours,
      "interaction",
      "small",
      "large",
    }
  )


def draw_pool(
  world: PairWorld, count: int, image_size: int, seed: int = 0
) -> tuple[np.ndarray, list[PairScene]]:
  """Draws all interactions equally often; see situations' `draw_pool`."""
  rng = np.random.default_rng([world.config.seed, 3, seed])
  chosen = rng.permutation(count) % len(world.interactions)
  scenes = [draw_scene(world, rng, int(first)) for first in chosen]
  images = np.empty((count, image_size, image_size, 3), np.uint8)
  for image, scene in zip(images, scenes, strict=True):
    image[:] = letterbox_image(draw(scene), image_size)
  return images, scenes


def caption(
  scene: PairScene, config: CaptionConfig, rng: np.random.Generator
) -> str:
  """One caption of the first pair; in half the cases also of another one."""
  parts = [_describe(scene, scene.pairs[0], config, rng)]
  if len(scene.pairs) > 1 and rng.random() < 0.5:
    other = scene.pairs[int(rng.integers(1, len(scene.pairs)))]
    parts.append(_describe(scene, other, config, rng))
  rng.shuffle(parts)
  begin = ("a photo of", "a picture of", "there is")[int(rng.integers(3))]
  text = " and ".join(part for part in parts if part)
  return (
    f"{begin} {text}" if rng.random() < config.template or not text else text
  )


def answer(scene: PairScene) -> str:
  """The answer to the teacher's question: the name of the interaction."""
  return scene.verb.name


def regions(scene: PairScene) -> list[Region]:
  """Of each pair: its person, its object, and both with what is done."""
  found = []
  for pair in scene.pairs:
    person, thing = np.add(scene.boxes(pair), (0, 0, 1, 1))  # corners outside
    both = [*np.minimum(person, thing)[:2], *np.maximum(person, thing)[2:]]
    noun = scene.world.objects[pair.thing]
    doing = [scene.world.verbs[label] for label in pair.labels]
    participles = [verb.verb.participle for verb in doing]
    what = (
      ("person", "", (pair.colour,), person),
      ("object", noun.gloss, (*noun.gloss.split(), *noun.look), thing),
      (
        "activity",
        doing[0].name if doing else "",
        (
          *(word for text in participles for word in text.split()),
          *attribute_words(pair.code),
        ),
        both,
      ),
    )
    found += [
      Region(
        canvas_corners(scene.height, scene.width, corners),
        question,
        name,
        words,
      )
      for question, name, words, corners in what
    ]
  return found


def _describe(
  scene: PairScene,
  pair: ScenePair,
  config: CaptionConfig,
  rng: np.random.Generator,
) -> str:
  world, parts = scene.world, []
  thing = world.objects[pair.thing]
  if rng.random() < config.verb:
    participle = NO_INTERACTION[1]
    if pair.labels:
      label = pair.labels[int(rng.integers(len(pair.labels)))]
      participle = world.verbs[label].verb.participle
    parts.append(f"a person {participle}")
  for phrase in attribute_phrases(pair.code):
    if rng.random() < config.attribute:
      parts.append(phrase)
  if rng.random() < max(config.noun, 0.6):
    name = f"{thing.article} {thing.gloss}"
    if rng.random() < config.look:
      name = f"{name} {thing.definition}"
    parts.append(name)
  return " ".join(parts)
