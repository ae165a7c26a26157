"""Verbs, their frames, roles and nouns of a SWiG-layout folder.

The source of truth is `imsitu_space.json` (Yatskar et al., CVPR 2016); the
index files of the SWiG release (`verb_indices.txt`, `role_indices.txt`,
`train_classes.csv`; Pratt et al., ECCV 2020) fix the numbers. An index file
that is absent is derived: names in sorted order, nouns those of `train.json`.
"""

import collections
import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from input_pipeline.errors import InputError
from input_pipeline.schema import MAX_ROLES

BLANK, OOV, PAD = "blank", "oov", "Pad"
SPACE_FILE = "imsitu_space.json"
VERB_FILE = "verb_indices.txt"
ROLE_FILE = "role_indices.txt"
NOUN_FILE = "train_classes.csv"
# What the three classes that are no WordNet synset are called in words.
_SPECIAL_GLOSSES = {BLANK: "nothing", OOV: "something else", PAD: "padding"}


@dataclasses.dataclass(frozen=True)
class Vocabulary:
  """Numbered names and their texts.

  Attributes:
    verbs: verb names; V of them.
    roles: role names, shared by all verbs.
    nouns: noun classes: 'blank', WordNet ids ('n02084071'), 'oov', 'Pad'.
    frames: role ids of every verb in the order of its frame, 1 to MAX_ROLES.
    verb_definitions: one text per verb, '' where the source has none.
    verb_abstracts: one text per verb, e.g. 'an AGENT jumps over ...'.
    role_definitions: per role, the commonest of its definitions, '' if none.
    noun_glosses: words of each noun class, the commonest first.
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

  @functools.cached_property
  def verb_index(self) -> dict[str, int]:
    return {name: i for i, name in enumerate(self.verbs)}

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
    """sha256 over all that a model may depend on, names and texts."""
    text = json.dumps(dataclasses.asdict(self), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()

  def noun_id(self, name: str) -> int:
    """Class of an annotated noun: '' is blank, an unknown one is oov."""
    if not name:
      return self.noun_index[BLANK]
    return self.noun_index.get(name, self.noun_index[OOV])

  def frame_roles(self, verb: int) -> tuple[str, ...]:
    """Role names of a verb's frame, in order."""
    return tuple(self.roles[role] for role in self.frames[verb])


def load(folder: str | pathlib.Path) -> Vocabulary:
  """Reads the vocabulary of a SWiG-layout folder.

  Args:
    folder: DIR, or DIR/SWiG_jsons.

  Raises:
    InputError: a file is missing or cut off, an index file disagrees with
      imsitu_space.json, or a frame has more than MAX_ROLES roles.
  """
  folder = jsons_folder(folder)
  space = read_json(folder / SPACE_FILE)
  frames = _frames(space, folder / SPACE_FILE)
  verbs = _names(folder / VERB_FILE, sorted(frames))
  used_roles = {role for frame in frames.values() for role in frame}
  roles = _names(folder / ROLE_FILE, sorted(used_roles))
  nouns = _nouns(folder, space["nouns"])
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
    noun_glosses=tuple(_glosses(n, space["nouns"]) for n in nouns),
    noun_definitions=tuple(
      space["nouns"].get(n, {}).get("def") or "" for n in nouns
    ),
  )


def jsons_folder(folder: str | pathlib.Path) -> pathlib.Path:
  """DIR/SWiG_jsons where there is one, else DIR itself."""
  folder = pathlib.Path(folder)
  inner = folder / "SWiG_jsons"
  return inner if inner.is_dir() else folder


def read_json(path: pathlib.Path) -> Any:
  """Parses a JSON file; `InputError` names file, line and column."""
  try:
    return json.loads(path.read_text("utf-8"), object_pairs_hook=_no_repeats)
  except FileNotFoundError:
    raise InputError(
      f"{path} is missing",
      "put the file there; docs/architecture.md shows the folder's layout",
    ) from None
  except json.JSONDecodeError as error:
    raise InputError(
      f"{path} is cut off or is not JSON: {error.msg} at line "
      f"{error.lineno}, column {error.colno}",
      "copy or download the file again",
    ) from None
  except UnicodeDecodeError as error:
    raise InputError(
      f"{path} is not UTF-8 text: byte {error.start}",
      "copy or download the file again",
    ) from None
  except _RepeatedKey as error:
    raise InputError(
      f"{path} has the key {error.args[0]!r} twice in one object",
      "keep one of the two entries",
    ) from None


class _RepeatedKey(Exception):
  """A JSON object names a key twice; json would silently drop the first."""


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  found = dict(pairs)
  if len(found) < len(pairs):
    counts = collections.Counter(key for key, _ in pairs)
    raise _RepeatedKey(counts.most_common(1)[0][0])
  return found


def _frames(
  space: Mapping[str, Any], path: pathlib.Path
) -> dict[str, tuple[str, ...]]:
  """Role names by verb, checked."""
  if not isinstance(space, dict) or not {"verbs", "nouns"} <= space.keys():
    raise InputError(
      f"{path} lacks 'verbs' or 'nouns' at the top",
      "use the imsitu_space.json of imSitu or SWiG, or the same structure",
    )
  frames = {}
  for verb, entry in space["verbs"].items():
    order = tuple(entry.get("order") or ())
    if not 1 <= len(order) <= MAX_ROLES or len(set(order)) < len(order):
      raise InputError(
        f"{path}: verb {verb!r} has {len(order)} roles, {list(order)}",
        f"give its 'order' 1 to {MAX_ROLES} different roles",
      )
    frames[verb] = order
  return frames


def _names(path: pathlib.Path, known: Sequence[str]) -> tuple[str, ...]:
  """Names of an index file, one a line; `known` where there is no file."""
  if not path.exists():
    return tuple(known)
  names = tuple(path.read_text("utf-8").split())
  if len(set(names)) < len(names) or set(names) != set(known):
    extra = sorted(set(names) - set(known))[:5]
    lacking = sorted(set(known) - set(names))[:5]
    raise InputError(
      f"{path} disagrees with {SPACE_FILE}: {len(names)} names for "
      f"{len(known)}; not in the space {extra}; not in the file {lacking}",
      "delete the file to have it derived, or list each name once",
    )
  return names


def _nouns(folder: pathlib.Path, known: Mapping[str, Any]) -> tuple[str, ...]:
  """Noun classes of train_classes.csv, or derived from the training frames."""
  path = folder / NOUN_FILE
  if not path.exists():
    return (BLANK, *_training_nouns(folder, known), OOV, PAD)
  rows = [line.split(",") for line in path.read_text("utf-8").split()]
  names = tuple(row[0] for row in rows)
  numbers = [row[-1] for row in rows]
  if numbers != [str(i) for i in range(len(rows))]:
    wrong = next(i for i, n in enumerate(numbers) if n != str(i))
    raise InputError(
      f"{path} line {wrong + 1}: {','.join(rows[wrong])!r}",
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


def _training_nouns(
  folder: pathlib.Path, known: Mapping[str, Any]
) -> list[str]:
  train = folder / "train.json"
  if not train.exists():
    return sorted(known)
  used = {
    noun
    for record in read_json(train).values()
    for frame in record.get("frames", ())
    for noun in frame.values()
  }
  return sorted(used & set(known))


def _role_definitions(
  roles: Sequence[str], entries: Sequence[Mapping[str, Any]]
) -> tuple[str, ...]:
  """The commonest definition of each role; ties go to the first in order."""
  texts = {role: collections.Counter() for role in roles}
  for entry in entries:
    for role, value in (entry.get("roles") or {}).items():
      if role in texts and isinstance(value, dict) and value.get("def"):
        texts[role][value["def"]] += 1
  return tuple(
    min(texts[role], key=lambda text: (-texts[role][text], text), default="")
    for role in roles
  )


def _glosses(noun: str, known: Mapping[str, Any]) -> tuple[str, ...]:
  if noun in _SPECIAL_GLOSSES:
    return (_SPECIAL_GLOSSES[noun],)
  glosses = known[noun].get("gloss") or ()
  return (glosses,) if isinstance(glosses, str) else tuple(glosses)
