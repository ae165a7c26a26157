"""Draws a scene: one image's verb, nouns, layout and annotations."""

import dataclasses

import numpy as np

from input_pipeline.schema import ANNOTATORS
from input_pipeline.small_world import looks
from input_pipeline.small_world.situations.world import (
  Noun,
  Verb,
  World,
  role_places,
)

# Layout -> centres of the actor and of the main other thing, as shares of
# width and height, and their sizes as shares of the shorter side.
_LAYOUTS = {
  "beside": ((0.31, 0.50), (0.72, 0.52), 0.32, 0.30),
  "above": ((0.50, 0.34), (0.50, 0.72), 0.32, 0.30),
  "below": ((0.50, 0.66), (0.50, 0.27), 0.32, 0.30),
  "inside": ((0.50, 0.50), (0.50, 0.50), 0.26, 0.66),
  "overlapping": ((0.43, 0.45), (0.61, 0.60), 0.32, 0.34),
  "apart": ((0.27, 0.66), (0.75, 0.38), 0.32, 0.26),
}
# Other anchors -> centre and size; "hand" is added to the actor's centre.
_ANCHORS = {
  "hand": ((-0.25, 0.0), 0.20),
  "lower left": ((0.13, 0.86), 0.23),
  "lower right": ((0.87, 0.86), 0.23),
}
_CENTRE_JITTER = 0.03
_SIZE_JITTER = 0.1


@dataclasses.dataclass(frozen=True)
class Thing:
  """A drawn noun with its centre (x, y) and size in pixels."""

  role: str
  anchor: str
  noun: Noun
  centre: tuple[float, float]
  size: float

  @property
  def box(self) -> tuple[float, float, float, float]:
    """Its corners x1, y1, x2, y2 in pixels."""
    shape = self.noun.look[0]
    half_width = self.size * (0.26 if shape == "tall" else 0.5)
    half_height = self.size * (0.26 if shape == "flat" else 0.5)
    x, y = self.centre
    return (x - half_width, y - half_height, x + half_width, y + half_height)


@dataclasses.dataclass(frozen=True)
class Scene:
  """One image's content.

  Attributes:
    verb: the verb.
    code: the verb's code, with this image's noise.
    width, height: size in pixels.
    actor, main: centre and size of the actor and of the main other thing,
      whether or not they are drawn.
    things: what is drawn on the background, from back to front.
    background: the noun of the drawn place.
    fillers: role -> its noun, drawn or hidden; None if blank.
    frames: three annotators' nouns, role -> WordNet id or "".
  """

  verb: Verb
  code: tuple[int, ...]
  width: int
  height: int
  actor: tuple[tuple[float, float], float]
  main: tuple[tuple[float, float], float]
  things: tuple[Thing, ...]
  background: Noun
  fillers: dict[str, Noun | None]
  frames: tuple[dict[str, str], ...]

  @property
  def main_role(self) -> str | None:
    """The role that the layout places, if the frame has one."""
    anchors = role_places(self.verb.roles)
    return next((r for r, at in anchors.items() if at == "main"), None)

  def boxes(self) -> dict[str, list[int]]:
    """Role -> whole pixel corners inside the image; four -1 if absent."""
    boxes = {role: [-1] * 4 for role in self.verb.roles}
    for thing in self.things:
      x1, y1, x2, y2 = thing.box
      boxes[thing.role] = [
        max(0, round(x1)),
        max(0, round(y1)),
        min(self.width, round(x2)),
        min(self.height, round(y2)),
      ]
    return boxes


def draw_scene(world: World, verb: Verb, rng: np.random.Generator) -> Scene:
  """Draws one scene of `verb`."""
  config = world.config
  width, height = _draw_size(world, rng)
  code = tuple(
    int(rng.integers(len(words))) if noisy < config.attribute_noise else value
    for value, words, noisy in zip(
      verb.code, looks.ATTRIBUTES.values(), rng.random(5), strict=True
    )
  )
  actor_at, main_at, actor_size, main_size = _LAYOUTS[looks.LAYOUTS[code[0]]]
  actor = _place(actor_at, actor_size, width, height, rng)
  main = _place(main_at, main_size, width, height, rng)
  fillers, hidden = _draw_fillers(world, verb, rng)
  things = []
  for role, anchor in role_places(verb.roles).items():
    noun = fillers[role]
    if anchor == "background" or noun is None or role in hidden:
      continue
    if anchor in ("actor", "main"):
      spot = actor if anchor == "actor" else main
    else:
      at, size = _ANCHORS[anchor]
      if anchor == "hand":
        at = (actor_at[0] + at[0], actor_at[1] + at[1])
      spot = _place(at, size, width, height, rng)
    things.append(Thing(role, anchor, noun, *spot))
  order = ("main", "lower left", "lower right", "actor", "hand")
  things.sort(key=lambda thing: order.index(thing.anchor))
  place = fillers.get("place")
  return Scene(
    verb=verb,
    code=code,
    width=width,
    height=height,
    actor=actor,
    main=main,
    things=tuple(things),
    background=place or _any(world.by_kind["place"], rng),
    fillers=fillers,
    frames=_draw_frames(world, fillers, rng),
  )


def _draw_size(world: World, rng: np.random.Generator) -> tuple[int, int]:
  least, most = world.config.longer_side
  longer = int(rng.integers(least, most + 1))
  low, high = np.log(world.config.aspect)
  aspect = float(np.exp(rng.uniform(low, high)))
  if aspect >= 1:
    return longer, round(longer / aspect)
  return round(longer * aspect), longer


def _place(
  at: tuple[float, float],
  size: float,
  width: int,
  height: int,
  rng: np.random.Generator,
) -> tuple[tuple[float, float], float]:
  """Jitters a centre and a size inside the image; returns pixels."""
  shorter = min(width, height)
  jitter = rng.uniform(-1, 1, 3)
  pixels = size * shorter * (1 + _SIZE_JITTER * float(jitter[2]))
  centre = []
  for share, extent, move in zip(at, (width, height), jitter, strict=False):
    moved = share * extent + _CENTRE_JITTER * float(move) * shorter
    centre.append(min(max(moved, pixels / 2), extent - pixels / 2))
  return (centre[0], centre[1]), pixels


def _draw_fillers(
  world: World, verb: Verb, rng: np.random.Generator
) -> tuple[dict[str, Noun | None], set[str]]:
  """Role -> noun or None, and the roles that are hidden."""
  config = world.config
  fillers: dict[str, Noun | None] = {}
  hidden = set()
  for index, role in enumerate(verb.roles):
    is_place = role == "place"
    u = rng.random(3)
    if u[0] < config.preferred:
      pool = verb.preferred[role]
    else:
      pool = world.by_kind[looks.role_kind(role)]
    fillers[role] = _any(pool, rng)
    if index == 0 and not is_place:
      continue
    if u[1] < config.blank:
      fillers[role] = None
    elif u[2] < config.hidden and not is_place:
      hidden.add(role)
  return fillers, hidden


def _draw_frames(
  world: World, fillers: dict[str, Noun | None], rng: np.random.Generator
) -> tuple[dict[str, str], ...]:
  """The nouns of three annotators; each role has at least one correct one."""
  config = world.config
  frames: list[dict[str, str]] = [{} for _ in range(ANNOTATORS)]
  for role, noun in fillers.items():
    right = int(rng.integers(ANNOTATORS))
    for annotator, u in enumerate(rng.random(ANNOTATORS)):
      named = noun.id if noun else ""
      if noun and annotator != right:
        if u < config.slip:
          named = world.neighbour[noun.id].id
        elif u < config.slip + config.skip:
          named = ""
      frames[annotator][role] = named
  return tuple(frames)


def _any(pool: tuple[Noun, ...], rng: np.random.Generator) -> Noun:
  return pool[int(rng.integers(len(pool)))]
