"""What the numbers in an annotation file mean, by the names it lists.

`instances_train2015.json` of UPT, and plain lists of the same entries.

  {"annotation": [{"boxes_h": [[x1, y1, x2, y2], ...], "boxes_o": [...],
                   "hoi": [...], "verb": [...], "object": [...]}, ...],
   "filenames": [...], "size": [[width, height], ...], "empty": [...],
   "verbs": [...], "objects": [...], "correspondence": [[hoi, object, verb]]}

One entry of each list is one label. `hoi` has numbers from 0, or names such
as "ride bicycle". What the numbers mean is in `verbs`, `objects` and
`correspondence`: releases of the file number the objects by name (a person is
49) or as COCO does (a person is 0), so names decide where they are given.

Two fields are ours, for the parts of HICO-DET's own file that these leave
out: `invis`, a bool per label (not asked for by the metric), and `image_hoi`,
the interactions that the image as a whole is labelled with.
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
    told = " and ".join(str(len(x)) for x in lists)
    raise InputError(
      f"{path} has {told} entries in 'annotation', 'filenames' and 'size'",
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
  found = []
  for entry in entries:
    try:
      where = parsing.place(path, images, entry["file_name"])
      found.append(_image(entry, where, words, numbers, base))
    except RecordError as error:
      report(error)
  return found


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


def _texts(found: Any) -> list[str]:
  """A list of names; empty where it is none."""
  named = isinstance(found, list) and all(isinstance(x, str) for x in found)
  return found if named else []


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
  found = parsing.integers(where, entry[key], key, 0, size)
  mapped = numbers.interactions[found]
  if (mapped < 0).any():
    row = int((mapped < 0).argmax())
    raise RecordError(
      where,
      "labels",
      f"{key} {row} is {found[row]}, which 'correspondence' does not have",
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
  """Verbs and objects have to be those of the interactions."""
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
      told = known[parsing.integers(where, entry[key], key, 0, len(known))]
      differ = told != of[interactions]
    if differ.any():
      row = int(differ.argmax())
      raise RecordError(
        where,
        "labels",
        f"{key} {row} is {entry[key][row]}, but hoi {entry['hoi'][row]} is "
        f"{words.names[interactions[row]]!r}",
        "mend one of the two, or the file's lists of names",
      )


def _size(found: Any, where: Place) -> tuple[int, int] | None:
  """(height, width) from [width, height]."""
  if found is None:
    return None
  if (
    not isinstance(found, list)
    or len(found) != 2
    or not all(type(x) is int and x > 0 for x in found)
  ):
    raise RecordError(
      where, "size", f"the size is {found!r}", "give width and height in pixels"
    )
  return found[1], found[0]
