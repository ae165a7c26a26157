"""Verbs, objects and interactions of HICO-DET, or of another list of them.

An interaction is a (verb, object) pair. `classes.json` beside this module has
HICO-DET's 600 of 117 verbs and 80 objects; a folder may have its own:

  {"source": TEXT,
   "verbs": [[NAME, PHRASE], ...],              ["sit_on", "sitting on"]
   "objects": [[NAME, ARTICLE, COCO ID], ...],  ["bench", "a", 15]
   "interactions": [[verb, object], ...],       numbers, from 0
   "rare": [interaction, ...]}

The phrase makes the prompt "a photo of a person sitting on a bench"; for the
verb that means no interaction it is "and". One object is called "person".

Label banks, teachers and writers of rationales read a vocabulary of situations
(`as_vocabulary`). There an interaction is a verb named "a person riding a
bicycle", so that its prompt is "a photo of a person riding a bicycle"; it has
two roles, and the objects are the nouns.
"""

import dataclasses
import difflib
import functools
import hashlib
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig import vocabulary
from input_pipeline.ov_swig.layout import read_json

CLASSES_FILE = "classes.json"
PACKAGED = pathlib.Path(__file__).with_name(CLASSES_FILE)
PERSON = "person"
_PHRASE_OF_NONE = "and"
_SHOWN = 5
# Names of COCO objects in PASCAL VOC's and older detectors' lists.
_ALIASES = {
  "aeroplane": "airplane",
  "motorbike": "motorcycle",
  "sofa": "couch",
  "tvmonitor": "tv",
  "tv monitor": "tv",
  "television": "tv",
  "pottedplant": "potted plant",
  "diningtable": "dining table",
  "cellphone": "cell phone",
  "mobile phone": "cell phone",
  "doughnut": "donut",
  "hairdrier": "hair drier",
  "trafficlight": "traffic light",
  "stopsign": "stop sign",
  "firehydrant": "fire hydrant",
  "hairdryer": "hair drier",
  "hair dryer": "hair drier",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Vocabulary:
  """Numbered names: I interactions of V verbs and O objects.

  Attributes:
    verbs: names, such as 'sit_on'.
    phrases: per verb, the words between 'a person' and the object.
    objects: names, such as 'dining_table'.
    articles: per object, 'a' or 'an'.
    category_ids: int32 [O], numbers in COCO's annotations (1 to 90).
    verb_of, object_of: int32 [I], the verb and object of each interaction.
    rare: bool [I], fewer than 10 training pairs.
    sha256: digest of the file.
  """

  verbs: tuple[str, ...]
  phrases: tuple[str, ...]
  objects: tuple[str, ...]
  articles: tuple[str, ...]
  category_ids: np.ndarray
  verb_of: np.ndarray
  object_of: np.ndarray
  rare: np.ndarray
  sha256: str

  def __len__(self) -> int:
    """Number of interactions."""
    return len(self.verb_of)

  @functools.cached_property
  def person(self) -> int:
    """Number of the object "person"."""
    return self.objects.index(PERSON)

  @functools.cached_property
  def table(self) -> np.ndarray:
    """int32 [V, O]: the interaction of a verb and an object, -1 if none."""
    table = np.full((len(self.verbs), len(self.objects)), -1, np.int32)
    table[self.verb_of, self.object_of] = np.arange(len(self))
    return table

  @functools.cached_property
  def no_interaction(self) -> np.ndarray:
    """bool [I]: whether a person is only near the object."""
    none = [phrase == _PHRASE_OF_NONE for phrase in self.phrases]
    return np.array(none)[self.verb_of]

  @functools.cached_property
  def names(self) -> tuple[str, ...]:
    """'ride bicycle', one per interaction."""
    pairs = zip(self.verb_of, self.object_of, strict=True)
    return tuple(
      f"{self.verbs[v]} {self.objects[o]}".replace("_", " ") for v, o in pairs
    )

  @functools.cached_property
  def texts(self) -> tuple[str, ...]:
    """'a photo of a person riding a bicycle', one per interaction."""
    pairs = zip(self.verb_of, self.object_of, strict=True)
    return tuple(self.text(verb, object_) for verb, object_ in pairs)

  @functools.cached_property
  def object_texts(self) -> tuple[str, ...]:
    """'a photo of a bicycle', one per object."""
    pairs = zip(self.articles, self.objects, strict=True)
    return tuple(f"a photo of {a} {_words(name)}" for a, name in pairs)

  def text(self, verb: int, object_: int) -> str:
    """The prompt of any verb with any object, also without an interaction."""
    return (
      f"a photo of a person {self.phrases[verb]} {self.articles[object_]} "
      f"{_words(self.objects[object_])}"
    )

  def object_number(self, name: str) -> int | None:
    """Number of an object by its name in any spelling; None if unknown."""
    words = _plain(name)
    return self._object_numbers.get(_ALIASES.get(words, words))

  def near_object(self, name: str) -> str | None:
    """The object whose name is most similar to an unknown one, if any."""
    near = difflib.get_close_matches(
      _words(name).lower(), map(_words, self.objects), 1, 0.75
    )
    return near[0] if near else None

  def interactions(self, names: Iterable[str], where: str) -> np.ndarray:
    """int32 numbers of interactions by name, such as 'ride bicycle'.

    Raises:
      InputError: names that do not exist; the message lists them.
    """
    names = list(names)
    numbers = [self._interaction_number(name) for name in names]
    wrong = [n for n, x in zip(names, numbers, strict=True) if x is None]
    if wrong:
      raise InputError(
        f"{where}: no interaction is called {shown(map(repr, wrong))}",
        "write verb and object as classes.json has them, 'ride bicycle'",
      )
    return np.array(numbers, np.int32)

  def _interaction_number(self, name: str) -> int | None:
    """Number of an interaction by its name in any spelling, or None."""
    number = self._interaction_numbers.get(_words(name))
    if number is not None:
      return number
    plain = _plain(name)
    for alias, word in _ALIASES.items():
      if plain.endswith(f" {alias}"):
        plain = plain.removesuffix(alias) + word
        break
    return self._plain_interactions.get(plain)

  @functools.cached_property
  def _object_numbers(self) -> dict[str, int]:
    return {_plain(name): i for i, name in enumerate(self.objects)}

  @functools.cached_property
  def _interaction_numbers(self) -> dict[str, int]:
    return {name: i for i, name in enumerate(self.names)}

  @functools.cached_property
  def _plain_interactions(self) -> dict[str, int]:
    return {_plain(name): i for i, name in enumerate(self.names)}


def load(path: str | pathlib.Path | None = None) -> Vocabulary:
  """Reads a list of classes; HICO-DET's own if there is no path.

  Args:
    path: a file of the form above, or a folder that may have one.

  Raises:
    InputError: the file is not of that form.
  """
  path = pathlib.Path(path) if path is not None else PACKAGED
  if path.is_dir():
    inside = path / CLASSES_FILE
    path = inside if inside.exists() else PACKAGED
  if path == PACKAGED:
    return _packaged()
  return _load(path)


@functools.cache
def _packaged() -> Vocabulary:
  return _load(PACKAGED)


def shown(names: Iterable[str], limit: int = _SHOWN) -> str:
  """The first few of a list, for messages."""
  names = list(names)
  return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")


def _load(path: pathlib.Path) -> Vocabulary:
  content = read_json(path)
  rows = {
    "verbs": (str, str),
    "objects": (str, str, int),
    "interactions": (int, int),
  }
  if not isinstance(content, dict):
    raise _wrong(path, f"holds a {type(content).__name__}")
  for key, types in rows.items():
    _check_rows(path, key, content.get(key), types)
  verbs, phrases = zip(*content["verbs"], strict=True)
  objects, articles, ids = zip(*content["objects"], strict=True)
  _check_names(path, verbs, objects)
  _check_pairs(path, content["interactions"], (len(verbs), len(objects)))
  pairs = np.array(content["interactions"], np.int32)
  if len(set(ids)) < len(ids):
    raise _wrong(path, "gives two objects one COCO id")
  if not all(0 <= number < 2**31 for number in ids):
    raise _wrong(path, f"has COCO ids that are invalid, such as {max(ids)}")
  rare = np.zeros(len(pairs), bool)
  rare[_numbers(path, content.get("rare"), len(pairs))] = True
  return Vocabulary(
    verbs=verbs,
    phrases=phrases,
    objects=objects,
    articles=articles,
    category_ids=np.array(ids, np.int32),
    verb_of=pairs[:, 0],
    object_of=pairs[:, 1],
    rare=rare,
    sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
  )


def _check_rows(
  path: pathlib.Path, key: str, rows: Any, types: tuple[type, ...]
) -> None:
  if not isinstance(rows, list) or not rows:
    raise _wrong(path, f"has no list {key!r}")
  for number, row in enumerate(rows):
    fits = (
      isinstance(row, list)
      and len(row) == len(types)
      and all(type(x) is t for x, t in zip(row, types, strict=True))
    )
    if not fits:
      raise _wrong(path, f"has {row!r} as entry {number} of {key!r}")


def _check_names(
  path: pathlib.Path, verbs: tuple[str, ...], objects: tuple[str, ...]
) -> None:
  for key, names in (("verb", verbs), ("object", objects)):
    seen: set[str] = set()
    for name in names:
      if _words(name) in seen:
        raise _wrong(path, f"has the {key} {name!r} twice")
      seen.add(_words(name))
  if PERSON not in objects:
    raise _wrong(path, f"has no object {PERSON!r}")


def _check_pairs(
  path: pathlib.Path, pairs: list[list[int]], sizes: tuple[int, int]
) -> None:
  for row, (verb, object_) in enumerate(pairs):
    if not (0 <= verb < sizes[0] and 0 <= object_ < sizes[1]):
      raise _wrong(
        path,
        f"has {pairs[row]} as interaction {row}, of {sizes[0]} verbs and "
        f"{sizes[1]} objects",
      )
  if len(set(map(tuple, pairs))) < len(pairs):
    raise _wrong(path, "has an interaction twice")


def _numbers(path: pathlib.Path, rare: Any, size: int) -> list[int]:
  if not isinstance(rare, list) or not all(
    type(x) is int and 0 <= x < size for x in rare
  ):
    raise _wrong(path, f"has no list 'rare' of numbers from 0 to {size - 1}")
  return rare


def _words(name: str) -> str:
  return name.replace("_", " ")


def _plain(name: str) -> str:
  """A name in lower case, with single spaces instead of hyphens."""
  return " ".join(_words(name).replace("-", " ").lower().split())


def _wrong(path: pathlib.Path, what: str) -> InputError:
  return InputError(
    f"{path} {what}", "docs/hico_det.md shows the form of classes.json"
  )


ROLES = ("person", "object")
_PHOTO = "a photo of "


def as_vocabulary(words: Vocabulary) -> vocabulary.Vocabulary:
  """These names as a vocabulary of situations, with the same numbers."""
  count, things = len(words), len(words.objects)
  return vocabulary.Vocabulary(
    verbs=tuple(text.removeprefix(_PHOTO) for text in words.texts),
    roles=ROLES,
    nouns=words.objects,
    frames=((0, 1),) * count,
    verb_definitions=("",) * count,
    verb_abstracts=("",) * count,
    role_definitions=("",) * len(ROLES),
    noun_glosses=tuple((name.replace("_", " "),) for name in words.objects),
    noun_definitions=("",) * things,
  )
