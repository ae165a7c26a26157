"""The places of an abstract that name the roles of its frame.

imSitu writes them in capitals: "an AGENT shaves a COAGENT's BODYPART". The
frame's own names count, in any script and with their parts joined in any way:
the role body_part is BODY_PART, BODY-PART, BODY PART or BODYPART. A name in a
script without capitals is written as it is.
"""

import dataclasses
import functools
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence

_BETWEEN = re.compile(r"[\s_./:-]+")
# Dashes that word processors use for hyphens, and invisible characters.
_DASHES = re.compile(r"(?<=\w)[\u2010-\u2013\u2212](?=\w)")
_UNSEEN = re.compile("[\u00ad\u200b\u2060\ufeff]")
# Wide letters, digits, hyphen and low line -> the plain ones.
_NARROW = {
  point: point - 0xFEE0
  for first, last in (("－", "－"), ("０", "９"), ("Ａ", "Ｚ"), ("＿", "＿"))
  for point in range(ord(first), ord(last) + 1)
} | {point: point - 0xFEE0 for point in range(ord("ａ"), ord("ｚ") + 1)}
# Letters whose capitals in an abstract may differ from Python's.
_CAPITALS = {
  **{"i": ("I", "İ"), "ı": ("I",), "ß": ("SS", "ẞ"), "ς": ("Σ",)},
  **{"ä": ("Ä", "AE"), "ö": ("Ö", "OE"), "ü": ("Ü", "UE")},
  **{"æ": ("Æ", "AE"), "œ": ("Œ", "OE"), "'": ("'", "’"), "’": ("'", "’")},
}
_MARKED = re.compile(r"[./:]")  # between the parts of a role's name
_ENDING = re.compile(r"[sS]['’]|['’][sS]|[sS]")
_OWNER = re.compile(r"(?:[sS]['’]|['’][sS])$")
_OWNED = re.compile(
  r"(?:[sS]['’]|['’][sS]|\b(?:its|his|her|their))\s*(?:\([^)]*\)\s*)?$"
)
_OTHER = re.compile(r"[^\W_]+(?:[_-][^\W_]+)*")
_LEAST = 3  # least capitals of a word that is taken for a role
# Scripts that put no spaces between words, and Hangul, whose particles are
# written to the word.
_JOINED = (
  ("\u0e00", "\u0eff"),  # Thai, Lao
  ("\u1000", "\u109f"),  # Myanmar
  ("\u1780", "\u17ff"),  # Khmer
  ("\u3005", "\u30ff"),  # kana
  ("\u3400", "\u9fff"),  # Han
  ("\uac00", "\ud7a3"),  # Hangul
  ("\uf900", "\ufaff"),
  ("\U00020000", "\U0003ffff"),
)


@dataclasses.dataclass(frozen=True)
class Place:
  """One place of an abstract.

  Attributes:
    role: its name in the frame; None for capitals that are no role of it.
    text: the text there, with its ending.
    start, end: of the text in the abstract.
    owner: "'s" as written, or "" if nothing belongs to the role.
    owned: whether it belongs to the words before it: "the man's HAND".
    cased: whether the role's name has capitals at all.
  """

  role: str | None
  text: str
  start: int
  end: int
  owner: str
  owned: bool
  cased: bool


def replace(
  abstract: str,
  roles: Sequence[str],
  put: Callable[[Place, str], tuple[str, str]],
) -> str:
  """The abstract with other words for its placeholders.

  Args:
    abstract: of a verb.
    roles: of its frame.
    put: (place, the text before it since the last place) -> replacements of
      both.
  """
  abstract = normal(abstract)
  parts, done = [], 0
  for place in places(abstract, roles):
    parts += put(place, abstract[done : place.start])
    done = place.end
  return "".join([*parts, abstract[done:]])


def names_any(abstract: str, roles: Sequence[str]) -> bool:
  """Whether an abstract has a placeholder for one of the roles."""
  named = places(normal(abstract), roles)
  return any(place.role is not None for place in named)


def plain(text: str) -> str:
  """Capitals that are no role of the frame, as ordinary words."""
  return text.lower().replace("_", " ")


def normal(text: str) -> str:
  """A text in one normal form.

  A letter and its accents are one character if Unicode has it; hyphens and
  wide letters are plain; invisible characters within a word are removed.
  """
  if text.isascii():
    return text
  text = _UNSEEN.sub("", text.translate(_NARROW))
  return _DASHES.sub("-", unicodedata.normalize("NFC", text))


def places(abstract: str, roles: Sequence[str]) -> tuple[Place, ...]:
  """The placeholders of a `normal` abstract, in its order."""
  return _places(abstract, tuple(roles))


@functools.lru_cache(maxsize=4096)  # called once per image
def _places(abstract: str, roles: tuple[str, ...]) -> tuple[Place, ...]:
  names, named, position = _names(roles), [], 0
  while position < len(abstract):
    place = _role_at(abstract, position, names)
    if place is None and _begins(abstract, position):
      place = _other_at(abstract, position, names)
    position += 1
    if place is not None:
      named.append(place)
      position = place.end
  return tuple(named)


@dataclasses.dataclass(frozen=True)
class _Name:
  role: str
  own: re.Pattern[str]  # its parts joined in any way
  split: re.Pattern[str]  # also divided where the name is not
  title: re.Pattern[str]  # one capital: "(if different from Agent)"
  cased: bool


def _names(roles: tuple[str, ...]) -> tuple[_Name, ...]:
  """Patterns of the roles, the longest first."""
  patterns = []
  for role in roles:
    parts = [part for part in _BETWEEN.split(normal(role)) if part]
    if not parts:
      continue
    cased = _has_case(role) and not is_joined(role)
    letters = [[_capital(letter, cased) for letter in part] for part in parts]
    within = r"[ _-]?" if cased else ""
    joint = r"[\s_./:-]*" if _MARKED.search(role) else r"[\s_-]*"
    patterns.append(
      _Name(
        role,
        re.compile(joint.join("".join(part) for part in letters)),
        re.compile(joint.join(within.join(part) for part in letters)),
        re.compile(letters[0][0] + re.escape(normal(role)[1:])),
        cased,
      )
    )
  return tuple(sorted(patterns, key=lambda name: -len(name.role)))


def _capital(letter: str, cased: bool) -> str:
  """A pattern of a letter's capital, with or without its accents.

  For a name that needs no capitals, also of the letter itself.
  """
  forms = [] if cased else [letter]
  forms += [*_CAPITALS.get(letter.lower(), ()), normal(letter.upper())]
  forms += ["".join(filter(_is_no_mark, _apart(form))) for form in forms]
  forms = [form for form in dict.fromkeys(forms) if form] or [letter]
  return "(?:" + "|".join(map(re.escape, forms)) + ")"


def _role_at(abstract: str, start: int, names: Sequence[_Name]) -> Place | None:
  """The longest role named at a position."""
  best: Place | None = None
  for name in names:
    for match in _matches(abstract, start, name, names):
      place = _whole(abstract, start, match.end(), name, names)
      if place is not None:
        if best is None or place.end > best.end:
          best = place
        break
  return best


def _matches(
  abstract: str, start: int, name: _Name, names: Sequence[_Name]
) -> Iterator[re.Match[str]]:
  """The matches of a role there, the usual way of writing first."""
  if match := name.own.match(abstract, start):
    yield match
  match = name.split.match(abstract, start)
  if match and not _are_roles(match, names):
    yield match
  # A sentence may begin with any word.
  match = name.title.match(abstract, start)
  if match and start and len(name.role) >= _LEAST:
    yield match


def _are_roles(match: re.Match[str], names: Sequence[_Name]) -> bool:
  """Whether it is several roles in a row: "AGENT PART"."""
  parts = _BETWEEN.split(match[0])
  return len(parts) > 1 and all(
    any(name.own.fullmatch(part) for name in names) for part in parts
  )


def _whole(
  abstract: str, start: int, end: int, name: _Name, names: Sequence[_Name]
) -> Place | None:
  """The place from start to end; None if it is part of another word."""
  if not name.cased:
    alone = is_joined(abstract[start:end]) or not (
      _in_word(abstract[start - 1 : start]) or _in_word(abstract[end : end + 1])
    )
    text = abstract[start:end]
    return (
      Place(name.role, text, start, end, "", False, False) if alone else None
    )
  if not _begins(abstract, start, names):
    return None
  ending = _ENDING.match(abstract, end)
  for stop in (ending.end(), end) if ending else (end,):
    mark = abstract[end:stop].strip("sS")
    if _ends(abstract, stop, bool(mark), names):
      owner, text = mark and mark + "s", abstract[start:stop]
      owned = bool(_OWNED.search(abstract[:start]))
      return Place(name.role, text, start, stop, owner, owned, True)
  return None


def _begins(
  abstract: str, start: int, names: Sequence[_Name] | None = None
) -> bool:
  """Whether a word in capitals may begin there."""
  before = abstract[:start]
  if _OWNER.search(before):
    return True  # "the COAGENT'sBODYPART"
  if before[-1:] == "-" and names is not None:
    return not _is_capital(before[-2:-1]) or _role_ends(before[:-1], names)
  last = before[-1:]
  return not (_is_cased(last) or last.isdigit() or is_mark(last)) and (
    last != "_" or (names is not None and _role_ends(before[:-1], names))
  )


def _ends(abstract: str, end: int, owner: bool, names: Sequence[_Name]) -> bool:
  """Whether a word in capitals may end there."""
  following = abstract[end : end + 1]
  if following in ("-", "_") and following:
    after = abstract[end + 1 : end + 2]
    joined = _is_capital(after) or after.isdigit() or following == "_"
    return not joined or any(
      name.own.match(abstract, end + 1) for name in names if name.cased
    )
  if owner and _is_capital(following):
    return True
  return not (_is_cased(following) or following.isdigit() or is_mark(following))


def _role_ends(before: str, names: Sequence[_Name]) -> bool:
  """Whether a text ends in a role: "AGENT" of "AGENT-VICTIM"."""
  last = re.split(r"[\W_]", before)[-1]
  return any(name.own.fullmatch(last) for name in names)


def _other_at(
  abstract: str, start: int, names: Sequence[_Name]
) -> Place | None:
  """At least three capitals that are no role of this frame."""
  match = _OTHER.match(abstract, start)
  if match is None or not _shouts(match[0]):
    return None
  end = match.end()
  for inner in range(start + 1, end):  # a role of a script without capitals
    if not _is_cased(abstract[inner]) and _role_at(abstract, inner, names):
      end = inner
      break
  return Place(None, abstract[start:end], start, end, "", False, True)


def _shouts(word: str) -> bool:
  capitals = 0
  for letter in word:
    if _is_capital(letter):
      capitals += 1
    elif letter not in "_-":
      break
  return capitals >= _LEAST


def _is_cased(letter: str) -> bool:
  # Georgian uses its capitals only in headlines.
  return letter.lower() != letter.upper() and not "ა" <= letter <= "ჿ"


def _is_capital(letter: str) -> bool:
  return letter.isupper()


def is_mark(letter: str) -> bool:
  """Whether it is an accent or vowel sign of another letter."""
  return bool(letter) and unicodedata.category(letter).startswith("M")


def _is_no_mark(letter: str) -> bool:
  return not is_mark(letter)


def _apart(text: str) -> str:
  return unicodedata.normalize("NFD", text) if _has_case(text) else text


def _has_case(text: str) -> bool:
  return any(map(_is_cased, text))


def _in_word(letter: str) -> bool:
  return bool(letter) and (letter.isalnum() or is_mark(letter))


def is_joined(text: str) -> bool:
  """Whether a letter is of a script without spaces between words."""
  return any(a <= letter <= b for letter in text for a, b in _JOINED)
