"""Reads words.yaml: the words to choose from, with strict checks.

    verbs:                      # or a plain list of names
      juggling:
        roles: [agent, item, place]
        definition: keep several objects in the air
        abstract: an AGENT juggles an ITEM at a PLACE
      jumping:                  # in the vocabulary: its frame is used
    nouns: [man, club, stage]   # or name: what it means

Either part may be left out. Scalars stay texts as written ("no", "12"),
whatever YAML makes of them; null after a name is no value. Aliases, tags and
merge keys are refused: with them a few lines could expand to a billion words.
"""

import dataclasses
import os
from typing import Any

import yaml

from input_pipeline.io import paths
from input_pipeline.io.errors import InputError
from mipd_jax.inference import words

_PARTS = ("verbs", "nouns")
_MOST_BYTES = 4 * 2**20  # 100,000 words and more
_DEEPEST = 6  # nested lists and mappings


class _Refused(yaml.MarkedYAMLError):
  """Valid YAML that is refused here."""


class _Loader(yaml.SafeLoader):
  """Composes nodes of plain texts only, not too deep."""

  _depth = 0

  def compose_node(self, parent, index):
    event = self.peek_event()
    problem = ""
    if isinstance(event, yaml.AliasEvent):
      problem = f"the alias *{event.anchor} is not read: write the words out"
    elif event.tag not in (None, "!", "tag:yaml.org,2002:str"):
      problem = f"the tag {event.tag!r} is not read: give a plain text"
    elif isinstance(event, yaml.ScalarEvent) and _is_merge(event):
      problem = "the merge key << is not read: write the words out"
    elif self._depth > _DEEPEST:
      problem = "it goes too deep"
    if problem:
      raise _Refused(problem=problem, problem_mark=event.start_mark)
    self._depth += 1
    try:
      return super().compose_node(parent, index)
    finally:
      self._depth -= 1


def _is_merge(event: yaml.ScalarEvent) -> bool:
  return event.value == "<<" and event.style is None


class _Names(dict):
  """A mapping of the file with the line of each key."""

  lines: dict[str, int]


class _List(list):
  """A list of the file with the line of each item."""

  lines: list[int]


def read(path: str | os.PathLike[str]) -> words.Words:
  """Reads and checks a file of words.

  Raises:
    InputError: it cannot be read or is no YAML, has an unknown part or field,
      or a word that cannot be used; the message names the file and, if there is
      one, the line.
  """
  content = _parse(path)
  if not isinstance(content, _Names) or not content:
    raise _error(path, None, "it has neither 'verbs' nor 'nouns' at the top")
  for name in content:
    if name not in _PARTS:
      raise _error(path, content.lines[name], f"{name!r} is no part of it")
  lists = words.Words()
  if "verbs" in content:
    verbs = tuple(_each(path, content["verbs"], "verbs"))
    lists = dataclasses.replace(lists, verbs=verbs)
  if "nouns" in content:
    nouns = tuple(_each(path, content["nouns"], "nouns"))
    lists = dataclasses.replace(lists, nouns=nouns)
  return lists


def _each(path, part: Any, name: str) -> list:
  """Checks word by word, so that an error has its line."""
  if part is not None and not isinstance(part, (_Names, _List)):
    raise _error(path, None, f"{name!r} is {part!r}, not a list of words")
  items = part or []
  checked, seen = [], {}
  for place, key in enumerate(items):
    named = isinstance(items, _Names)
    line = items.lines[key] if named else items.lines[place]
    value = {key: items[key]} if named else [key]
    try:
      if name == "verbs":
        (word,) = words.Words.of(verbs=value).verbs
      else:
        (word,) = words.Words.of(nouns=value).nouns
    except InputError as error:
      raise _error(path, line, error.problem, error.remedy) from None
    before = seen.setdefault(word.name.casefold(), line)
    if before != line or len(checked) >= len(seen):
      problem = f"the word {word.name!r} stands in line {before} already"
      raise _error(path, line, problem, "give each word once")
    checked.append(word)
  if not checked:
    raise _error(path, None, f"{name!r} is empty")
  return checked


def _parse(path: str | os.PathLike[str]) -> Any:
  try:
    with paths.path(path).open("rb") as file:
      content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
      raise _error(path, None, f"it has more than {_MOST_BYTES} bytes")
    node = yaml.compose(content.decode("utf-8-sig"), Loader=_Loader)
  except InputError:
    raise
  except OSError as error:
    reason = error.strerror or str(error)
    raise _error(path, None, reason, "name a file of words") from None
  except UnicodeDecodeError as error:
    remedy = "save it as UTF-8"
    raise _error(path, None, f"it is not UTF-8: {error}", remedy) from None
  except yaml.YAMLError as error:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    line = mark.line + 1 if mark else None
    if not isinstance(error, _Refused):
      problem = f"it is no YAML: {problem}"
    raise _error(path, line, problem) from None
  except (ValueError, OverflowError) as error:  # of "\\UFFFFFFFF"
    raise _error(path, None, f"it is no YAML: {error}") from None
  return _plain(path, node)


def _plain(path, node: yaml.Node | None) -> Any:
  """Turns nodes into texts, lists and mappings; an empty value is None."""
  if node is None:
    return None
  if isinstance(node, yaml.ScalarNode):
    return None if _is_null(node) and node.value in ("", "~") else node.value
  if isinstance(node, yaml.SequenceNode):
    items = _List(_plain(path, item) for item in node.value)
    items.lines = [item.start_mark.line + 1 for item in node.value]
    return items
  names = _Names()
  names.lines = {}
  for key, value in node.value:
    line = key.start_mark.line + 1
    if not isinstance(key, yaml.ScalarNode):
      raise _error(path, line, "a name is no plain text")
    if key.value in names:
      problem = f"{key.value!r} stands in line {names.lines[key.value]} already"
      raise _error(path, line, problem, "give each name once")
    names[key.value] = None if _is_null(value) else _plain(path, value)
    names.lines[key.value] = line
  return names


def _is_null(node: yaml.Node) -> bool:
  """Whether it says that a name has no value; YAML's writers say "null"."""
  return node.tag == "tag:yaml.org,2002:null" and not node.style


def _error(path, line, problem, remedy="docs/predict.md shows the form"):
  where = os.fspath(path) if line is None else f"{path}, line {line}"
  return InputError(f"{where}: {problem}", remedy)
