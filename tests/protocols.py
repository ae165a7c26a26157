"""Whether a class has what a protocol asks for; read off both, nothing runs."""

import ast
import inspect
import textwrap
from collections.abc import Iterator

_CALLS = ("__len__", "__call__")  # of special methods those that count


def problems(cls: type, protocol: type) -> list[str]:
  """What of a protocol a class lacks or spells otherwise, one line each."""
  found = []
  for name in sorted(_members(protocol)):
    asked = inspect.getattr_static(protocol, name, None)
    there = inspect.getattr_static(cls, name, None)
    if there is None:
      if name not in _attributes(cls):
        found.append(f"{cls.__name__} has no {name}")
    elif inspect.isfunction(asked) and inspect.isfunction(there):
      want, have = _parameters(asked), _parameters(there)
      if want != have[: len(want)]:
        found.append(f"{cls.__name__}.{name} takes {have}, not {want}")
  return found


def _members(protocol: type) -> set[str]:
  """Names that a protocol and those below it declare."""
  names: set[str] = set()
  for base in protocol.__mro__:
    if getattr(base, "_is_protocol", False):
      own = {*base.__dict__, *inspect.get_annotations(base)}
      names |= {n for n in own if not n.startswith("_") or n in _CALLS}
  return names


def _attributes(cls: type) -> set[str]:
  """Fields, and what any method assigns to `self`."""
  found: set[str] = set()
  for base in cls.__mro__[:-1]:
    found |= {*inspect.get_annotations(base)}
    found |= set(_assigned(base))
  return found


def _assigned(cls: type) -> Iterator[str]:
  tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
  for node in ast.walk(tree):
    if (
      isinstance(node, ast.Attribute)
      and isinstance(node.ctx, ast.Store)
      and ast.unparse(node.value) == "self"
    ):
      yield node.attr


def _parameters(function) -> list[str]:
  return list(inspect.signature(function).parameters)
