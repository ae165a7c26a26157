"""Draws a scene of persons and objects, as data and as an image."""

import dataclasses
import types

import numpy as np
from PIL import Image, ImageDraw

from input_pipeline.small_world import looks, painting, sprites
from input_pipeline.small_world.interactions.world import (
  ATTRIBUTES,
  Interaction,
  PairObject,
  PairWorld,
)

PERSON_SHAPE = "tall"
# Layout -> centres of person and object as shares of the pair's region, and
# their sizes as shares of its shorter side.
_LAYOUTS = {
  "beside": ((0.29, 0.52), (0.71, 0.54), 0.50, 0.38),
  "above": ((0.50, 0.28), (0.50, 0.74), 0.46, 0.42),
  "below": ((0.50, 0.72), (0.50, 0.26), 0.46, 0.42),
  "inside": ((0.50, 0.50), (0.50, 0.50), 0.40, 0.84),
  "overlapping": ((0.42, 0.45), (0.62, 0.60), 0.50, 0.44),
  "apart": ((0.22, 0.66), (0.79, 0.28), 0.46, 0.34),
}
# Regions by number of pairs: x, y, width, height as shares of the image.
_REGIONS = {
  1: ((0.0, 0.0, 1.0, 1.0),),
  2: ((0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 0.5, 1.0)),
  3: ((0.0, 0.0, 0.5, 0.5), (0.5, 0.0, 0.5, 0.5), (0.25, 0.5, 0.5, 0.5)),
}
_JITTER = 0.03
_MARK = 0.45  # side, as a share of the object's size


@dataclasses.dataclass(frozen=True)
class ScenePair:
  """A person and its object.

  Attributes:
    thing: number of the object.
    code: a value per attribute of ATTRIBUTES.
    labels: numbers of its interactions; empty if there are none.
    person, object_: (centre in pixels, size in pixels).
    colour: colour of the person.
  """

  thing: int
  code: tuple[int, ...]
  labels: tuple[int, ...]
  person: tuple[tuple[float, float], float]
  object_: tuple[tuple[float, float], float]
  colour: str


@dataclasses.dataclass(frozen=True)
class PairScene:
  """One image's content."""

  world: PairWorld
  width: int
  height: int
  tone: tuple[str, str]
  pairs: tuple[ScenePair, ...]

  @property
  def verb(self) -> Interaction:
    """The first interaction of the first pair, which is never idle."""
    return self.world.verbs[self.pairs[0].labels[0]]

  @property
  def fillers(self) -> dict[str, PairObject]:
    """The other things that a question may ask for, by role."""
    return {"object": self.verb.thing}

  def boxes(self, pair: ScenePair) -> np.ndarray:
    """int [2, 4] pixels from 0, corners inside: the person, the object."""
    shape = self.world.objects[pair.thing].look[0]
    limit = np.array([self.width, self.height] * 2) - 1
    corners = []
    for (centre, size), kind in (
      (pair.person, PERSON_SHAPE),
      (pair.object_, shape),
    ):
      half = np.array(half_size(kind, size))
      low, high = np.subtract(centre, half), np.add(centre, half) - 1
      corners.append(np.clip(np.round([*low, *high]), 0, limit))
    return np.array(corners, np.int64)


def half_size(shape: str, size: float) -> tuple[float, float]:
  """Half of the width and height of a sprite of this shape."""
  return (
    size * (0.26 if shape == "tall" else 0.5),
    size * (0.26 if shape == "flat" else 0.5),
  )


def draw_scene(
  world: PairWorld, rng: np.random.Generator, first: int | None = None
) -> PairScene:
  """Draws one scene.

  Args:
    world: the world.
    rng: source of all random numbers.
    first: an interaction of the first pair; None: drawn.
  """
  config = world.config
  width, height = config.side, round(config.side * rng.uniform(0.8, 1.0))
  chances = np.array(config.people) / sum(config.people)
  count = 1 + int(rng.choice(len(chances), p=chances))
  pairs = []
  for place, region in enumerate(_REGIONS[count]):
    idle = place > 0 and rng.random() < config.idle
    wanted = first if place == 0 and first is not None else _pick(world, rng)
    pairs.append(_draw_pair(world, wanted, idle, region, (width, height), rng))
  tone = (
    str(rng.choice(list(looks.TONES))),
    str(rng.choice(list(looks.PATTERNS))),
  )
  return PairScene(world, width, height, tone, tuple(pairs))


def _pick(world: PairWorld, rng: np.random.Generator) -> int:
  weights = np.array(world.weights)
  return int(rng.choice(len(weights), p=weights / weights.sum()))


def _draw_pair(world, wanted, idle, region, size, rng) -> ScenePair:
  verb, thing = world.interactions[wanted]
  sizes = [len(words) for words in ATTRIBUTES.values()]
  asked = world.actions[verb].code
  while True:
    drawn = tuple(int(rng.integers(n)) for n in sizes)
    if not idle:
      drawn = tuple(
        b if a < 0 else a for a, b in zip(asked, drawn, strict=True)
      )
    labels = world.labels(drawn, thing)
    if not (idle and labels):
      break
  if not idle:  # the wanted one first: captions name it
    labels = (wanted, *(label for label in labels if label != wanted))
  x, y, w, h = (
    share * extent for share, extent in zip(region, (*size, *size), strict=True)
  )
  shorter = min(w, h)
  person_at, object_at, *shares = _LAYOUTS[ATTRIBUTES["layout"][drawn[0]]]
  spots = []
  for at, share in zip((person_at, object_at), shares, strict=True):
    jitter = rng.uniform(-_JITTER, _JITTER, 3)
    centre = (
      x + w / 2 + (at[0] - 0.5 + jitter[0]) * shorter,
      y + h / 2 + (at[1] - 0.5 + jitter[1]) * shorter,
    )
    spots.append((centre, shorter * share * (1 + jitter[2])))
  colour = str(rng.choice(list(looks.COLOURS)))
  return ScenePair(thing, drawn, labels, *spots, colour)


def draw(scene: PairScene) -> Image.Image:
  """The scene as an RGB image of its width and height."""
  image = sprites.background(*scene.tone).resize(
    (scene.width, scene.height), Image.Resampling.BILINEAR
  )
  for pair in scene.pairs:
    _draw_objects(image, scene, pair)
  pen = ImageDraw.Draw(image)
  for pair in scene.pairs:
    _, mark, arms, link = (
      words[value]
      for words, value in zip(ATTRIBUTES.values(), pair.code, strict=True)
    )
    spots = types.SimpleNamespace(actor=pair.person, main=pair.object_)
    painting.draw_link(pen, spots, link)
    painting.draw_actor(pen, spots, arms)
    (x, y), size = pair.object_
    side = round(_MARK * size)
    left, top = round(x + 0.1 * size), round(y + 0.05 * size)
    painting.paste(image, sprites.mark(mark), left, top, side, side)
  return image


def _draw_objects(image, scene, pair) -> None:
  """Draws the object, and the person's body in front of it."""
  look = scene.world.objects[pair.thing].look
  for (centre, size), shown in (
    (pair.object_, look),
    (pair.person, (PERSON_SHAPE, pair.colour, "plain")),
  ):
    half = half_size(shown[0], size)
    left, top = (round(c - h) for c, h in zip(centre, half, strict=True))
    width, height = (round(2 * h) for h in half)
    painting.paste(image, sprites.thing(*shown), left, top, width, height)
