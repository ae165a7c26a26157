"""`instances_train2015.json` of UPT, and plain lists of the same entries.

  {"annotation": [{"boxes_h": [[x1, y1, x2, y2], ...], "boxes_o": [...],
                   "hoi": [...], "verb": [...], "object": [...]}, ...],
   "filenames": [...], "size": [[width, height], ...], "empty": [...],
   "verbs": [...], "objects": [...], "correspondence": [[hoi, object, verb]]}

One entry of each list is one label. `hoi` has numbers from 0, or names such
as "ride bicycle". `verbs`, `objects` and `correspondence` give the meaning of
the numbers: releases of the file number the objects by name (a person is 49)
or as COCO does (a person is 0), so names decide if they are given.

Two fields are ours, for parts of HICO-DET's own file that these files lack:
`invis`, a bool per label (the metric leaves these out), and `image_hoi`, the
labels of the image as a whole.
"""

import collections
import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from input_pipeline.hico_det.records import ImageLabels
from input_pipeline.hico_det.sources import parsing
from input_pipeline.hico_det.vocabulary import Vocabulary, shown
from input_pipeline.io.errors import InputError
from input_pipeline.io.findings import Place, RecordError


@dataclasses.dataclass(frozen=True, eq=False)
class Numbers:
  """A file's numbers -> the vocabulary's numbers; -1: not used in the file."""

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
  """The file's own numbers if it has lists of names, else the vocabulary's.

  Raises:
    InputError: a list is invalid, or has a name that does not exist.
  """
  lists = [content.get(k) for k in ("verbs", "objects", "correspondence")]
  if all(given is None for given in lists):
    return same(words)
  if not all(isinstance(given, list) for given in lists):
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
    interaction = int(words.table[verbs[row[2]], objects[row[1]]])
    if interaction < 0:
      name = f"{lists[0][row[2]]} {lists[1][row[1]]}"
      raise InputError(
        f"{path}: 'correspondence' {number} is {name!r}, which is no "
        "interaction",
        "use the classes.json that belongs to the file",
      )
    table[row[0]] = interaction
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


_HELP = "docs/hico_det.md shows the form"


def read_instances(
  content: dict[str, Any],
  path: pathlib.Path,
  images: pathlib.Path,
  words: Vocabulary,
  base: int,
  report: Callable[[RecordError], None],
) -> list[ImageLabels]:
  """Labels of every image of UPT's file; see `annotations.read`."""
  lists = [content[key] for key in ("annotation", "filenames")]
  lists += [content["size"]] if "size" in content else []
  if not all(isinstance(x, list) for x in lists):
    raise InputError(
      f"{path}: 'annotation', 'filenames' or 'size' is no list", _HELP
    )
  if len({len(x) for x in lists}) > 1:
    counts = " and ".join(str(len(x)) for x in lists)
    raise InputError(
      f"{path} has {counts} entries in 'annotation', 'filenames' and 'size'",
      "give one of each for every image",
    )
  numbers = read(content, path, words)
  sizes = lists[2] if len(lists) > 2 else [None] * len(lists[0])
  entries = [
    entry | {"file_name": name, "size": size}
    if isinstance(entry, dict)
    else {"file_name": name}
    for entry, name, size in zip(*lists[:2], sizes, strict=True)
  ]
  return _read(entries, path, images, words, numbers, base, report)


def read_list(
  content: list[Any],
  path: pathlib.Path,
  images: pathlib.Path,
  words: Vocabulary,
  base: int,
  report: Callable[[RecordError], None],
) -> list[ImageLabels]:
  """Labels of every image of a plain list; see `annotations.read`."""
  entries = []
  for number, entry in enumerate(content):
    entry = entry if isinstance(entry, dict) else {}
    entry = {"file_name": f"(entry {number})"} | entry
    if "width" in entry or "height" in entry:
      entry = entry | {"size": [entry.get("width"), entry.get("height")]}
    entries.append(entry)
  return _read(entries, path, images, words, same(words), base, report)


def _read(
  entries: list[dict[str, Any]],
  path: pathlib.Path,
  images: pathlib.Path,
  words: Vocabulary,
  numbers: Numbers,
  base: int,
  report: Callable[[RecordError], None],
) -> list[ImageLabels]:
  return parsing.labels_of(
    ((entry["file_name"], entry) for entry in entries),
    path,
    images,
    lambda entry, where: _image(entry, where, words, numbers, base),
    report,
  )


def _image(
  entry: dict[str, Any],
  where: Place,
  words: Vocabulary,
  numbers: Numbers,
  base: int,
) -> ImageLabels:
  size = _size(entry.get("size"), where)
  for key in ("boxes_h", "boxes_o", "hoi"):
    if not isinstance(entry.get(key), list):
      raise RecordError(where, "form", f"has no list {key!r}", _HELP)
  optional = ("verb", "object", "invis")
  given = {key: entry[key] for key in optional if key in entry}
  keys = ("boxes_h", "boxes_o", "hoi")
  parsing.same_length(where, **{k: entry[k] for k in keys}, **given)
  interactions = _interactions(entry, "hoi", where, words, numbers)
  _check_parts(entry, where, interactions, words, numbers)
  invisible = given.get("invis", [False] * len(interactions))
  if not all(type(x) is bool for x in invisible):
    raise RecordError(
      where, "form", "'invis' is no list of true and false", _HELP
    )
  whole = None
  if "image_hoi" in entry:
    whole = _interactions(entry, "image_hoi", where, words, numbers)
  return ImageLabels(
    place=where,
    size=size,
    human_boxes=parsing.boxes(where, entry["boxes_h"], "boxes_h", base, size),
    object_boxes=parsing.boxes(where, entry["boxes_o"], "boxes_o", base, size),
    interactions=interactions,
    visible=~np.array(invisible, bool),
    image_interactions=whole,
  )


def _texts(given: Any) -> list[str]:
  """A list of names; empty if it is anything else."""
  named = isinstance(given, list) and all(isinstance(x, str) for x in given)
  return given if named else []


def _by_name(
  names: list[str], key: str, where: Place, words: Vocabulary
) -> np.ndarray:
  try:
    return words.interactions(names, key)
  except InputError as error:
    raise RecordError(where, "labels", error.problem, error.remedy) from None


def _interactions(
  entry: dict[str, Any],
  key: str,
  where: Place,
  words: Vocabulary,
  numbers: Numbers,
) -> np.ndarray:
  size = len(numbers.interactions)
  if named := _texts(entry[key]):
    return _by_name(named, key, where, words)
  given = parsing.integers(where, entry[key], key, 0, size)
  mapped = numbers.interactions[given]
  if (mapped < 0).any():
    row = int((mapped < 0).argmax())
    raise RecordError(
      where,
      "labels",
      f"{key} {row} is {given[row]}, which 'correspondence' does not have",
      "give a number that it has",
    )
  return mapped


def _check_parts(
  entry: dict[str, Any],
  where: Place,
  interactions: np.ndarray,
  words: Vocabulary,
  numbers: Numbers,
) -> None:
  """Raises RecordError unless verbs and objects fit the interactions."""
  for key, known, of, names in (
    ("verb", numbers.verbs, words.verb_of, words.verbs),
    ("object", numbers.objects, words.object_of, words.objects),
  ):
    if key not in entry:
      continue
    if named := _texts(entry[key]):
      plain = [name.replace("_", " ") for name in names]
      true = [plain[i] for i in of[interactions]]
      differ = np.array(
        [a.replace("_", " ") != b for a, b in zip(named, true, strict=True)]
      )
    else:
      given = known[parsing.integers(where, entry[key], key, 0, len(known))]
      differ = given != of[interactions]
    if differ.any():
      row = int(differ.argmax())
      raise RecordError(
        where,
        "labels",
        f"{key} {row} is {entry[key][row]}, but hoi {entry['hoi'][row]} is "
        f"{words.names[interactions[row]]!r}",
        "mend one of the two, or the file's lists of names",
      )


def _size(given: Any, where: Place) -> tuple[int, int] | None:
  """(height, width) from [width, height]."""
  if given is None:
    return None
  if (
    not isinstance(given, list)
    or len(given) != 2
    or not all(type(x) is int and x > 0 for x in given)
  ):
    raise RecordError(
      where, "size", f"the size is {given!r}", "give width and height in pixels"
    )
  return given[1], given[0]
