"""Draws a small world of interactions: verbs, objects, and their pairs.

Verbs and objects have HICO-DET's names, but looks of this world. A verb
requires some of four attributes of a pair and leaves the others open, so a
pair may have several verbs. The verb's phrase names these attributes, so an
interaction without training pairs can be recognised from its text.
"""

import dataclasses
import functools
import itertools
import random
from collections.abc import Mapping

from input_pipeline.hico_det import vocabulary
from input_pipeline.io.errors import InputError
from input_pipeline.small_world import looks
from input_pipeline.small_world.interactions.config import PairWorldConfig

# Attributes of a pair -> their words, as in `looks`; and -> their phrases.
ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
  name: looks.ATTRIBUTES[name] for name in ("layout", "mark", "arms", "link")
}
PHRASES: Mapping[str, str] = {
  "layout": "{}",
  "mark": "with {}",
  "arms": "arms {}",
  "link": "{}",
}
ASKED = (2, 3, 3, 3)  # numbers of required attributes, to draw from
NO_INTERACTION = ("no_interaction", "and")
SPLITS = ("UC", "UV", "UO")
_RARE_WEIGHT = 0.05


@dataclasses.dataclass(frozen=True)
class PairVerb:
  """A verb: HICO-DET's name and participle, and the attributes it requires.

  `code` has a value per attribute of ATTRIBUTES, -1 for any value.
  """

  name: str
  participle: str
  code: tuple[int, ...]

  @property
  def phrase(self) -> str:
    """The words between "a person" and the object."""
    return " ".join([self.participle, *attribute_phrases(self.code)])

  def fits(self, code: tuple[int, ...]) -> bool:
    """Whether a pair of this code has the verb."""
    return all(a in (-1, b) for a, b in zip(self.code, code, strict=True))


@dataclasses.dataclass(frozen=True)
class PairObject:
  """An object: HICO-DET's name and article; shape, colour, texture."""

  name: str
  article: str
  category_id: int
  look: tuple[str, str, str]

  @property
  def gloss(self) -> str:
    return self.name.replace("_", " ")

  @property
  def definition(self) -> str:
    shape, colour, texture = self.look
    return f"a {texture} {colour} {shape} shape"


@dataclasses.dataclass(frozen=True)
class Interaction:
  """A verb with an object; `group` is that of the split UV."""

  verb: PairVerb
  thing: PairObject
  group: str

  @property
  def name(self) -> str:
    """The prompt without "a photo of"."""
    return (
      f"a person {self.verb.phrase} {self.thing.article} {self.thing.gloss}"
    )

  @property
  def definition(self) -> str:
    return " ".join(attribute_phrases(self.verb.code))


@dataclasses.dataclass(frozen=True)
class PairWorld:
  """A drawn world; equal configs give equal worlds.

  Attributes:
    config: its settings.
    actions: the verbs, without "no interaction".
    objects: the objects, without persons.
    interactions: numbers of (verb, object), sorted by object, then verb.
    weights: relative frequency of each interaction; small for rare ones.
    unseen: per name of SPLITS, numbers of its unseen interactions.
  """

  config: PairWorldConfig
  actions: tuple[PairVerb, ...]
  objects: tuple[PairObject, ...]
  interactions: tuple[tuple[int, int], ...]
  weights: tuple[float, ...]
  unseen: Mapping[str, tuple[int, ...]]

  @functools.cached_property
  def verbs(self) -> tuple[Interaction, ...]:
    """The interactions, under the name that trainers of encoders use."""
    unseen = set(self.unseen["UV"])
    return tuple(
      Interaction(
        self.actions[verb],
        self.objects[thing],
        "unseen"
        if number in unseen
        else "rare"
        if self.weights[number] < 1
        else "seen",
      )
      for number, (verb, thing) in enumerate(self.interactions)
    )

  @functools.cached_property
  def of_object(self) -> Mapping[int, tuple[int, ...]]:
    """Numbers of the interactions with each object."""
    return {
      thing: tuple(
        i for i, (_, other) in enumerate(self.interactions) if other == thing
      )
      for thing in range(len(self.objects))
    }

  def labels(self, code: tuple[int, ...], thing: int) -> tuple[int, ...]:
    """Interactions of a pair of this code with this object."""
    return tuple(
      i for i in self.of_object[thing] if self.verbs[i].verb.fits(code)
    )


def attribute_phrases(code: tuple[int, ...]) -> list[str]:
  """The phrases of a code: "above", "arms raised", ...; without open ones."""
  return [
    PHRASES[name].format(words[value])
    for (name, words), value in zip(ATTRIBUTES.items(), code, strict=True)
    if value >= 0
  ]


def attribute_words(code: tuple[int, ...]) -> list[str]:
  """The words of a code's values: "above", "raised", ...; without open ones."""
  return [
    words[value]
    for words, value in zip(ATTRIBUTES.values(), code, strict=True)
    if value >= 0
  ]


def draw_world(config: PairWorldConfig) -> PairWorld:
  """Draws verbs, objects, interactions and splits from `config.seed`.

  Raises:
    InputError: more verbs or objects are requested than HICO-DET has.
  """
  names = vocabulary.load()
  rng = random.Random(config.seed)
  objects = _objects(names, config.num_objects, rng)
  actions = _actions(names, config.num_verbs, rng)
  low, high = config.objects_per_verb
  pairs = {
    (verb, thing)
    for verb in range(len(actions))
    for thing in rng.sample(range(len(objects)), rng.randint(low, high))
  }
  # Every object has two verbs or more; with one, its name would be enough.
  for thing in range(len(objects)):
    free = [v for v in range(len(actions)) if (v, thing) not in pairs]
    has = len(actions) - len(free)
    pairs |= {(verb, thing) for verb in rng.sample(free, max(0, 2 - has))}
  interactions = sorted(pairs, key=lambda pair: pair[::-1])
  rare = set(_some(range(len(interactions)), config.rare_share, rng))
  weights = [_RARE_WEIGHT if i in rare else 1.0 for i in range(len(pairs))]
  return PairWorld(
    config,
    actions,
    objects,
    tuple(interactions),
    tuple(weights),
    _unseen(interactions, config.unseen_share, rng),
  )


def _objects(
  names: vocabulary.Vocabulary, count: int, rng: random.Random
) -> tuple[PairObject, ...]:
  pool = [i for i in range(len(names.objects)) if i != names.person]
  if not 2 <= count <= len(pool):
    raise InputError(
      f"{count} objects asked for", f"ask for 2 to {len(pool)} objects"
    )
  seen = itertools.product(looks.SHAPES, looks.COLOURS, looks.TEXTURES)
  shown = rng.sample(list(seen), count)
  return tuple(
    PairObject(
      names.objects[i], names.articles[i], int(names.category_ids[i]), look
    )
    for i, look in zip(sorted(rng.sample(pool, count)), shown, strict=True)
  )


def _actions(
  names: vocabulary.Vocabulary, count: int, rng: random.Random
) -> tuple[PairVerb, ...]:
  pool = [i for i, x in enumerate(names.verbs) if x != NO_INTERACTION[0]]
  if count > len(pool):
    raise InputError(
      f"{count} verbs asked for", f"ask for at most {len(pool)} verbs"
    )
  sizes = [len(words) for words in ATTRIBUTES.values()]
  codes: list[tuple[int, ...]] = []
  while len(codes) < count:
    asked = rng.sample(range(len(sizes)), rng.choice(ASKED))
    code = tuple(
      rng.randrange(size) if i in asked else -1 for i, size in enumerate(sizes)
    )
    if code not in codes:
      codes.append(code)
  return tuple(
    PairVerb(names.verbs[i], names.phrases[i], code)
    for i, code in zip(sorted(rng.sample(pool, count)), codes, strict=True)
  )


def _unseen(
  interactions: list[tuple[int, int]], share: float, rng: random.Random
) -> dict[str, tuple[int, ...]]:
  """Unseen interactions of each split.

  UC has compositions whose verb and object stay seen; UV and UO have all
  interactions of some verbs or objects.
  """
  verbs = sorted({verb for verb, _ in interactions})
  things = sorted({thing for _, thing in interactions})
  gone_verbs = set(_some(verbs, share, rng))
  gone_things = set(_some(things, share, rng))
  wanted = max(1, round(share * len(interactions)))
  left, gone = list(interactions), []
  for pair in rng.sample(interactions, len(interactions)):
    rest = [other for other in left if other != pair]
    stays = (
      {v for v, _ in rest} >= set(verbs),
      {t for _, t in rest} >= set(things),
    )
    if len(gone) < wanted and all(stays):
      left, gone = rest, [*gone, pair]
  number = {pair: i for i, pair in enumerate(interactions)}
  return {
    "UC": tuple(sorted(number[pair] for pair in gone)),
    "UV": tuple(i for p, i in number.items() if p[0] in gone_verbs),
    "UO": tuple(i for p, i in number.items() if p[1] in gone_things),
  }


def _some(pool, share: float, rng: random.Random) -> list:
  """A random share of the pool, at least one."""
  pool = list(pool)
  return rng.sample(pool, max(1, round(share * len(pool))))
