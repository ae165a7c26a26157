"""What encoders learn from: the captions of either kind of small world."""

import types

from input_pipeline.small_world import captions, pair_captions
from input_pipeline.small_world.config import WorldConfig
from input_pipeline.small_world.pair_config import PairWorldConfig
from input_pipeline.small_world.pair_world import PairWorld
from input_pipeline.small_world.pair_world import draw_world as draw_pair_world
from input_pipeline.small_world.world import World, draw_world


def draw(config: WorldConfig | PairWorldConfig) -> World | PairWorld:
  """The world of a config."""
  if isinstance(config, PairWorldConfig):
    return draw_pair_world(config)
  return draw_world(config)


def of(world: World | PairWorld) -> types.ModuleType:
  """The module with `all_words`, `content_words`, `draw_pool`, `caption` and
  `answer` for a world and its scenes."""
  return pair_captions if isinstance(world, PairWorld) else captions
