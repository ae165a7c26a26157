"""Verbs, their frames, roles and nouns of a SWiG-layout folder, numbered.

The source of truth is `imsitu_space.json` (Yatskar et al., CVPR 2016). The
index files of the SWiG release (`verb_indices.txt`, `role_indices.txt`,
`train_classes.csv`; Pratt et al., ECCV 2020) fix the numbers, which matter to
checkpoints that others have trained. If an index file is absent, the names are
derived in sorted order; nouns are those of training records whose verb is not
unseen. Verbs and roles of an index file must be those of the frames.
"""

import collections
import dataclasses
import functools
import hashlib
import json
import pathlib
import re
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from input_pipeline.io import json_files
from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig import layout
from input_pipeline.ov_swig.layout import (
  NOUN_FILE,
  ROLE_FILE,
  SPACE_FILE,
  VERB_FILE,
  jsons_folder,
  read_json,
)
from input_pipeline.schema import MAX_ROLES

BLANK, OOV, PAD = "blank", "oov", "Pad"


def verb_list(
  jsons: pathlib.Path, frames: Mapping[str, Sequence[str]]
) -> tuple[str, ...]:
  """Verb names in the order of verb_indices.txt, or else sorted.

  Args:
    jsons: DIR/SWiG_jsons.
    frames: role names by verb.

  Raises:
    InputError: the file and the frames have different verbs.
  """
  return _names(jsons / VERB_FILE, derived_verbs(frames))


def role_list(
  jsons: pathlib.Path, frames: Mapping[str, Sequence[str]]
) -> tuple[str, ...]:
  """Role names in the order of role_indices.txt; see `verb_list`."""
  return _names(jsons / ROLE_FILE, derived_roles(frames))


def derived_verbs(frames: Collection[str]) -> tuple[str, ...]:
  """Verb names in the order used without verb_indices.txt: sorted."""
  return tuple(sorted(frames))


def derived_roles(frames: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
  """Role names in the order used without role_indices.txt: sorted."""
  return tuple(sorted({role for frame in frames.values() for role in frame}))


def derived_nouns(
  jsons: pathlib.Path,
  known: Collection[str],
  unseen: Collection[str] | None = None,
  *,
  all_nouns: bool = False,
) -> tuple[str, ...]:
  """Noun classes without train_classes.csv: blank, ..., oov, Pad.

  Between them are all nouns of `known` in training records, sorted; records
  of `unseen` verbs (None: those of the split file) do not count. Without a
  training file, or with `all_nouns`, they are all of `known`.
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
  """The objects of a list; `records` reports wrong forms."""
  rows = value if isinstance(value, list) else ()
  return [row for row in rows if isinstance(row, dict)]


def _unseen_verbs(jsons: pathlib.Path) -> set[str]:
  """The split file's unseen verbs; `groups` reports faults of the file."""
  path = jsons / layout.SPLITS_FILE
  content = read_json(path) if path.exists() else {}
  unseen = content.get("unseen") if isinstance(content, dict) else None
  if not isinstance(unseen, list):
    return set()
  return {verb for verb in unseen if isinstance(verb, str)}


def _names(path: pathlib.Path, known: Sequence[str]) -> tuple[str, ...]:
  """Names of an index file, one a line; `known` if there is no file."""
  if not path.exists():
    return tuple(known)
  names = layout.read_lines(path)
  if len(set(names)) < len(names) or set(names) != set(known):
    extra = sorted(set(names) - set(known))[:5]
    lacking = sorted(set(known) - set(names))[:5]
    raise InputError(
      f"{path} disagrees with {SPACE_FILE}: {len(names)} names for "
      f"{len(known)}; not in the space {extra}; not in the file {lacking}",
      "delete the file to derive the names, or list each name once",
    )
  return names


def noun_list(
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
    InputError: the file is not numbered in order, lacks blank, oov or Pad in
      its place, or has an unknown noun.
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


# Words for the three classes that are not WordNet synsets.
_SPECIAL_GLOSSES = {BLANK: "nothing", OOV: "something else", PAD: "padding"}
# Optional fields, which may be null, for `json_files.check`.
_Fields = Mapping[str, Any]
_OF_VERB: _Fields = {
  "order": [str],
  "def": str,
  "abstract": str,
  "roles": {str: {}},
}
_OF_ROLE: _Fields = {"def": str, "question": str}
_OF_NOUN: _Fields = {"gloss": (str, [str]), "def": str}
_REMEDY = "docs/own_data.md shows the form"
# "n10287213", "10287213-n", ...: ids, which text encoders do not understand.
_WORDNET_ID = re.compile(r"[nvars]?-?\d{8}(-[nvars])?")


@dataclasses.dataclass(frozen=True)
class Vocabulary:
  """Numbered names and their texts.

  Attributes:
    verbs: verb names; V of them.
    roles: role names, shared by all verbs.
    nouns: noun classes: 'blank', WordNet ids ('n02084071'), 'oov', 'Pad'.
    frames: role ids of every verb in the order of its frame, 1 to MAX_ROLES.
    verb_definitions: one text per verb, '' if the source has none.
    verb_abstracts: one text per verb, e.g. 'an AGENT jumps over ...'.
    role_definitions: per role, its commonest definition, '' if none.
    frame_definitions: per verb, the definitions of its own roles in the order
      of its frame ('The entity doing the jump action'), '' if none.
    frame_questions: per verb, the questions of its roles in the same order
      ('who is doing the jump action?'). Hardly any verbs share a question.
    noun_glosses: words for each noun class, the commonest first.
    noun_definitions: one text per noun class, '' for blank, oov and Pad.
  """

  verbs: tuple[str, ...]
  roles: tuple[str, ...]
  nouns: tuple[str, ...]
  frames: tuple[tuple[int, ...], ...]
  verb_definitions: tuple[str, ...]
  verb_abstracts: tuple[str, ...]
  role_definitions: tuple[str, ...]
  noun_glosses: tuple[tuple[str, ...], ...]
  noun_definitions: tuple[str, ...]
  frame_definitions: tuple[tuple[str, ...], ...] = ()
  frame_questions: tuple[tuple[str, ...], ...] = ()

  @functools.cached_property
  def verb_index(self) -> dict[str, int]:
    return {name: i for i, name in enumerate(self.verbs)}

  @functools.cached_property
  def _verb_of_form(self) -> dict[str, str]:
    return {folded(name): name for name in self.verbs}

  def verb_like(self, name: str) -> str | None:
    """The verb that differs from a name only in capitals or form, if any."""
    return self._verb_of_form.get(folded(name))

  @functools.cached_property
  def role_index(self) -> dict[str, int]:
    return {name: i for i, name in enumerate(self.roles)}

  @functools.cached_property
  def noun_index(self) -> dict[str, int]:
    return {name: i for i, name in enumerate(self.nouns)}

  @functools.cached_property
  def frame_array(self) -> np.ndarray:
    """Role ids of all frames: int32 [V, MAX_ROLES], -1 = padding."""
    array = np.full((len(self.verbs), MAX_ROLES), -1, np.int32)
    for verb, frame in enumerate(self.frames):
      array[verb, : len(frame)] = frame
    array.setflags(write=False)
    return array

  @functools.cached_property
  def fingerprint(self) -> str:
    """sha256 over all names and texts."""
    text = json.dumps(dataclasses.asdict(self), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()

  def noun_id(self, name: str) -> int:
    """Class of an annotated noun: '' is blank, an unknown one is oov.

    Padding is the class of padded roles; an annotated "Pad" is oov.
    """
    if not name:
      return self.noun_index[BLANK]
    if name == PAD:
      return self.noun_index[OOV]
    return self.noun_index.get(name, self.noun_index[OOV])

  def frame_roles(self, verb: int) -> tuple[str, ...]:
    """Role names of a verb's frame, in order."""
    return tuple(self.roles[role] for role in self.frames[verb])


def load(
  folder: str | pathlib.Path,
  *,
  unseen: Collection[str] | None = None,
  all_nouns: bool = False,
) -> Vocabulary:
  """Reads the vocabulary of a SWiG-layout folder.

  Args:
    folder: DIR, or DIR/SWiG_jsons.
    unseen: verbs whose records add no nouns if there is no
      train_classes.csv; None: those of the split file.
    all_nouns: whether all nouns are classes if there is no
      train_classes.csv, so that train.json is not read.

  Raises:
    InputError: a file is missing or truncated, an index file disagrees with
      imsitu_space.json, a frame has more than MAX_ROLES roles, or a noun has
      no words.
  """
  folder = jsons_folder(folder)
  space = read_json(folder / SPACE_FILE)
  frames = _frames(space, folder / SPACE_FILE)
  verbs = verb_list(folder, frames)
  roles = role_list(folder, frames)
  nouns = noun_list(folder, space["nouns"], unseen, all_nouns=all_nouns)
  role_number = {name: i for i, name in enumerate(roles)}
  entries = [space["verbs"][verb] for verb in verbs]
  return Vocabulary(
    verbs=verbs,
    roles=roles,
    nouns=nouns,
    frames=tuple(tuple(role_number[r] for r in frames[v]) for v in verbs),
    verb_definitions=tuple(e.get("def") or "" for e in entries),
    verb_abstracts=tuple(e.get("abstract") or "" for e in entries),
    role_definitions=_role_definitions(roles, entries),
    frame_definitions=tuple(_of_frame(e, "def") for e in entries),
    frame_questions=tuple(_of_frame(e, "question") for e in entries),
    noun_glosses=_all_glosses(nouns, space["nouns"], folder / SPACE_FILE),
    noun_definitions=tuple(
      space["nouns"].get(n, {}).get("def") or "" for n in nouns
    ),
  )


def folded(name: str) -> str:
  """A name in a form that ignores capitals, spaces and forms of letters."""
  return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def _frames(
  space: Mapping[str, Any], path: pathlib.Path
) -> dict[str, tuple[str, ...]]:
  """Role names by verb, checked."""
  if not isinstance(space, dict) or not {"verbs", "nouns"} <= space.keys():
    raise InputError(
      f"{path} lacks 'verbs' or 'nouns' at the top",
      "use the imsitu_space.json of imSitu or SWiG, or the same structure",
    )
  for part in ("verbs", "nouns"):
    entries = (
      space[part].items() if isinstance(space[part], dict) else [("", 0)]
    )
    wrong = [name for name, entry in entries if not isinstance(entry, dict)]
    if wrong:
      raise InputError(
        f"{path}: {part!r} is not an object of objects, see {wrong[0]!r}",
        _REMEDY,
      )
  _check_entries(space, path)
  frames = {
    verb: tuple(entry.get("order") or ())
    for verb, entry in space["verbs"].items()
  }
  for verb, order in frames.items():
    if not 1 <= len(order) <= MAX_ROLES:
      raise InputError(
        f"{path}: verb {verb!r} has {len(order)} roles, {list(order)}",
        f"give its 'order' 1 to {MAX_ROLES} different roles",
      )
    _check_names(path, f"the roles of verb {verb!r}", order, folded)
  _check_names(path, "the verbs", tuple(frames), folded)
  # "turkey" and "Turkey" are two nouns.
  _check_names(path, "the nouns", tuple(space["nouns"]), _same_letters)
  return frames


def _check_entries(space: Mapping[str, Any], path: pathlib.Path) -> None:
  """Raises InputError if a field of a verb, role or noun has a wrong type."""

  def check(entry: Mapping[str, Any], fields: _Fields, place: str) -> None:
    given = {key: entry[key] for key in fields.keys() & entry.keys()}
    form = {key: (fields[key], type(None)) for key in given}
    json_files.check(given, form, where=f"{path}: {place}", remedy=_REMEDY)

  for verb, entry in space["verbs"].items():
    check(entry, _OF_VERB, f"verb {verb!r}")
    for role, texts in (entry.get("roles") or {}).items():
      check(texts, _OF_ROLE, f"verb {verb!r}, role {role!r}")
  for noun, entry in space["nouns"].items():
    check(entry, _OF_NOUN, f"noun {noun!r}")


def _check_names(
  path: pathlib.Path,
  what: str,
  names: Sequence[str],
  form: Callable[[str], str],
) -> None:
  """Raises InputError for an empty name and for two that look alike."""
  first: dict[str, str] = {}
  for name in names:
    if not name.strip():
      raise InputError(
        f"{path}: one of {what} has the name {name!r}", "give each a name"
      )
    other = first.setdefault(form(name), name)
    if other is not name:
      raise InputError(
        f"{path}: {what} have {other!r} and {name!r}, which "
        + (
          "are one name"
          if other == name
          else "differ only in capitals, spaces or the form of letters"
        ),
        "keep one of them, and use it in all records",
      )


def _same_letters(name: str) -> str:
  return unicodedata.normalize("NFC", name)


def _role_definitions(
  roles: Sequence[str], entries: Sequence[Mapping[str, Any]]
) -> tuple[str, ...]:
  """The commonest definition of each role; ties: the first alphabetically."""
  texts = {role: collections.Counter() for role in roles}
  for entry in entries:
    for role, value in (entry.get("roles") or {}).items():
      if role in texts and isinstance(value, dict) and value.get("def"):
        texts[role][value["def"]] += 1
  return tuple(
    min(texts[role], key=lambda text: (-texts[role][text], text), default="")
    for role in roles
  )


def _of_frame(entry: Mapping[str, Any], field: str) -> tuple[str, ...]:
  """One field's text for each role of a verb, in the order of its frame."""
  roles = entry.get("roles")
  roles = roles if isinstance(roles, dict) else {}
  texts = []
  for role in entry["order"]:
    value = roles.get(role)
    texts.append((isinstance(value, dict) and value.get(field)) or "")
  return tuple(texts)


def _all_glosses(
  nouns: Sequence[str], known: Mapping[str, Any], path: pathlib.Path
) -> tuple[tuple[str, ...], ...]:
  """Words of every class; an id instead of words raises InputError."""
  glosses = tuple(_glosses(noun, known) for noun in nouns)
  for noun, words in zip(nouns, glosses, strict=True):
    if not words or any(_is_no_word(word) for word in words):
      raise InputError(
        f"{path}: noun {noun!r} has the words {list(words)}",
        "give its 'gloss' one word or more that people use, not an id",
      )
  return glosses


def _is_no_word(word: Any) -> bool:
  return (
    not isinstance(word, str)
    or not word.strip()
    or _WORDNET_ID.fullmatch(word.strip()) is not None
  )


def _glosses(noun: str, known: Mapping[str, Any]) -> tuple[str, ...]:
  if noun in _SPECIAL_GLOSSES:
    return (_SPECIAL_GLOSSES[noun],)
  glosses = known[noun].get("gloss") or ()
  return (glosses,) if isinstance(glosses, str) else tuple(glosses)
