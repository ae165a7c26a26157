"""What encoders learn from: words and captions of either kind of world."""

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
from input_pipeline.small_world.situations import captions
from input_pipeline.small_world.situations.config import WorldConfig
from input_pipeline.small_world.situations.world import World, draw_world


@dataclasses.dataclass(frozen=True)
class Lessons:
  """What a kind of world tells its learners.

  Attributes:
    content_words: world -> words that mean something that can be seen.
    all_words: world -> every word that captions and questions use.
    draw_pool: (world, count, image_size, seed) -> uint8 images
      [count, image_size, image_size, 3] and their scenes.
    caption: (scene, config, rng) -> one sentence about a scene.
    answer: scene -> what a scene shows, in the words of its verb.
  """

  content_words: Callable[[Any], list[str]]
  all_words: Callable[[Any], list[str]]
  draw_pool: Callable[..., tuple[np.ndarray, Sequence[Any]]]
  caption: Callable[[Any, captions.CaptionConfig, np.random.Generator], str]
  answer: Callable[[Any], str]


SITUATIONS = Lessons(
  captions.content_words,
  captions.all_words,
  captions.draw_pool,
  captions.caption,
  captions.answer,
)
INTERACTIONS = Lessons(
  captions_lib.content_words,
  captions_lib.all_words,
  captions_lib.draw_pool,
  captions_lib.caption,
  captions_lib.answer,
)


def draw(config: WorldConfig | PairWorldConfig) -> World | PairWorld:
  """The world of a config."""
  if isinstance(config, PairWorldConfig):
    return draw_pair_world(config)
  return draw_world(config)


def of(world: World | PairWorld) -> Lessons:
  """The lessons of a world's kind."""
  return INTERACTIONS if isinstance(world, PairWorld) else SITUATIONS
