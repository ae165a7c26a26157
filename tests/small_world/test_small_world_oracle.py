"""The ceiling of a small world, against scenes that are drawn."""

import dataclasses

import numpy as np
import pytest

from input_pipeline import schema
from input_pipeline.small_world import WorldConfig, draw_world, looks
from input_pipeline.small_world.situations import oracle
from input_pipeline.small_world.situations.scenes import draw_scene


def _guess(world, code):
  """The likeliest verb of a code, the slow way; None for a tie."""
  noise = world.config.attribute_noise
  sizes = [len(words) for words in looks.ATTRIBUTES.values()]

  def likelihood(verb):
    product = 1.0
    for value, true, size in zip(code, verb.code, sizes, strict=True):
      product *= noise / size + (1 - noise) * (value == true)
    return product

  values = [likelihood(verb) for verb in world.verbs]
  first, second = sorted(values)[-1:-3:-1]
  return None if np.isclose(first, second) else int(np.argmax(values))


def test_is_what_an_oracle_gets_of_drawn_scenes():
  noisy = dataclasses.replace(WorldConfig.tiny(), attribute_noise=0.4)
  world = draw_world(noisy)
  rng = np.random.default_rng(0)
  hits = {group: [] for group in schema.GROUPS}
  for number, verb in enumerate(world.verbs):
    for _ in range(400):
      guess = _guess(world, draw_scene(world, verb, rng).code)
      # Ties of two are guessed right half of the time; of more they are rare.
      hits[verb.group].append(0.5 if guess is None else guess == number)
  found = oracle.verb_accuracy(world)
  for group, values in hits.items():
    assert found[group] == pytest.approx(100 * np.mean(values), abs=4), group
    assert found[group] < 97


def test_without_noise_nothing_is_missed():
  world = draw_world(dataclasses.replace(WorldConfig(), attribute_noise=0.0))
  assert oracle.verb_accuracy(world) == pytest.approx(
    dict.fromkeys(schema.GROUPS, 100.0)
  )
