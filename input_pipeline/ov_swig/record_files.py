"""The record files of a folder, as parsed JSON: read, merged, compared."""

import dataclasses
import pathlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

from input_pipeline.io.errors import InputError
from input_pipeline.io.findings import Place, RecordError
from input_pipeline.ov_swig.layout import IMAGES_FOLDER, Layout, read_json
from input_pipeline.ov_swig.records import wrong_verb
from input_pipeline.ov_swig.vocabulary import Vocabulary, folded

_SHOWN = 5
# Keys on which two files must agree about an image, if both have them.
_SHARED = ("verb", "height", "width", "bb", "frames")


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
  """One record as written in a file."""

  entry: dict[str, Any]
  place: Place

  def where(self) -> dict[str, str]:
    """The names of its 'file' and 'image'."""
    place = self.place
    return {"file": place.json_path.name, "image": place.image_path.name}


Rows = dict[str, Row]


def stop(error: RecordError) -> None:
  """Raises the first error; pass another function to collect all."""
  raise error


def read(
  files: Layout,
  split: str,
  words: Vocabulary,
  report: Callable[[RecordError], None] = stop,
) -> Rows:
  """Records of a split by image name, in the order of its files.

  The authors' files overlap: an image may be in dev.json and in one of the
  files of groups. It counts once, with the first file's record.

  Args:
    files: the folder.
    split: which split.
    words: the verbs that have a frame.
    report: called with an error for every record whose verb has no frame or
      whose name is not a file name (it is left out), and for every image on
      which two files disagree.

  Raises:
    InputError: a file is not an object of records; what `report` raises.
  """
  rows: Rows = {}
  for path in files.records[split]:
    for name, entry in read_file(path).items():
      place = Place(path, files.images / name)
      wrong = _wrong_name(name, place) or wrong_verb(entry, place, words)
      if wrong is None and name in rows:
        wrong = _disagreement(rows[name], entry, place)
      elif wrong is None:
        rows[name] = Row(entry, place)
      if wrong is not None:
        report(wrong)
  return rows


def verbs(files: Layout, split: str, words: Vocabulary) -> dict[str, str]:
  """Verb names by image name; errors as in `read`."""
  rows = read(files, split, words)
  return {name: row.entry["verb"] for name, row in rows.items()}


def read_file(path: pathlib.Path) -> dict[str, Any]:
  """The content of a record file, an object by image name."""
  content = read_json(path)
  if not isinstance(content, dict):
    raise InputError(
      f"{path} holds a {type(content).__name__}, not an object by image name",
      "see docs/own_data.md for the form of a record",
    )
  return content


def listed_verbs(files: Layout, words: Vocabulary) -> dict[str, set[str]]:
  """Verbs by group, as the authors' files list them.

  Raises:
    InputError: as in `read`.
  """
  listed: dict[str, set[str]] = {}
  for group, paths in files.listed.items():
    listed[group] = set()
    for path in paths:
      for name, entry in read_file(path).items():
        place = Place(path, files.images / name)
        wrong = wrong_verb(entry, place, words)
        if wrong is not None:
          raise wrong
        listed[group].add(entry["verb"])
  return listed


def check_disjoint(
  rows: Rows, files: Layout, others: Mapping[str, Collection[str]]
) -> None:
  """Raises InputError if an image is also in another split.

  Args:
    rows: records of a split.
    files: the folder.
    others: split -> names of its images.
  """
  for other, names in others.items():
    for name, row in rows.items():
      if name in names:
        there = " or ".join(path.name for path in files.records[other])
        raise InputError(
          f"{row.place.json_path}: image {name} is also in the split {other} "
          f"({there})",
          "keep each image in one split",
        )


def check_images(files: Layout, rows: Rows, there: Collection[str]) -> None:
  """Raises InputError if images of a split are not in the image folder."""
  missing = [name for name in rows if name not in there]
  if missing:
    like = like_names(missing[:_SHOWN], there)
    other = "".join(f"; {there_!r} is there" for there_ in like.values())
    names = (rows[name].place.json_path.name for name in missing)
    of = ", ".join(dict.fromkeys(names))
    raise InputError(
      f"{files.images} lacks {len(missing)} of {len(rows)} images of {of}: "
      f"{', '.join(missing[:_SHOWN])}"
      f"{', ...' if len(missing) > _SHOWN else ''}{other}",
      f"put them there, or take their records out of {of}"
      + (", or write their names as the files'" if like else ""),
    )


def like_names(
  missing: Collection[str], there: Collection[str]
) -> dict[str, str]:
  """Files that differ from missing ones only in capitals, form or ending."""
  by_form = {folded(pathlib.PurePath(name).stem): name for name in there}
  by_form |= {folded(name): name for name in there}
  like = {}
  for name in missing:
    for form in (folded(name), folded(pathlib.PurePath(name).stem)):
      if form in by_form:
        like.setdefault(name, by_form[form])
  return like


def _wrong_name(name: str, place: Place) -> RecordError | None:
  """The error for a name that is not a file directly in the image folder."""
  if name not in ("", ".", "..") and not {*name} & {"/", "\\", "\0"}:
    return None
  return RecordError(
    place,
    "name",
    f"{name!r} is not the name of a file in the image folder",
    f"put all images into {IMAGES_FOLDER} itself, and name only the file",
  )


def _disagreement(
  row: Row, entry: dict[str, Any], place: Place
) -> RecordError | None:
  differ = [
    key
    for key in _SHARED
    if key in row.entry and key in entry and row.entry[key] != entry[key]
  ]
  if not differ:
    return None
  return RecordError(
    place,
    "frames",
    f"its {', '.join(differ)} differ from those in {row.place.json_path.name}",
    "download both files again; one of them has another version",
    _differing_role(row.entry, entry),
  )


def _differing_role(left: dict[str, Any], right: dict[str, Any]) -> str | None:
  """The first role with another box or noun; None if no role differs."""
  pairs = [(left.get("bb"), right.get("bb"))]
  frames = (left.get("frames"), right.get("frames"))
  if all(isinstance(frame_list, list) for frame_list in frames):
    pairs += zip(*frames, strict=False)
  for a, b in pairs:
    if isinstance(a, dict) and isinstance(b, dict):
      for role in a | b:
        if a.get(role) != b.get(role):
          return role
  return None
