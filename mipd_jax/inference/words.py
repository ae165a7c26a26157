"""A caller's words, checked: verbs with their roles, and nouns."""

import dataclasses
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from input_pipeline.io.errors import InputError
from input_pipeline.schema import MAX_ROLES

# A verb without a frame: in SWiG nearly every verb has these two.
DEFAULT_ROLES = ("agent", "place")
_LONGEST = 200  # characters of a name; a text encoder reads 77 tokens
# Joiners, used in Persian, in scripts of India and in emoji.
_JOINERS = "\u200c\u200d"
_JOINED = re.compile(f"[{_JOINERS}]|[\U000e0020-\U000e007f]")
_VERB_FIELDS = ("roles", "definition", "abstract")


@dataclasses.dataclass(frozen=True)
class Word:
  """A name, and its meaning ("" if unknown)."""

  name: str
  definition: str = ""


@dataclasses.dataclass(frozen=True)
class Verb:
  """A verb; `roles` None leaves the frame to the vocabulary or the default."""

  name: str
  roles: tuple[Word, ...] | None = None
  definition: str = ""
  abstract: str = ""


@dataclasses.dataclass(frozen=True)
class Words:
  """The lists to choose from; None is the workdir's own list.

  Attributes:
    verbs, nouns: the lists.
    frames: roles of verbs of either list, by name.
  """

  verbs: tuple[Verb, ...] | None = None
  nouns: tuple[Word, ...] | None = None
  frames: Mapping[str, tuple[Word, ...]] = dataclasses.field(
    default_factory=dict
  )

  @classmethod
  def of(cls, verbs: Any = None, nouns: Any = None, frames: Any = None):
    """From plain Python values.

    Args:
      verbs: names, or name -> None, roles, or {"roles", "definition",
        "abstract"}; None for the workdir's own.
      nouns: names, or name -> what it means; None for the workdir's own.
      frames: verb -> roles. Roles are names, or name -> what it means.

    Raises:
      InputError: a list is empty, a word is not one or comes twice, or a verb
        has more than MAX_ROLES roles; the message names it.
    """
    return cls(
      verbs=None if verbs is None else _verbs(verbs),
      nouns=None if nouns is None else _listed(nouns, "noun"),
      frames={
        clean(verb, "verb"): roles_of(verb, roles)
        for verb, roles in _mapping(frames or {}, "frames").items()
      },
    )


def clean(name: Any, what: str) -> str:
  """A name in Unicode's composed form, with single blanks between words.

  Raises:
    InputError: it is no text, has no letter or digit, or is too long.
  """
  if not isinstance(name, str):
    remedy = "give names as texts; in YAML put quotes around numbers"
    if isinstance(name, Mapping):
      remedy = "give a list of names, or a mapping with all of them as keys"
    raise InputError(f"the {what} {name!r} is no text", remedy)
  text = " ".join(unicodedata.normalize("NFC", name).split())
  readable = any(unicodedata.category(c)[0] in "LNS" for c in text)
  shows = text.strip(_JOINERS) == text and _JOINED.sub("", text).isprintable()
  if not readable or not shows or len(text) > _LONGEST:
    shown = text[:40] + ("..." if len(text) > 40 else "")
    raise InputError(
      f"the {what} {shown!r} is no word",
      f"give a name of 1 to {_LONGEST} characters with a letter in it, and "
      "none that cannot be seen",
    )
  return text


def check_distinct(names: Sequence[str], what: str) -> None:
  """Raises InputError if the list is empty or a word comes twice."""
  if not names:
    raise InputError(
      f"the list of {what}s is empty",
      f"give at least one {what}, or no list at all for the workdir's own",
    )
  first: dict[str, str] = {}
  for name in names:
    key = name.casefold()
    if key in first:
      raise InputError(
        f"the {what} {name!r} is in the list twice", "give each word once"
      )
    first[key] = name


def roles_of(verb: str, roles: Any) -> tuple[Word, ...]:
  """The roles of a verb, checked; an empty list is a frame without roles."""
  what = f"role of {verb!r}"
  frame = _words(roles, what)
  if len(frame) > MAX_ROLES:
    raise InputError(
      f"the verb {verb!r} has {len(frame)} roles: "
      f"{', '.join(role.name for role in frame)}",
      f"give it {MAX_ROLES} roles at most: the student fills no more at once",
    )
  if frame:
    check_distinct([role.name for role in frame], what)
  return frame


def _verbs(verbs: Any) -> tuple[Verb, ...]:
  if isinstance(verbs, Mapping):
    checked = tuple(_verb(name, value) for name, value in verbs.items())
  else:
    names = _sequence(verbs, "verbs")
    checked = tuple(
      verb if isinstance(verb, Verb) else Verb(clean(verb, "verb"))
      for verb in names
    )
  check_distinct([verb.name for verb in checked], "verb")
  return checked


def _verb(name: Any, value: Any) -> Verb:
  name = clean(name, "verb")
  if value is None:
    return Verb(name)
  if not isinstance(value, Mapping):
    return Verb(name, roles_of(name, value))
  unknown = [key for key in value if key not in _VERB_FIELDS]
  if unknown:
    raise InputError(
      f"the verb {name!r} has a field {unknown[0]!r}",
      f"the fields are {', '.join(_VERB_FIELDS)}",
    )
  roles = value.get("roles")
  return Verb(
    name,
    None if roles is None else roles_of(name, roles),
    text_of(value.get("definition"), f"definition of {name!r}"),
    text_of(value.get("abstract"), f"abstract of {name!r}"),
  )


def _listed(values: Any, what: str) -> tuple[Word, ...]:
  listed = _words(values, what)
  check_distinct([word.name for word in listed], what)
  return listed


def _words(values: Any, what: str) -> tuple[Word, ...]:
  if isinstance(values, Mapping):
    return tuple(
      Word(clean(name, what), text_of(text, f"definition of {name!r}"))
      for name, text in values.items()
    )
  return tuple(
    value if isinstance(value, Word) else Word(clean(value, what))
    for value in _sequence(values, f"{what}s")
  )


def text_of(value: Any, what: str) -> str:
  """An optional text."""
  if value is None:
    return ""
  if not isinstance(value, str):
    raise InputError(
      f"the {what} is {value!r}, not a text", "give a text, or leave it out"
    )
  text = " ".join(unicodedata.normalize("NFC", value).split())
  if any(unicodedata.category(c) in ("Cc", "Cs") for c in text):
    raise InputError(
      f"the {what} has control characters or halves of characters",
      "give a plain text",
    )
  return text


def _sequence(values: Any, what: str) -> list:
  if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
    raise InputError(
      f"{what}: {values!r} is a {type(values).__name__}, not a list",
      "give a list of names",
    )
  return list(values)


def _mapping(values: Any, what: str) -> Mapping:
  if not isinstance(values, Mapping):
    raise InputError(
      f"{what}: {values!r} is a {type(values).__name__}",
      "give the roles by verb: {'juggling': ['agent', 'item', 'place']}",
    )
  return values
