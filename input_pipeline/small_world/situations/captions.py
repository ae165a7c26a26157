"""Captioned images, the training data of the small foundation models.

A caption names parts of the scene in random order, like captions on the web:
often the verb, its attributes in words and some nouns, sometimes with their
looks or places. Unseen verbs are named too, as often as `CaptionConfig.unseen`
says. None of the images is in the folder.
"""

import dataclasses

import numpy as np

from input_pipeline.geometry import letterbox_image
from input_pipeline.small_world import looks
from input_pipeline.small_world.painting import draw
from input_pipeline.small_world.regions import Region, canvas_corners
from input_pipeline.small_world.situations.scenes import Scene, draw_scene
from input_pipeline.small_world.situations.world import World

# Words of templates and sentences that do not describe the picture.
_FUNCTION_WORDS = """
a an and are arms as at background behind by corner everything eyes for from
hand has image in is it its kind labelled left lower main middle nothing of on
one or other padding person photo picture right scene seen shape shapes shown
someone something that the there this thing to top upper bottom what where
which while who with activity acts else role when not no being doing far near
place centre verb noun agent
"""
FUNCTION_WORDS = tuple(_FUNCTION_WORDS.split())


@dataclasses.dataclass(frozen=True)
class CaptionConfig:
  """Chances that a part of the scene is named in a caption.

  Attributes:
    verb: the verb's word.
    unseen: factor on `verb` if the verb is unseen.
    attribute: each of the five attributes.
    noun: each filled role's noun.
    look: the look of a named noun.
    where: the role and place of a named, visible noun.
    template: a beginning such as "a photo of".
  """

  verb: float = 0.8
  unseen: float = 1.0
  attribute: float = 0.6
  noun: float = 0.35
  look: float = 0.15
  where: float = 0.1
  template: float = 0.3


def content_words(world: World) -> list[str]:
  """All words that describe something in a picture, sorted."""
  words = {word for values in looks.ATTRIBUTES.values() for word in values}
  words |= {verb.name for verb in world.verbs}
  words |= {role for verb in world.verbs for role in verb.roles}
  for noun in world.nouns:
    words |= {noun.gloss, *noun.look}
  return sorted(words - set(FUNCTION_WORDS))


def nouns(world: World) -> list[str]:
  """The nouns of boxes: all but places."""
  return [noun.gloss for noun in world.nouns if noun.kind != "place"]


def all_words(world: World) -> list[str]:
  """The vocabulary of captions, definitions and templates, sorted."""
  return sorted({*content_words(world), *FUNCTION_WORDS, "background"})


def draw_pool(
  world: World, count: int, image_size: int, seed: int = 0
) -> tuple[np.ndarray, list[Scene]]:
  """Draws scenes of all verbs equally often, including unseen ones.

  Args:
    world: the world.
    count: number of images.
    image_size: side of the square canvas, pixels.
    seed: other seeds give other images; none of them is in the folder.

  Returns:
    uint8 [count, image_size, image_size, 3], letterboxed, and the scenes.
  """
  rng = np.random.default_rng([world.config.seed, 3, seed])
  chosen = rng.permutation(count) % len(world.verbs)
  scenes = [draw_scene(world, world.verbs[i], rng) for i in chosen]
  images = np.empty((count, image_size, image_size, 3), np.uint8)
  for image, scene in zip(images, scenes, strict=True):
    image[:] = letterbox_image(draw(scene), image_size)
  return images, scenes


def caption(
  scene: Scene, config: CaptionConfig, rng: np.random.Generator
) -> str:
  """One caption of a scene."""
  often = config.verb * (config.unseen if scene.verb.group == "unseen" else 1)
  parts = [scene.verb.name] if rng.random() < often else []
  for phrase in looks.attribute_phrases(scene.code):
    if rng.random() < config.attribute:
      parts.append(phrase)
  where = {thing.role: _where(scene, thing.centre) for thing in scene.things}
  for role, noun in scene.fillers.items():
    if noun is None or rng.random() >= config.noun:
      continue
    name = noun.gloss
    if rng.random() < config.look:
      name = f"{name} {noun.definition}"
    if role in where and rng.random() < config.where:
      name = f"the {role} is a {name} at the {where[role]}"
    parts.append(name)
  rng.shuffle(parts)
  begin = ("a photo of", "a picture of", "there is")[int(rng.integers(3))]
  if rng.random() < config.template or not parts:
    parts.insert(0, begin)
  return " ".join(parts)


def answer(scene: Scene) -> str:
  """The answer to the teacher's question: the name of the verb."""
  return scene.verb.name


def regions(scene: Scene) -> list[Region]:
  """What is in each of its boxes: a noun, its shape, colour and texture."""
  corners = scene.boxes()
  return [
    Region(
      canvas_corners(scene.height, scene.width, corners[thing.role]),
      question=thing.role,
      name=thing.noun.gloss,
      words=(thing.noun.gloss, *thing.noun.look),
    )
    for thing in scene.things
  ]


def _where(scene: Scene, centre: tuple[float, float]) -> str:
  x, y = centre[0] / scene.width, centre[1] / scene.height
  row = ("top", "middle", "bottom")[min(2, int(3 * y))]
  column = ("left", "centre", "right")[min(2, int(3 * x))]
  return f"{row} {column}"
