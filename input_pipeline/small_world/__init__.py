"""A small drawn world in SWiG's layout, for machines without the real data.

It has real imSitu verbs, frames and WordNet nouns. Each verb has a look (a code
over five attributes), each noun too, and the definitions describe the looks. So
everything runs on it: training, open-vocabulary evaluation of verbs without
training images, and the training of the small foundation models.
"""

from input_pipeline.small_world.situations.config import WorldConfig
from input_pipeline.small_world.situations.folder import write_folder
from input_pipeline.small_world.situations.world import World, draw_world

__all__ = ["World", "WorldConfig", "draw_world", "write_folder"]
