"""What the numbers in an annotation file mean, by the names it lists."""

import collections
import dataclasses
import pathlib
from typing import Any

import numpy as np

from input_pipeline.hico_det.vocabulary import Vocabulary, shown
from input_pipeline.io.errors import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class Numbers:
  """What the numbers of a file are in the vocabulary; -1: not used there."""

  verbs: np.ndarray
  objects: np.ndarray
  interactions: np.ndarray


def same(words: Vocabulary) -> Numbers:
  """The vocabulary's own numbers."""
  counts = (len(words.verbs), len(words.objects), len(words))
  return Numbers(*(np.arange(n, dtype=np.int32) for n in counts))


def read(
  content: dict[str, Any], path: pathlib.Path, words: Vocabulary
) -> Numbers:
  """The file's own numbers where it has its lists of names, else ours.

  Raises:
    InputError: a list is of no use, or has a name that does not exist.
  """
  lists = [content.get(k) for k in ("verbs", "objects", "correspondence")]
  if all(found is None for found in lists):
    return same(words)
  if not all(isinstance(found, list) for found in lists):
    raise InputError(
      f"{path} has not all of 'verbs', 'objects', 'correspondence'",
      "give all three, or none for HICO-DET's own numbers",
    )
  verbs = _named(lists[0], words.verbs, path, "verbs")
  objects = _named(lists[1], words.objects, path, "objects")
  table = np.full(len(lists[2]), -1, np.int32)
  for number, row in enumerate(lists[2]):
    sizes = (len(table), len(objects), len(verbs))
    if (
      not isinstance(row, list)
      or len(row) != 3
      or any(
        type(x) is not int or not 0 <= x < n
        for x, n in zip(row, sizes, strict=False)
      )
    ):
      raise InputError(
        f"{path}: 'correspondence' {number} is {row!r}",
        "give [hoi, object, verb], numbers from 0",
      )
    if table[row[0]] >= 0:
      raise InputError(
        f"{path}: 'correspondence' has the interaction {row[0]} twice",
        "leave one of the two",
      )
    found = int(words.table[verbs[row[2]], objects[row[1]]])
    if found < 0:
      name = f"{lists[0][row[2]]} {lists[1][row[1]]}"
      raise InputError(
        f"{path}: 'correspondence' {number} is {name!r}, which is no "
        "interaction",
        "use the classes.json that belongs to the file",
      )
    table[row[0]] = found
  return Numbers(verbs, objects, table)


def _named(
  names: list[Any], known: tuple[str, ...], path: pathlib.Path, key: str
) -> np.ndarray:
  number = {name.replace("_", " "): i for i, name in enumerate(known)}
  plain = [str(name).replace("_", " ") for name in names]
  unknown = [name for name in plain if name not in number]
  twice = [name for name, n in collections.Counter(plain).items() if n > 1]
  if twice:
    raise InputError(
      f"{path}: {key!r} has {shown(map(repr, twice))} twice",
      "leave each name once",
    )
  if unknown:
    raise InputError(
      f"{path}: {key!r} has {shown(map(repr, unknown))}, which do not exist",
      "use the classes.json that belongs to the file",
    )
  return np.array([number[name] for name in plain], np.int32)
