"""Words and captions of both kinds of worlds, for training encoders."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from input_pipeline.small_world.interactions import captions as captions_lib
from input_pipeline.small_world.interactions.config import PairWorldConfig
from input_pipeline.small_world.interactions.world import PairWorld
from input_pipeline.small_world.interactions.world import (
  draw_world as draw_pair_world,
)
from input_pipeline.small_world.regions import Region
from input_pipeline.small_world.situations import captions
from input_pipeline.small_world.situations.config import WorldConfig
from input_pipeline.small_world.situations.world import World, draw_world

AnyWorld = World | PairWorld


@dataclasses.dataclass(frozen=True)
class Lessons:
  """The training material of one kind of world.

  Attributes:
    content_words: world -> words for visible things.
    nouns: world -> the nouns of boxes, each once.
    all_words: world -> every word of captions and questions.
    draw_pool: (world, count, image_size, seed) -> uint8 images
      [count, image_size, image_size, 3] and their scenes.
    caption: (scene, config, rng) -> one caption of a scene.
    answer: scene -> the name of its verb.
    regions: scene -> what is in each of its boxes.
  """

  content_words: Callable[[Any], list[str]]
  nouns: Callable[[Any], list[str]]
  all_words: Callable[[Any], list[str]]
  draw_pool: Callable[..., tuple[np.ndarray, Sequence[Any]]]
  caption: Callable[[Any, captions.CaptionConfig, np.random.Generator], str]
  answer: Callable[[Any], str]
  regions: Callable[[Any], list[Region]]


SITUATIONS = Lessons(
  captions.content_words,
  captions.nouns,
  captions.all_words,
  captions.draw_pool,
  captions.caption,
  captions.answer,
  captions.regions,
)
INTERACTIONS = Lessons(
  captions_lib.content_words,
  captions_lib.nouns,
  captions_lib.all_words,
  captions_lib.draw_pool,
  captions_lib.caption,
  captions_lib.answer,
  captions_lib.regions,
)


def draw(config: WorldConfig | PairWorldConfig) -> AnyWorld:
  """The world of a config."""
  if isinstance(config, PairWorldConfig):
    return draw_pair_world(config)
  return draw_world(config)


def of(world: AnyWorld) -> Lessons:
  """The lessons for a world."""
  return INTERACTIONS if isinstance(world, PairWorld) else SITUATIONS
