"""A small drawn world in SWiG's layout, for machines without the real data.

Real imSitu verbs, frames and WordNet nouns; each verb has a look (a code over
five attributes) and so has each noun, and the definitions tell the looks in
words. So everything can be run on it: training, open-vocabulary evaluation
of verbs that no training image shows, and the foundation models before them.
"""

from input_pipeline.small_world.situations.config import WorldConfig
from input_pipeline.small_world.situations.folder import write_folder
from input_pipeline.small_world.situations.world import World, draw_world

__all__ = ["World", "WorldConfig", "draw_world", "write_folder"]
