"""Conventions of boxes and nouns that only a whole file of records reveals.

One box may lie inside the first pixel; a file of such boxes uses shares of the
image. A noun outside the classes is `oov`; a split of such nouns was written
for another list. The check of a folder reports both, and a build refuses them
before any long work.
"""

import collections
import dataclasses
import functools
import pathlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from input_pipeline import boxes
from input_pipeline.io import images
from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig import layout, vocabulary
from input_pipeline.ov_swig.layout import Layout
from input_pipeline.ov_swig.record_files import Row, Rows
from input_pipeline.ov_swig.records import leaves
from input_pipeline.ov_swig.splits import groups
from input_pipeline.ov_swig.splits.groups import SELECTING
from input_pipeline.ov_swig.vocabulary import BLANK, PAD, Vocabulary, folded
from input_pipeline.schema import GROUPS

_SLACK = 0.01  # rounding may push boxes in shares out of 0..1 by this
_FEW = 20  # fewest boxes whose places are evidence
_SEVERAL = 3  # fewest boxes outside that are evidence of exchanged sides
_SHOWN = 3
CORNER = (
  "every box has its centre in the upper left quarter of its image, as x y "
  "width height would look; x1 y1 x2 y2 is meant"
)


def wrong_boxes(rows: Rows) -> Iterator[tuple[pathlib.Path, InputError]]:
  """Files whose boxes are not x1 y1 x2 y2 in pixels.

  Args:
    rows: the records of a split, each with its file.

  Yields:
    (file, what its boxes are): most are not four numbers, are empty, lie
    within 0..1 or leave their image; or more than a tenth are flipped; or
    more than a tenth leave their image, and none would with x and y exchanged.
  """
  for path, kinds in _boxes(rows).items():
    if error := kinds.problem(path):
      yield path, error


def corner_files(rows: Rows) -> list[pathlib.Path]:
  """Files whose boxes (20 or more) all look like x y width height.

  See `CORNER`.
  """
  return [
    path
    for path, kinds in _boxes(rows).items()
    if kinds.sized >= _FEW
    and kinds.as_width == kinds.sized
    and 2 * kinds.upper_left > kinds.sized
  ]


def has_boxes(rows: Rows) -> bool:
  """Whether any role of a split has a box."""
  return bool(_boxes(rows))


@dataclasses.dataclass
class _Kinds:
  """Counts of boxes of a file by kind; `sized` have an image of known size.

  `first` has an example of each kind, for messages.
  """

  total: int = 0
  unreadable: int = 0
  empty: int = 0
  shares: int = 0
  flipped: int = 0
  sized: int = 0
  outside: int = 0
  as_width: int = 0
  upper_left: int = 0
  exchanged: int = 0
  highest: float = 0.0
  first: dict[str, str] = dataclasses.field(default_factory=dict)

  def add_unreadable(self, box: Any, where: str) -> None:
    """Counts a box that is not four numbers."""
    self.unreadable += 1
    self.first.setdefault("unreadable", f"{box} of {where}")

  def add(
    self, box: list[float], where: str, size: tuple[int, int] | None
  ) -> None:
    self.total += 1
    self.highest = max(self.highest, *box)
    kinds = {"flipped": boxes.is_flipped(box)}
    is_empty = box[2] == box[0] or box[3] == box[1]
    kinds["empty"] = is_empty and not kinds["flipped"]
    if size not in _TINY:
      kinds["shares"] = min(box) >= -_SLACK and max(box) <= 1 + _SLACK
    if size is not None:
      height, width = size
      self.sized += 1
      kinds["outside"] = leaves(box, height, width)
      sums = (box[0] + box[2], box[1] + box[3])
      self.as_width += sums[0] <= width and sums[1] <= height
      # The centre of a box of the whole image is in no quarter.
      self.upper_left += sums[0] < width and sums[1] < height
      self.exchanged += not leaves([*box[1::-1], *box[:1:-1]], height, width)
    for kind in (kind for kind, yes in kinds.items() if yes):
      setattr(self, kind, getattr(self, kind) + 1)
      self.first.setdefault(kind, f"{box} of {where}")

  def problem(self, path: pathlib.Path) -> InputError | None:
    if self.unreadable > self.total:
      return InputError(
        f"{path}: {self.unreadable} of {self.unreadable + self.total} boxes "
        f"are not four numbers, such as {self.first['unreadable']}",
        "give a list of numbers, x1 y1 x2 y2 in pixels",
      )
    if 2 * self.empty > self.total:
      return InputError(
        f"{path}: {self.empty} of {self.total} boxes are empty, such as "
        f"{self.first['empty']}",
        "give x1 y1 x2 y2 in pixels, x1 < x2 and y1 < y2",
      )
    if 2 * self.shares > self.total:
      return InputError(
        f"{path}: {self.shares} of {self.total} boxes lie within 0..1, such as "
        f"{self.first['shares']}: they are shares of the image, not pixels",
        "multiply x by the image's width and y by its height",
      )
    if 10 * self.flipped > self.total:
      what = "they have no x1 < x2 and y1 < y2"
      if self.as_width == self.sized:
        what = "all fit their images as x y width height"
      return InputError(
        f"{path}: {self.flipped} of {self.total} boxes have their corners the "
        f"wrong way round, such as {self.first['flipped']}; {what}",
        "give x1 y1 x2 y2: x2 is x + width, y2 is y + height",
      )
    several = self.outside >= _SEVERAL
    if several and 10 * self.outside > self.sized == self.exchanged:
      return InputError(
        f"{path}: {self.outside} of {self.sized} boxes leave their image, such "
        f"as {self.first['outside']}, and none would with x and y exchanged, "
        "or height and width",
        "give x1 y1 x2 y2, and the height and width of the image as stored",
      )
    if 2 * self.outside > self.sized:
      what = "they were drawn on images of another size"
      if self.highest <= 1000:
        what += ", or are thousandths of the image"
      return InputError(
        f"{path}: {self.outside} of {self.sized} boxes leave their image, such "
        f"as {self.first['outside']}: {what}",
        "give pixels of the images in images_512, x1 y1 x2 y2",
      )
    return None


_TINY = ((1, 1), (1, 2), (2, 1), (2, 2))  # sizes in which 0..1 is a large part


def _boxes(rows: Rows) -> Mapping[pathlib.Path, _Kinds]:
  kinds: dict[pathlib.Path, _Kinds] = collections.defaultdict(_Kinds)
  for row in rows.values():
    given = row.entry.get("bb")
    given = given if isinstance(given, dict) else {}
    for role, box in given.items():
      if _means_box(box) and not boxes.is_box(box):
        where = f"image {row.place.image_path.name}, role {role!r}"
        kinds[row.place.json_path].add_unreadable(box, where)
    given = {
      role: box
      for role, box in given.items()
      # All zeros mean no box; they are reported by record.
      if boxes.is_box(box) and not boxes.is_absent(box) and any(box)
    }
    size = _size(row) if given else None
    for role, box in given.items():
      where = f"image {row.place.image_path.name}, role {role!r}"
      kinds[row.place.json_path].add(box, where, size)
  return kinds


def _means_box(value: Any) -> bool:
  """Whether a value is a list or an object that does not mean absence."""
  parts = value.values() if isinstance(value, dict) else value
  if not isinstance(value, (list, dict)):
    return False
  return not all(part in (None, -1, "-1", "") for part in parts)


def _size(row: Row) -> tuple[int, int] | None:
  """(height, width) from a record or else its image; None if unknown."""
  size = (row.entry.get("height"), row.entry.get("width"))
  if all(type(side) is int and side > 0 for side in size):
    return size
  if None not in size:
    return None
  try:
    return images.read_size(row.place.image_path)
  except InputError:
    return None


@dataclasses.dataclass
class Nouns:
  """Annotators' nouns of a split, without those of unseen verbs.

  Attributes:
    total: number of nouns that are not blank.
    unlisted: counts of those that are not a class.
  """

  total: int = 0
  unlisted: collections.Counter[str] = dataclasses.field(
    default_factory=collections.Counter
  )

  @property
  def share(self) -> float:
    """Share of nouns that are not a class, 0 to 1."""
    return self.unlisted.total() / self.total if self.total else 0.0


def nouns(rows: Rows, words: Vocabulary, unseen: Collection[str]) -> Nouns:
  """Counts the nouns of a split.

  Args:
    rows: its records.
    words: the vocabulary with the noun classes.
    unseen: names of unseen verbs; nouns that only they have need not be
      classes.
  """
  counts = Nouns()
  for row in rows.values():
    if row.entry["verb"] in unseen:
      continue
    for frame in vocabulary.objects(row.entry.get("frames")):
      for noun in frame.values():
        if isinstance(noun, str) and noun not in ("", BLANK):
          counts.total += 1
          counts.unlisted[noun] += is_unlisted(noun, words)
  counts.unlisted = +counts.unlisted
  return counts


def has_nouns(rows: Rows) -> bool:
  """Whether any role of a split has a noun that is not blank."""
  return any(
    noun not in ("", BLANK)
    for row in rows.values()
    for frame in vocabulary.objects(row.entry.get("frames"))
    for noun in frame.values()
  )


def is_unlisted(noun: str, words: Vocabulary) -> bool:
  """Whether an annotated noun is not a class; `PAD` is not one here."""
  return bool(noun) and (noun == PAD or noun not in words.noun_index)


def wrong_nouns(
  files: Layout, split: str, nouns: Nouns, words: Vocabulary
) -> InputError | None:
  """The error for a split if most of its nouns are not classes."""
  if nouns.share <= 0.5:
    return None
  names = ", ".join(path.name for path in files.records[split])
  return InputError(
    f"{files.jsons}: {nouns.unlisted.total()} of {nouns.total} nouns "
    f"({nouns.share:.0%}) of {names} are not noun classes, such as "
    f"{_few(nouns.unlisted)}: {reason(files, nouns.unlisted, words)}",
    f"write nouns as {layout.SPACE_FILE} does, and list them in "
    f"{layout.NOUN_FILE} if it is there",
  )


def reason(files: Layout, unlisted: Collection[str], words: Vocabulary) -> str:
  """Why nouns are not classes, judging by their names."""
  space = layout.read_json(files.jsons / layout.SPACE_FILE).get("nouns") or {}
  by_form = {folded(name): name for name in (*space, *words.nouns)}
  of_word = {
    folded(word): noun
    for noun, entry in space.items()
    for word in _glosses(entry)
  }
  unlisted = list(unlisted)
  other = [n for n in unlisted if n not in space and folded(n) in by_form]
  called = [n for n in unlisted if n not in space and folded(n) in of_word]
  spare = [n for n in unlisted if n in space]
  if other:
    return (
      f"{len(other)} differ only in capitals, spaces or the form of letters "
      f"from names in {layout.SPACE_FILE} ({other[0]!r} is there as "
      f"{by_form[folded(other[0])]!r})"
    )
  if called:
    return (
      f"{len(called)} are words, not names of {layout.SPACE_FILE} "
      f"({called[0]!r} is {of_word[folded(called[0])]!r} there)"
    )
  if spare:
    where = layout.NOUN_FILE
    if not (files.jsons / where).exists():
      where = "the training records of seen and rare verbs"
    return f"{len(spare)} are in {layout.SPACE_FILE}, but not in {where}"
  return f"{layout.SPACE_FILE} has no such noun"


def differing(unlisted: Collection[str], words: Vocabulary) -> dict[str, str]:
  """Nouns that differ from a class only in capitals or the form of letters."""
  by_form = _by_form(words.nouns)
  return {n: by_form[folded(n)] for n in unlisted if folded(n) in by_form}


def told_differing(classes: Mapping[str, str]) -> str:
  """The result of `differing` as a message."""
  some = list(classes.items())[:_SHOWN]
  named = ", ".join(f"{noun!r} (a class is {name!r})" for noun, name in some)
  return (
    f"{len(classes)} nouns differ from a class only in capitals or the form of "
    f"letters, and count as oov: {named}"
  )


@functools.lru_cache(maxsize=2)
def _by_form(names: tuple[str, ...]) -> dict[str, str]:
  return {folded(name): name for name in names}


def _glosses(entry: Any) -> list[str]:
  words = entry.get("gloss") if isinstance(entry, dict) else None
  words = [words] if isinstance(words, str) else words or []
  return [word for word in words if isinstance(word, str)]


def _few(nouns: collections.Counter[str]) -> str:
  return ", ".join(repr(noun) for noun, _ in nouns.most_common(_SHOWN))


def missing_images(
  files: Layout,
  verbs_of: Mapping[str, Mapping[str, str]],
  words: Vocabulary,
  groups: groups.VerbGroups | None,
) -> Iterator[InputError]:
  """What splits lack for training, selecting a model, or reporting.

  Args:
    files: the folder.
    verbs_of: split -> image name -> verb name.
    words: the verbs.
    groups: the groups of the verbs; None if they are still to be drawn.
  """
  group_of = {
    verb: None if groups is None else GROUPS[groups.groups[number]]
    for number, verb in enumerate(words.verbs)
  }
  for split, verbs in verbs_of.items():
    names = " and ".join(path.name for path in files.records[split])
    present = {group_of[verb] for verb in verbs.values()}
    trained = {v for v in verbs.values() if group_of[v] != GROUPS[-1]}
    if split == "train" and len(trained) < 2:
      yield InputError(
        f"{files.jsons}: {names} has images of {len(trained)} verbs that "
        "are not unseen",
        "add records of two verbs or more: training tells them apart",
      )
    elif not verbs:
      yield InputError(
        f"{files.jsons}: the split {split!r} has no images",
        f"add records to {names}",
      )
    elif split == "dev" and present.isdisjoint({*SELECTING, None}):
      yield InputError(
        f"{files.jsons}: {names} has no image of a seen or rare verb, and "
        "those choose the model",
        "add some, or choose other unseen verbs "
        "(python -m input_pipeline.split_maker DIR)",
      )
