"""Numbers of verbs, roles and nouns: read from index files, or derived.

The index files of the SWiG release (`verb_indices.txt`, `role_indices.txt`,
`train_classes.csv`; Pratt et al., ECCV 2020) fix the numbers, which matter to
checkpoints that others have trained. A file that is absent is derived: names
in sorted order; nouns are those of the training records whose verb is not
unseen. A file that is there is checked against what would be derived.
"""

import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig import layout
from input_pipeline.ov_swig.layout import (
  NOUN_FILE,
  ROLE_FILE,
  SPACE_FILE,
  VERB_FILE,
  read_json,
)

BLANK, OOV, PAD = "blank", "oov", "Pad"


def verbs(
  jsons: pathlib.Path, frames: Mapping[str, Sequence[str]]
) -> tuple[str, ...]:
  """Verb names in the order of verb_indices.txt, or else sorted.

  Args:
    jsons: DIR/SWiG_jsons.
    frames: role names by verb.

  Raises:
    InputError: the file lists other verbs than the frames.
  """
  return _names(jsons / VERB_FILE, derived_verbs(frames))


def roles(
  jsons: pathlib.Path, frames: Mapping[str, Sequence[str]]
) -> tuple[str, ...]:
  """The same for roles and role_indices.txt."""
  return _names(jsons / ROLE_FILE, derived_roles(frames))


def derived_verbs(frames: Collection[str]) -> tuple[str, ...]:
  """Verb names as numbered where there is no verb_indices.txt: sorted."""
  return tuple(sorted(frames))


def derived_roles(frames: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
  """Role names as numbered where there is no role_indices.txt: sorted."""
  return tuple(sorted({role for frame in frames.values() for role in frame}))


def derived_nouns(
  jsons: pathlib.Path,
  known: Collection[str],
  unseen: Collection[str] | None = None,
  *,
  all_nouns: bool = False,
) -> tuple[str, ...]:
  """Noun classes where there is no train_classes.csv: blank, ..., oov, Pad.

  Those between are all nouns of `known` in training records, sorted; records
  of `unseen` verbs (None: those that the split file names) do not count.
  Without a training file, or with `all_nouns`: all of `known`.
  """
  known = set(known) - {BLANK, OOV, PAD}
  train = layout.training_file(jsons)
  if train is None or all_nouns:
    return (BLANK, *sorted(known), OOV, PAD)
  records = read_json(train)
  unseen = _unseen_verbs(jsons) if unseen is None else unseen
  used = {
    noun
    for record in (records.values() if isinstance(records, dict) else ())
    if isinstance(record, dict) and str(record.get("verb")) not in unseen
    for frame in objects(record.get("frames"))
    for noun in frame.values()
    if isinstance(noun, str)
  }
  return (BLANK, *sorted(used & known), OOV, PAD)


def objects(value: Any) -> list[dict]:
  """The objects of a list; wrong forms are told by `swig_record`."""
  rows = value if isinstance(value, list) else ()
  return [row for row in rows if isinstance(row, dict)]


def _unseen_verbs(jsons: pathlib.Path) -> set[str]:
  """As the split file has it; `splits` says what is wrong with the file."""
  path = jsons / layout.SPLITS_FILE
  content = read_json(path) if path.exists() else {}
  unseen = content.get("unseen") if isinstance(content, dict) else None
  if not isinstance(unseen, list):
    return set()
  return {verb for verb in unseen if isinstance(verb, str)}


def _names(path: pathlib.Path, known: Sequence[str]) -> tuple[str, ...]:
  """Names of an index file, one a line; `known` where there is no file."""
  if not path.exists():
    return tuple(known)
  names = layout.read_lines(path)
  if len(set(names)) < len(names) or set(names) != set(known):
    extra = sorted(set(names) - set(known))[:5]
    lacking = sorted(set(known) - set(names))[:5]
    raise InputError(
      f"{path} disagrees with {SPACE_FILE}: {len(names)} names for "
      f"{len(known)}; not in the space {extra}; not in the file {lacking}",
      "delete the file to have it derived, or list each name once",
    )
  return names


def nouns(
  jsons: pathlib.Path,
  known: Mapping[str, Any],
  unseen: Collection[str] | None = None,
  *,
  all_nouns: bool = False,
) -> tuple[str, ...]:
  """Noun classes of train_classes.csv, or derived from the training frames.

  Args:
    jsons: DIR/SWiG_jsons.
    known: the nouns of imsitu_space.json.
    unseen: verbs whose records do not count; None: the split file's.
    all_nouns: whether derived classes are all of `known`.

  Raises:
    InputError: the file is not numbered in order, has no blank, oov and Pad
      in their places, or has an unknown noun.
  """
  path = jsons / NOUN_FILE
  if not path.exists():
    return derived_nouns(jsons, known, unseen, all_nouns=all_nouns)
  lines = layout.read_lines(path)
  rows = [_cells(line) for line in lines]
  names = tuple(name for name, _ in rows)
  numbers = [number for _, number in rows]
  if numbers != [str(i) for i in range(len(rows))]:
    wrong = next(i for i, n in enumerate(numbers) if n != str(i))
    raise InputError(
      f"{path} line {wrong + 1}: {lines[wrong]!r}",
      f"each line is 'noun,index' and the indices count 0, 1, 2; here {wrong}",
    )
  if names[:1] != (BLANK,) or names[-2:] != (OOV, PAD):
    raise InputError(
      f"{path} begins with {names[:1]} and ends with {names[-2:]}",
      f"the first class is {BLANK!r}, the last two are {OOV!r} and {PAD!r}",
    )
  unknown = [n for n in names[1:-2] if n not in known]
  if unknown or len(set(names)) < len(names):
    raise InputError(
      f"{path} has {len(unknown)} nouns that {SPACE_FILE} lacks, such as "
      f"{unknown[:5]}, or a noun twice",
      f"add them to {SPACE_FILE} or take them out",
    )
  return names


def _cells(line: str) -> tuple[str, str]:
  """Name and number of a line; spreadsheets put a name in quotation marks."""
  name, _, number = line.rpartition(",")
  name = name.strip()
  if len(name) > 1 and name[0] == name[-1] == '"':
    name = name[1:-1].replace('""', '"')
  return name, number.strip().strip('"')
