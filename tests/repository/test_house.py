"""The rules that keep the house one to live in; docs/architecture.md has them.

A folder has a dozen modules at most and a module 500 lines. A name of a module
means one thing wherever it stands. Imports have no circles. What documents and
comments cite is there.
"""

import ast
import collections
import re
from collections.abc import Iterator

import pytest

from tests.repository.test_imports import (
  PACKAGES,
  ROOT,
  imports,
  modules,
  within,
)

SIBLINGS, LINES = 12, 500
CODE = (*PACKAGES, "tests")
# A name that several folders have, and what it means in each of them.
SHARED_NAMES = {
  "builder": "a dataset's TFDS builder",
  "captions": "sentences about a small world's scenes",
  "check": "checks a dataset's folder and tells all that is wrong",
  "checkpoints": "what training keeps; the benchmark measures it",
  "config": "settings of the folder's things as dataclasses",
  "export": "the export command; the benchmark measures it",
  "folder": "reads or writes a dataset's folder",
  "hico_det": "HICO-DET: its metric, its configs",
  "image_split": "random access to a split of a prepared dataset",
  "interactions": "the folder's part for HICO-DET's task",
  "layers": "layers that the folder's networks share",
  "objective": "the sum of the losses; the reference's adapter to it",
  "plan": "what is to be made, before it is made",
  "plots": "pictures of the folder's results",
  "predict": "the student on any images, here and in an exported folder",
  "programs": "compiled functions of the folder's work",
  "records": "one annotated image of a dataset",
  "scenes": "draws a scene of a small world as data",
  "situations": "the folder's part for Ov-SWiG's task",
  "step": "one training step, the reference's, the benchmark of it",
  "tables": "the folder's results as tables",
  "vocabulary": "names and numbers of a dataset's classes",
  "weights": "parameters as files",
  "world": "draws a small world",
}


def folders() -> dict[str, list[str]]:
  """Folder -> its modules, without `__init__` and `__main__`."""
  found = collections.defaultdict(list)
  for package in CODE:
    for path in sorted((ROOT / package).rglob("*.py")):
      if not path.stem.startswith("__"):
        found[str(path.parent.relative_to(ROOT))].append(path.stem)
  return found


def test_a_folder_has_a_dozen_modules_at_most():
  many = {k: len(v) for k, v in folders().items() if len(v) > SIBLINGS}
  assert not many, many


def test_a_module_has_500_lines_at_most():
  long = {}
  for name, path in modules():
    lines = len(path.read_text(encoding="utf-8").splitlines())
    if lines > LINES:
      long[name] = lines
  assert not long, long


def test_a_name_means_one_thing():
  places = collections.defaultdict(list)
  for folder, names in folders().items():
    if within(folder.replace("/", "."), "tests"):
      continue
    for name in names:
      places[name].append(folder)
  shared = {k: v for k, v in places.items() if len(v) > 1}
  unexplained = {k: v for k, v in shared.items() if k not in SHARED_NAMES}
  assert not unexplained, unexplained
  assert not set(SHARED_NAMES) - set(shared), "no longer shared"


def graph() -> dict[str, set[str]]:
  """Module -> the modules that it imports, at its top or inside functions."""
  known = {name for name, _ in modules()}
  found = {}
  for name, path in modules():
    found[name] = set()
    for item in imports(path.read_text(encoding="utf-8")):
      parts = item.name.split(".")
      for end in range(len(parts), 0, -1):
        target = ".".join(parts[:end])
        if target in known:
          found[name].add(target)
          break
    found[name].discard(name)
  return found


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
  """Strongly connected sets of more than one module (Tarjan, unrolled)."""
  order, low, stack, found = {}, {}, [], []

  def visit(root: str) -> None:
    work = [(root, iter(sorted(edges[root])))]
    order[root] = low[root] = len(order)
    stack.append(root)
    while work:
      node, rest = work[-1]
      for target in rest:
        if target not in order:
          order[target] = low[target] = len(order)
          stack.append(target)
          work.append((target, iter(sorted(edges[target]))))
          break
        if target in stack:
          low[node] = min(low[node], order[target])
      else:
        work.pop()
        if work:
          low[work[-1][0]] = min(low[work[-1][0]], low[node])
        if low[node] == order[node]:
          part = []
          while not part or part[-1] != node:
            part.append(stack.pop())
          if len(part) > 1:
            found.append(sorted(part))

  for name in sorted(edges):
    if name not in order:
      visit(name)
  return found


def test_imports_have_no_circles():
  assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [
    ["a", "b", "c"]
  ]
  found = circles(graph())
  assert not found, found


def prose(path) -> Iterator[str]:
  """Documents whole; of code the docstrings and comments."""
  text = path.read_text(encoding="utf-8")
  if path.suffix != ".py":
    yield text
    return
  for node in ast.walk(ast.parse(text)):
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    if isinstance(node, kinds):
      yield ast.get_docstring(node) or ""
  yield "\n".join(
    line.split("#", 1)[1] for line in text.splitlines() if "#" in line
  )


def pages() -> list:
  return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def anchor(heading: str) -> str:
  """The name by which GitHub links to a heading."""
  text = re.sub(r"[^\w\- ]", "", heading.strip().lower().replace("`", ""))
  return text.replace(" ", "-")


def headings(text: str) -> set[str]:
  found = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
  return {anchor(heading) for heading in found}


def dangling_links(path) -> list[str]:
  found = []
  text = path.read_text(encoding="utf-8")
  for link in re.findall(r"\]\(([^)\s]+)\)", text):
    if re.match(r"[a-z]+:", link):
      continue
    name, _, section = link.partition("#")
    target = path.parent / name if name else path
    if not target.exists():
      found.append(f"{path.name}: {link}")
    elif section and section not in headings(target.read_text("utf-8")):
      found.append(f"{path.name}: {link}: no such section")
  return found


def dangling_names(path) -> list[str]:
  """Files of the repository that a text names and that are not there."""
  found = []
  tops = "mipd_jax|input_pipeline|configs|benchmarks|tests|docs|tpu|notebooks"
  named = re.compile(rf"(?<![\w/.-])((?:{tops})/[\w./-]*\w\.\w+)")
  section = re.compile(r"(docs/\w+\.md|README\.md),\s+'([^']+)'")
  for text in prose(path):
    for name in named.findall(text):
      if not (ROOT / name).exists():
        found.append(f"{path.relative_to(ROOT)}: {name}")
    for name, heading in section.findall(text):
      there = headings((ROOT / name).read_text("utf-8"))
      if anchor(" ".join(heading.split())) not in there:
        found.append(f"{path.relative_to(ROOT)}: {name}, {heading!r}")
  return found


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_links_lead_somewhere(path):
  assert not dangling_links(path)


def test_files_and_sections_that_are_cited_exist():
  code = [path for _, path in modules()]
  code += sorted((ROOT / "tests").rglob("*.py"))
  found = [line for path in [*pages(), *code] for line in dangling_names(path)]
  assert not found, "\n".join(found)


def test_a_dangling_link_is_seen(tmp_path):
  page = tmp_path / "page.md"
  page.write_text("# Here\n[a](page.md#here) [b](page.md#there) [c](none.md)")
  assert dangling_links(page) == [
    "page.md: page.md#there: no such section",
    "page.md: none.md",
  ]
