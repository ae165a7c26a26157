"""Digests of the code that a result depends on, from syntax trees.

A cache stays valid while the code that made it does the same. `reached` lists
the definitions used by code that starts at some functions and classes, with a
digest per module. It follows names through the modules of this repository
without importing any, so that a change to one encoder does not invalidate the
caches of another.

A digest covers what code does, not how it looks: comments, docstrings, white
space, the order of definitions, type hints, the text of a `raise` or a log
line and the repository's location make no difference. Neither does the version
of Python.

The search follows names, attributes of modules, and classes as a whole. A
method that is called on an object is included if reached code names the
object's class; `entries_of` gives the classes of objects from outside.
"""

import ast
import collections
import functools
import hashlib
import importlib.util
import inspect
import pathlib
import sys
from collections.abc import Iterable, Iterator
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGES = ("input_pipeline", "mipd_jax")
_PREFIXES = tuple(f"{name}." for name in PACKAGES)
# Models of other packages also compute: each module counts as a whole.
_MODELS = "transformers.models."
# Definitions that only report; they return nothing that is kept.
_SILENT = (
  "input_pipeline.io.errors.InputError",
  "input_pipeline.io.progress.Progress",
  "mipd_jax.teachers.precompute.EncodingProgress",
  "mipd_jax.rationales.jrg_report.Report",
)
_LOGGERS = ("logging", "_log", "_LOG", "logger")
_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def reached(
  entries: Iterable[str],
  root: pathlib.Path | None = None,
  without: tuple[str, ...] = (),
) -> dict[str, str]:
  """Digests of the code that some definitions lead to, by module.

  Args:
    entries: names such as "mipd_jax.teachers.clip.load", also of methods and
      nested functions; those of other packages are ignored.
    root: folder of the packages; None: this repository.
    without: prefixes of names that are not followed.

  Returns:
    Module -> the first 16 digits of a sha256.

  Raises:
    KeyError: an entry is not defined under its name.
  """
  return _Search(str(root or ROOT), without).run(entries)


def entries_of(*things: object) -> list[str]:
  """Names for `reached`: classes of objects, and functions.

  Includes the objects' attributes, recursively. A class adds the function
  `load` that makes it, from its module or package.
  """
  names: dict[str, None] = {}
  waiting, seen = list(things), set()
  while waiting:
    thing = waiting.pop(0)
    if id(thing) in seen:
      continue
    seen.add(id(thing))
    if isinstance(thing, functools.partial):
      waiting.append(thing.func)
      continue
    if inspect.isfunction(thing):
      named = thing
      waiting += [c.cell_contents for c in thing.__closure__ or ()]
    else:
      named = thing if isinstance(thing, type) else type(thing)
    if not f"{named.__module__}.".startswith((*_PREFIXES, _MODELS)):
      continue
    if hasattr(named, "BUILDER_CONFIGS"):  # a TFDS builder has its own version
      continue
    names[f"{named.__module__}.{named.__qualname__}"] = None
    if not isinstance(thing, type) and named.__module__.startswith(_PREFIXES):
      names |= dict.fromkeys(_loaders(named))
      waiting += list(getattr(thing, "__dict__", {}).values())
  return list(names)


def _loaders(cls: object) -> list[str]:
  """The function `load` that returns this class, if there is one."""
  module = cls.__module__
  for place in (module, module.rpartition(".")[0]):
    load = getattr(sys.modules.get(place), "load", None)
    if inspect.isfunction(load) and load.__annotations__.get("return") in (
      cls,
      getattr(cls, "__name__", None),
    ):
      return [f"{load.__module__}.{load.__qualname__}"]
  return []


class _Module:
  """One file: what it defines, what it imports, what it does on import."""

  def __init__(self, name: str, is_package: bool, content: bytes):
    self.name = name
    self._package = name if is_package else name.rpartition(".")[0]
    self.body = ast.parse(content).body
    self.defined: dict[str, list[ast.stmt]] = collections.defaultdict(list)
    self.imports: dict[str, str] = {}
    # Modules that are imported with this one.
    self.loads: list[str] = []
    # Other statements that run on import.
    self.effects: list[ast.stmt] = []
    self._facts: dict[int, _Facts] = {}
    for statement in self.body:
      self._sort(statement)

  def _sort(self, statement: ast.stmt) -> None:
    if isinstance(statement, ast.Import | ast.ImportFrom):
      self.imports |= self.bindings(statement)
      self.loads += self._loaded_by(statement)
    elif isinstance(statement, _Definition):
      self.defined[statement.name].append(statement)
    elif _is_doc(statement) or _is_unused_branch(statement):
      pass
    elif names := _assigned(statement):
      for name in names:
        self.defined[name].append(statement)
    else:
      self.effects.append(statement)
      for node in ast.walk(statement):
        if isinstance(node, ast.Import | ast.ImportFrom):
          self.imports |= self.bindings(node)
          self.loads += self._loaded_by(node)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
          self.defined[node.id].append(statement)

  def bindings(self, node: ast.Import | ast.ImportFrom) -> dict[str, str]:
    """Name -> the full name that it stands for."""
    if isinstance(node, ast.Import):
      return {
        a.asname or a.name.split(".")[0]: a.name
        if a.asname
        else a.name.split(".")[0]
        for a in node.names
      }
    source = node.module or ""
    if node.level:
      parts = self._package.split(".")
      parts = parts[: len(parts) - node.level + 1]
      source = ".".join([*parts, *filter(None, [source])])
    return {a.asname or a.name: f"{source}.{a.name}" for a in node.names}

  def _loaded_by(self, node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
      return [a.name for a in node.names]
    return list(self.bindings(node).values())

  def facts(self, statement: ast.stmt) -> "_Facts":
    """What a statement does, imports and names; computed once."""
    if id(statement) not in self._facts:
      imports: dict[str, str] = {}
      loads: list[str] = []
      used: list[list[str]] = []
      inner: set[int] = set()  # ids of names at the start of a chain
      for node in _walk([statement]):
        if isinstance(node, ast.Import | ast.ImportFrom):
          imports |= self.bindings(node)
          loads += self._loaded_by(node)
        elif isinstance(node, ast.Attribute):
          used += filter(None, [_chain(node, inner)])
        elif _is_read(node) and id(node) not in inner:
          used.append([node.id])
      self._facts[id(statement)] = _Facts(
        _serialised(statement), imports, loads, used
      )
    return self._facts[id(statement)]


class _Facts(NamedTuple):
  """What one statement does, imports, loads and uses."""

  code: str
  imports: dict[str, str]
  loads: list[str]
  used: list[list[str]]


# By content, so that a copy of the repository is not parsed again.
_parsed = functools.lru_cache(maxsize=1024)(_Module)


class _Tree:
  """The modules of the packages below a folder, parsed when asked for."""

  def __init__(self, root: str):
    self._root = pathlib.Path(root)
    self._modules: dict[str, _Module | None] = {}

  def module(self, name: str) -> _Module | None:
    """The module of that name in this repository, or None."""
    if name not in self._modules:
      self._modules[name] = None
      if name.split(".")[0] in PACKAGES:
        place = self._root.joinpath(*name.split("."))
        for path in (place / "__init__.py", place.with_suffix(".py")):
          if path.is_file():
            is_package = path.stem == "__init__"
            self._modules[name] = _parsed(name, is_package, path.read_bytes())
            break
    return self._modules[name]

  def split(self, name: str) -> tuple[str, list[str]]:
    """The longest prefix that is a module, and the names after it."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
      if self.module(".".join(parts[:count])):
        return ".".join(parts[:count]), parts[count:]
    return "", parts

  def packages_of(self, name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


class _Search:
  """Follows names from definition to definition."""

  def __init__(self, root: str, without: tuple[str, ...] = ()):
    self._tree, self._without = _Tree(root), without
    # Serialised statements that were reached, by module.
    self._reached: dict[str, set[str]] = collections.defaultdict(set)
    self._seen: set[tuple[str, str]] = set()
    self._loaded: set[str] = set()
    self._waiting: list[str] = []

  def run(self, entries: Iterable[str]) -> dict[str, str]:
    for entry in entries:
      module, rest = self._tree.split(entry)
      if module and len(rest) > 1:
        self._inner(self._tree.module(module), rest)
      elif module and rest and not self._names(module, rest[0]):
        raise KeyError(entry)
      else:
        self._waiting.append(entry)
    while self._waiting:
      self._visit(self._waiting.pop())
    return {
      module: hashlib.sha256("\n".join(sorted(code)).encode()).hexdigest()[:16]
      for module, code in sorted(self._reached.items())
      if code
    }

  def _names(self, module: str, name: str) -> bool:
    parsed = self._tree.module(module)
    return name in parsed.defined or name in parsed.imports

  def _visit(self, full: str) -> None:
    """Reaches a definition, or all of a module if only that is named."""
    if full in _SILENT or full.startswith(self._without or "\0"):
      return
    if full.startswith(_MODELS):
      self._model(full)
      return
    module, rest = self._tree.split(full)
    if not module:
      return
    self._load(module)
    parsed = self._tree.module(module)
    for name in rest[:1] or list(parsed.defined):
      if (module, name) in self._seen:
        continue
      self._seen.add((module, name))
      if f"{module}.{name}" in _SILENT:
        continue
      if name in parsed.defined:
        for statement in parsed.defined[name]:
          self._reach(parsed, statement)
      elif name in parsed.imports:  # re-exported
        self._waiting.append(".".join([parsed.imports[name], *rest[1:]]))

  def _inner(self, module: _Module, path: list[str]) -> None:
    """Reaches a method or a nested function by its qualified name."""
    body: list[ast.stmt] = module.body
    for name in path:
      if name == "<locals>":
        continue
      named = [
        n for n in _walk(body) if isinstance(n, _Definition) and n.name == name
      ]
      if not named:
        raise KeyError(f"{module.name}.{'.'.join(path)}")
      body = named[:1]
    self._load(module.name)
    self._reach(module, body[0])

  def _load(self, *names: str) -> None:
    """Reaches what runs when modules and their packages are imported."""
    waiting = [self._tree.split(name)[0] for name in names]
    while waiting:
      name = waiting.pop()
      module = self._tree.module(name)
      if name in self._loaded or module is None:
        continue
      self._loaded.add(name)
      for statement in module.effects:
        self._reach(module, statement)
      waiting += self._tree.packages_of(name)
      waiting += [self._tree.split(full)[0] for full in module.loads]

  def _model(self, full: str) -> None:
    """A module of another package as a whole."""
    path, parts = None, full.split(".")
    while path is None and len(parts) > 2:
      path = _file_of(".".join(parts))
      parts = parts[:-1]
    if path is not None:
      name = ".".join([*parts, path.stem])
      self._reached[name].add(_whole(path))

  def _reach(self, module: _Module, statement: ast.stmt) -> None:
    facts = module.facts(statement)
    self._reached[module.name].add(facts.code)
    self._load(*facts.loads)
    imports = module.imports | facts.imports
    for name, *rest in facts.used:
      if name in imports:
        self._waiting.append(".".join([imports[name], *rest]))
      elif name in module.defined:
        self._waiting.append(f"{module.name}.{name}")


def _chain(node: ast.Attribute, seen: set[int]) -> list[str]:
  """["a", "b", "c"] for a.b.c; empty if it does not begin with a name.

  `seen` holds the names that begin longer chains, which come first.
  """
  names: list[str] = []
  inner: ast.expr = node
  while isinstance(inner, ast.Attribute):
    names.append(inner.attr)
    inner = inner.value
  if not isinstance(inner, ast.Name) or id(inner) in seen:
    return []
  seen.add(id(inner))
  return [inner.id, *reversed(names)]


def _is_read(node: ast.AST) -> bool:
  """Whether a node is a name that is not assigned to."""
  return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)


def _is_doc(statement: ast.stmt) -> bool:
  return isinstance(statement, ast.Expr) and (
    isinstance(statement.value, ast.Constant) or _is_log(statement.value)
  )


def _is_log(value: ast.expr) -> bool:
  """Whether an expression is a call such as logging.info(...)."""
  if not (
    isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute)
  ):
    return False
  owner = value.func.value
  return isinstance(owner, ast.Name) and owner.id in _LOGGERS


def _is_unused_branch(statement: ast.stmt) -> bool:
  """`if TYPE_CHECKING:` and `if __name__ == "__main__":`."""
  if not isinstance(statement, ast.If):
    return False
  names = {n.id for n in ast.walk(statement.test) if isinstance(n, ast.Name)}
  names |= {
    n.attr for n in ast.walk(statement.test) if isinstance(n, ast.Attribute)
  }
  return bool(names & {"TYPE_CHECKING", "__name__"})


def _assigned(statement: ast.stmt) -> list[str]:
  """The names that an assignment defines; empty for anything else."""
  if isinstance(statement, ast.Assign):
    targets = statement.targets
  elif isinstance(statement, ast.AnnAssign):
    targets = [statement.target]
  elif type(statement).__name__ == "TypeAlias":
    targets = [statement.name]
  else:
    return []
  names: list[str] = []
  while targets:
    target = targets.pop()
    if isinstance(target, ast.Tuple | ast.List):
      targets = [*targets, *target.elts]
    elif isinstance(target, ast.Name):
      names.append(target.id)
    else:  # an attribute or an entry: changes an existing object
      return []
  return names


def _parts(node: ast.AST, in_class: bool) -> Iterator[tuple[str, object]]:
  """Name and value of the fields of a node that affect what code does."""
  skipped = {"ctx", "kind", "type_comment", "type_ignores", "type_params"}
  if isinstance(node, ast.Raise):
    return
  if isinstance(node, ast.Assert):
    skipped.add("msg")
  if isinstance(node, ast.arg) or (
    isinstance(node, ast.AnnAssign) and not in_class
  ):
    skipped.add("annotation")
  if isinstance(node, _Function):
    skipped.add("returns")
  for name, value in ast.iter_fields(node):
    if name not in skipped and value is not None and value != []:
      if name == "body" and isinstance(value, list):
        value = [s for s in value if not (_is_doc(s) or _is_unused_branch(s))]
      yield name, value


def _walk(body: list[ast.stmt]) -> Iterator[ast.AST]:
  """All nodes that matter, outer ones first, without type hints."""
  waiting: collections.deque[ast.AST] = collections.deque(body)
  while waiting:
    node = waiting.popleft()
    yield node
    for name, value in _parts(node, in_class=False):
      del name
      for part in value if isinstance(value, list) else [value]:
        if isinstance(part, ast.AST):
          waiting.append(part)


def _serialised(node: object, in_class: bool = False) -> str:
  """A node as text, equal in every version of Python."""
  if isinstance(node, list):
    return "[" + " ".join(_serialised(x, in_class) for x in node) + "]"
  if isinstance(node, ast.Constant):
    return f"{type(node.value).__name__}:{node.value!r}"
  if isinstance(node, ast.JoinedStr):
    return "f(" + " ".join(_pieces(node)) + ")"
  if not isinstance(node, ast.AST):
    return repr(node)
  inside = isinstance(node, ast.ClassDef) or (
    in_class and not isinstance(node, _Function)
  )
  parts = [
    f"{name}={_serialised(value, inside)}"
    for name, value in _parts(node, in_class)
  ]
  return f"{type(node).__name__}({' '.join(parts)})"


def _pieces(node: ast.JoinedStr) -> list[str]:
  """The parts of an f-string, with adjacent texts joined."""
  pieces, text = [], ""
  for value in node.values:
    if isinstance(value, ast.Constant):
      text += str(value.value)
      continue
    if text:
      pieces.append(repr(text))
    pieces.append(_serialised(value))
    text = ""
  return [*pieces, repr(text)] if text else pieces


@functools.cache
def _file_of(module: str) -> pathlib.Path | None:
  """The file of another package's module, without importing it."""
  package, *rest = module.split(".")
  spec = importlib.util.find_spec(package)
  if spec is None or not spec.submodule_search_locations:
    return None
  place = pathlib.Path(spec.submodule_search_locations[0], *rest)
  path = place.with_suffix(".py")
  return path if path.is_file() else None


@functools.cache
def _whole(path: pathlib.Path) -> str:
  return " ".join(_serialised(s) for s in ast.parse(path.read_bytes()).body)
