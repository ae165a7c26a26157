"""The best that anybody can do on a small world's verbs.

Images of a verb show its code with noise (`WorldConfig.attribute_noise`), and
some noisy codes look more like another verb's. Who reads every attribute
rightly and knows every definition, unseen verbs' too, still errs on those.
"""

import itertools

import numpy as np
from jaxtyping import Float

from input_pipeline import schema
from input_pipeline.small_world import looks
from input_pipeline.small_world.situations.world import World


def verb_accuracy(world: World) -> dict[str, float]:
  """Expected verb top-1 of that reader, percent, by group of verbs.

  Exact: summed over all codes that an image may show. Ties are guessed. All
  verbs count as equally likely, so this is the ceiling of the average over
  verbs, and of each group's as long as no group is favoured.
  """
  right = _right(world)
  groups = np.array([verb.group for verb in world.verbs])
  return {
    group: float(100 * right[groups == group].mean()) for group in schema.GROUPS
  }


def _right(world: World) -> Float[np.ndarray, "v"]:
  """Each verb's expected accuracy, as a share."""
  sizes = [len(words) for words in looks.ATTRIBUTES.values()]
  shown = np.array(list(itertools.product(*map(range, sizes))))
  codes = np.array([verb.code for verb in world.verbs])
  noise = world.config.attribute_noise
  same = codes[:, None, :] == shown[None, :, :]
  likely = (np.where(same, 1 - noise, 0) + noise / np.array(sizes)).prod(-1)
  best = np.isclose(likely, likely.max(axis=0, keepdims=True), rtol=1e-9)
  return (likely * best / best.sum(axis=0)).sum(axis=1)
