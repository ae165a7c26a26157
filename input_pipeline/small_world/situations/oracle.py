"""The highest possible accuracy on a small world's verbs.

Images of a verb show its code with noise (`WorldConfig.attribute_noise`), and
some noisy codes are closer to another verb's. An oracle that reads every
attribute correctly and knows all definitions, also of unseen verbs, still errs
on these.
"""

import itertools

import numpy as np
from jaxtyping import Float

from input_pipeline import schema
from input_pipeline.small_world import looks
from input_pipeline.small_world.situations.world import World


def verb_accuracy(world: World) -> dict[str, float]:
  """Expected verb top-1 accuracy of the oracle, percent, by group of verbs.

  Exact: the sum over all codes that an image may show. Ties are guessed. All
  verbs are equally likely, so this bounds the average over verbs, and each
  group's accuracy if no group is favoured.
  """
  right = _right(world)
  groups = np.array([verb.group for verb in world.verbs])
  return {
    group: float(100 * right[groups == group].mean()) for group in schema.GROUPS
  }


def _right(world: World) -> Float[np.ndarray, "v"]:
  """Each verb's expected accuracy, 0 to 1."""
  sizes = [len(words) for words in looks.ATTRIBUTES.values()]
  shown = np.array(list(itertools.product(*map(range, sizes))))
  codes = np.array([verb.code for verb in world.verbs])
  noise = world.config.attribute_noise
  same = codes[:, None, :] == shown[None, :, :]
  likely = (np.where(same, 1 - noise, 0) + noise / np.array(sizes)).prod(-1)
  best = np.isclose(likely, likely.max(axis=0, keepdims=True), rtol=1e-9)
  return (likely * best / best.sum(axis=0)).sum(axis=1)
