"""Draws a world: its verbs and nouns, and their looks."""

import dataclasses
import functools
import itertools
import json
import pathlib
import random

from input_pipeline.io.errors import InputError
from input_pipeline.small_world import looks
from input_pipeline.small_world.situations.config import WorldConfig

_LEXICON = pathlib.Path(__file__).with_name("lexicon.json")
_NOUNS_PER_ROLE = 5
_LEAST_DISTANCE = 2


@dataclasses.dataclass(frozen=True)
class Noun:
  """A noun class: WordNet id, first gloss, and its look.

  `look` is (shape, colour, texture), or (tone, pattern) for a place, as words.
  """

  id: str
  gloss: str
  kind: str
  look: tuple[str, ...]

  @property
  def definition(self) -> str:
    if self.kind == "place":
      return f"a {self.look[0]} {self.look[1]} background"
    shape, colour, texture = self.look
    return f"a {texture} {colour} {shape} shape"


@dataclasses.dataclass(frozen=True)
class Verb:
  """A verb: its real frame, and its look in this world.

  Attributes:
    name: imSitu's name.
    roles: the roles of imSitu's frame, in order.
    group: "seen", "rare" or "unseen".
    code: a value per attribute of `looks.ATTRIBUTES`.
    preferred: the nouns that each role takes most often.
  """

  name: str
  roles: tuple[str, ...]
  group: str
  code: tuple[int, ...]
  preferred: dict[str, tuple[Noun, ...]]

  @property
  def definition(self) -> str:
    return ", ".join(looks.attribute_phrases(self.code))

  @property
  def abstract(self) -> str:
    """imSitu's style: capital letters stand for the roles."""
    first, *others = [role.upper() for role in self.roles]
    if not others:
      return f"it is {self.name} at a {first}"
    companions = " and a ".join(others[:-1])
    middle = f" with a {companions}" if companions else ""
    link = "at" if self.roles[-1] == "place" else "with"
    return f"the {first} is {self.name}{middle} {link} a {others[-1]}"


@dataclasses.dataclass(frozen=True)
class World:
  """A drawn world; equal configs give equal worlds."""

  config: WorldConfig
  verbs: tuple[Verb, ...]
  nouns: tuple[Noun, ...]

  @functools.cached_property
  def by_kind(self) -> dict[str, tuple[Noun, ...]]:
    kinds = {noun.kind for noun in self.nouns}
    return {k: tuple(n for n in self.nouns if n.kind == k) for k in kinds}

  @functools.cached_property
  def neighbour(self) -> dict[str, Noun]:
    """Noun id -> the noun of its kind that looks most like it."""
    return {noun.id: self._nearest(noun) for noun in self.nouns}

  def _nearest(self, noun: Noun) -> Noun:
    def distance(other: Noun) -> tuple[int, bool]:
      differs = [a != b for a, b in zip(noun.look, other.look, strict=True)]
      return sum(differs), not differs[-1]

    others = [n for n in self.by_kind[noun.kind] if n.id != noun.id]
    return min(others, key=distance)


def role_places(roles: tuple[str, ...]) -> dict[str, str]:
  """Where a frame's roles are drawn: role -> anchor.

  The first role is the actor; a tool is in its hand; the first other role is
  the main one, placed by the verb's layout; the rest fill the lower corners.
  """
  anchors = {"place": "background"}
  free = ["main", "lower left", "lower right"]
  for index, role in enumerate(r for r in roles if r != "place"):
    if index == 0:
      anchors[role] = "actor"
    elif looks.role_kind(role) == "tool" and "hand" not in anchors.values():
      anchors[role] = "hand"
    else:
      anchors[role] = free.pop(0)
  return {role: anchors[role] for role in roles}


def draw_world(config: WorldConfig) -> World:
  """Draws verbs, nouns, looks and groups from `config.seed`.

  Raises:
    InputError: more verbs or nouns are requested than the lexicon has.
  """
  lexicon = json.loads(_LEXICON.read_text())
  frames = {v: tuple(r.split()) for v, r in lexicon["verbs"].items()}
  have = len(frames), sum(len(words) for words in lexicon["nouns"].values())
  if config.num_verbs > have[0] or not 20 <= config.num_nouns <= have[1]:
    raise InputError(
      f"{config.num_verbs} verbs and {config.num_nouns} nouns asked for",
      f"ask for at most {have[0]} verbs and 20 to {have[1]} nouns",
    )
  rng = random.Random(config.seed)
  nouns = _draw_nouns(lexicon["nouns"], config.num_nouns, rng)
  names = _draw_verb_names(frames, config.num_verbs, rng)
  codes = _draw_codes(config.num_verbs, rng)
  groups = _draw_groups(names, frames, config, rng)
  verbs = [
    Verb(
      name=name,
      roles=frames[name],
      group=groups[name],
      code=code,
      preferred=_draw_preferred(frames[name], nouns, rng),
    )
    for name, code in zip(names, codes, strict=True)
  ]
  return World(config, tuple(verbs), tuple(nouns))


def _draw_nouns(
  lexicon: dict[str, dict[str, str]], count: int, rng: random.Random
) -> list[Noun]:
  total = sum(len(words) for words in lexicon.values())
  shares = {k: max(3, count * len(w) // total) for k, w in lexicon.items()}
  shares["agent"] += count - sum(shares.values())
  looks_left = list(
    itertools.product(looks.SHAPES, looks.COLOURS, looks.TEXTURES)
  )
  places_left = list(itertools.product(looks.TONES, looks.PATTERNS))
  rng.shuffle(looks_left)
  rng.shuffle(places_left)
  nouns = []
  for kind, words in lexicon.items():
    pool = places_left if kind == "place" else looks_left
    for gloss in list(words)[: shares[kind]]:
      nouns.append(Noun(words[gloss], gloss, kind, pool.pop()))
  return nouns


def _draw_verb_names(
  frames: dict[str, tuple[str, ...]], count: int, rng: random.Random
) -> list[str]:
  """A random choice with at least two verbs of every frame length."""
  shuffled = rng.sample(list(frames), len(frames))
  by_length: dict[int, list[str]] = {}
  for name in shuffled:
    by_length.setdefault(len(frames[name]), []).append(name)
  kept = [n for _, names in sorted(by_length.items()) for n in names[:2]]
  rest = [name for name in shuffled if name not in kept]
  return sorted((kept + rest)[:count])


def _draw_codes(count: int, rng: random.Random) -> list[tuple[int, ...]]:
  """Codes of which any two differ in at least two attributes."""
  sizes = [range(len(words)) for words in looks.ATTRIBUTES.values()]
  everything = list(itertools.product(*sizes))
  while True:
    chosen: list[tuple[int, ...]] = []
    for code in rng.sample(everything, len(everything)):
      if all(_distance(code, other) >= _LEAST_DISTANCE for other in chosen):
        chosen.append(code)
      if len(chosen) == count:
        return chosen


def _distance(a: tuple[int, ...], b: tuple[int, ...]) -> int:
  return sum(x != y for x, y in zip(a, b, strict=True))


def _draw_groups(
  names: list[str],
  frames: dict[str, tuple[str, ...]],
  config: WorldConfig,
  rng: random.Random,
) -> dict[str, str]:
  """Draws groups; if possible, seen verbs have all roles of the others."""
  groups = dict.fromkeys(names, "seen")
  wanted = ["unseen"] * config.num_unseen + ["rare"] * config.num_rare
  order = rng.sample(names, len(names))

  def lonely(name: str) -> int:
    others = [n for n in names if n != name and groups[n] == "seen"]
    trained = {role for n in others for role in frames[n]}
    return len(set(frames[name]) - trained)

  for group in wanted:
    left = [name for name in order if groups[name] == "seen"]
    groups[min(left, key=lonely)] = group
  return groups


def _draw_preferred(
  roles: tuple[str, ...], nouns: list[Noun], rng: random.Random
) -> dict[str, tuple[Noun, ...]]:
  preferred = {}
  for role in roles:
    kind = looks.role_kind(role)
    pool = [noun for noun in nouns if noun.kind == kind]
    preferred[role] = tuple(rng.sample(pool, min(_NOUNS_PER_ROLE, len(pool))))
  return preferred
