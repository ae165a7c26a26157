"""The rules that keep the house one to live in; docs/architecture.md has them.

A folder has a dozen modules at most and a module 500 lines. A name of a module
means one thing wherever it stands. Imports have no circles. What documents and
comments cite is there. The README is short.
"""

import ast
import collections
import dataclasses
import functools
import re
from collections.abc import Iterator

import pytest

from tests.repository.test_imports import (
  ALLOWED,
  PACKAGES,
  ROOT,
  imports,
  longest,
  modules,
  within,
)

SIBLINGS, LINES, README_LINES = 12, 500, 150
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
  "open_layers": "the teacher's frozen layers that prompts pass through",
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


def layers() -> dict[str, int]:
  """Module of `ALLOWED` -> its layer in the table of docs/architecture.md."""
  text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
  found = {}
  rows = re.findall(r"(?m)^\| (\d) [^|]*\| ([^|]*) \|", text)
  for layer, names in rows:
    for name in re.findall(r"`([\w.]+)`", names):
      inside = name if name in PACKAGES else f"mipd_jax.{name}"
      assert inside not in found, name
      found[inside] = int(layer)
  return found


def test_the_table_of_layers_is_what_imports_obey():
  found = layers()
  assert set(found) == set(ALLOWED) - {"mipd_jax"}
  for module, layer in found.items():
    for name in ALLOWED[module]:
      place = longest(name, found)
      # The bare package: whoever may import it may import all but `main`.
      assert place or name == "mipd_jax", name
      if place:
        assert found[place] <= layer, f"{module} imports {name}"


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
  folders = ROOT / "docs", ROOT / "tests"
  found = [x for folder in folders for x in sorted(folder.rglob("*.md"))]
  return [ROOT / "README.md", *found, *(ROOT / "notebooks").glob("*.ipynb")]


def test_the_readme_is_read_in_one_go():
  lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
  assert len(lines) <= README_LINES


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


# Files of the authors' code and of transformers that comments cite.
FOREIGN_FILES = {"datasets/swig.py", "modeling_flax_gpt2.py"}
FOREIGN_FILES |= {"modeling_flax_{llama,mistral,gemma}.py"}


def is_a_file(name: str) -> bool:
  """Whether a path, from any folder on, `*` and `{a,b}` in it, is there."""
  name = re.sub(r"^[A-Z]+/", "", name)  # OUT/, WORK/: wherever that is
  several = re.fullmatch(r"(.*)\{(.*)\}(.*)", name)
  if several:
    start, names, end = several.groups()
    return all(is_a_file(f"{start}{x}{end}") for x in names.split(","))
  return any(path.match(name) for path in sources())


def dangling_names(path) -> list[str]:
  """Files of the repository that a text names and that are not there."""
  found = []
  tops = "mipd_jax|input_pipeline|configs|benchmarks|tests|docs|tpu|notebooks"
  named = re.compile(rf"(?<![\w/.-])((?:{tops})/[\w./-]*\w\.\w+)")
  module = re.compile(r"(?<![\w/.-])[\w/*{},]+\.py\b")
  section = re.compile(r"(docs/\w+\.md|README\.md),\s+'([^']+)'")
  for text in prose(path):
    for name in named.findall(text):
      if not (ROOT / name).exists():
        found.append(f"{path.relative_to(ROOT)}: {name}")
    for name in module.findall(text):
      if name not in FOREIGN_FILES and not is_a_file(name):
        found.append(f"{path.relative_to(ROOT)}: {name}")
    for name, heading in section.findall(text):
      there = headings((ROOT / name).read_text("utf-8"))
      if anchor(" ".join(heading.split())) not in there:
        found.append(f"{path.relative_to(ROOT)}: {name}, {heading!r}")
  return found


@pytest.mark.parametrize(
  "path", pages(), ids=lambda path: str(path.relative_to(ROOT))
)
def test_links_lead_somewhere(path):
  assert not dangling_links(path)


@functools.cache
def sources() -> list:
  return [x for package in CODE for x in sorted((ROOT / package).rglob("*.py"))]


def test_files_and_sections_that_are_cited_exist():
  found = [x for path in [*pages(), *sources()] for x in dangling_names(path)]
  assert not found, "\n".join(found)


def test_a_dangling_link_is_seen(tmp_path):
  page = tmp_path / "page.md"
  page.write_text("# Here\n[a](page.md#here) [b](page.md#there) [c](none.md)")
  assert dangling_links(page) == [
    "page.md: page.md#there: no such section",
    "page.md: none.md",
  ]


# First parts of dotted names that are other libraries'.
LIBRARIES = {"jax", "jnp", "ml_collections", "nn", "np", "safetensors", "tfds"}
LIBRARIES |= {"transformers"}
# Ends of names of files, which are no attributes.
FILES = {"array_record", "bin", "csv", "html", "ipynb", "jpg", "json", "jsonl"}
FILES |= {"m", "md", "model", "npz", "png", "pt", "py", "safetensors", "sh"}
FILES |= {"sha256", "stablehlo", "txt", "yaml", "zip"}
# Of the authors' code, CoFormer, TFDS and transformers.
FOREIGN_NAMES = {"accuracy_swig_bbox", "apply_scaling", "target_sizes"}
FOREIGN_NAMES |= {"post_process_object_detection", "tr_dec"}
FOREIGN_NAMES |= {"submit_shard_based_generation"}
# Modules whose dataclasses are groups of the configuration.
CONFIGS = {"config", "judging"}


@dataclasses.dataclass
class Names:
  """What can be cited of the repository.

  Attributes:
    modules: dotted name -> names that it has at its top.
    classes: name of a class -> names in its body, and its `self.NAME`.
    fields: of the configuration.
    words: identifiers in any code, and texts of one word.
  """

  modules: dict[str, set[str]]
  classes: dict[str, set[str]]
  fields: set[str]
  words: set[str]

  def has(self, cited: str, own: set[str] | None = None) -> bool:
    """Whether a module's or a class's name, or a field, is there.

    Args:
      cited: a dotted name; with folders before it or not.
      own: identifiers of the file that cites it; of a document None.
    """
    folder, _, dotted = cited.rpartition("/")
    first, *rest = dotted.split(".")
    if rest[-1] in FILES or first in LIBRARIES:
      return True
    if self.fields.issuperset([first, *rest]):
      return True
    if first in self.classes:
      return rest[0] in self.classes[first]
    if first in PACKAGES:
      module = max((x for x in self.modules if within(dotted, x)), key=len)
      return self.resolves(module, dotted[len(module) + 1 :])
    module = f"{folder}/{first}".strip("/").replace("/", ".")
    named = [x for x in self.modules if f".{x}".endswith(f".{module}")]
    if named:
      return any(self.resolves(x, ".".join(rest)) for x in named)
    return own is None or first in own

  def resolves(self, module: str, name: str) -> bool:
    """Whether a name is one of a module, or one of a module's class."""
    first, _, second = name.partition(".")
    if first not in {"", *self.modules[module]}:
      return False
    return not second or second in self.classes.get(first, second)


def assigned(body: list[ast.stmt]) -> set[str]:
  """Names that statements define, in their branches too."""
  found = set()
  for node in body:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
      found.add(node.name)
    elif isinstance(node, (ast.Import, ast.ImportFrom)):
      found |= {x.asname or x.name.split(".")[0] for x in node.names}
    elif isinstance(node, ast.If):
      found |= assigned(node.body) | assigned(node.orelse)
    else:
      names = [x for x in ast.walk(node) if isinstance(x, ast.Name)]
      found |= {x.id for x in names if isinstance(x.ctx, ast.Store)}
  return found


def identifiers(tree: ast.AST) -> set[str]:
  """Names of all kinds that some code has, and its strings without blanks."""
  found = set()
  for node in ast.walk(tree):
    for field in ("id", "attr", "arg", "name", "asname", "value"):
      value = getattr(node, field, None)
      if isinstance(value, str) and not re.search(r"\s", value):
        found.add(value)
  return found


@functools.cache
def citable() -> Names:
  found = Names(
    {}, collections.defaultdict(set), {"config"}, set(FOREIGN_NAMES)
  )
  for path in sources():
    tree = ast.parse(path.read_text(encoding="utf-8"))
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    top = assigned(tree.body)
    if path.stem == "__init__":
      name = name.removesuffix(".__init__")
      top |= {x.stem for x in path.parent.iterdir()}
    found.modules[name] = top
    found.words |= identifiers(tree) | set(name.split("."))
    for node in ast.walk(tree):
      if isinstance(node, ast.ClassDef):
        own = {x.attr for x in ast.walk(node) if isinstance(x, ast.Attribute)}
        found.classes[node.name] |= assigned(node.body) | own
      elif isinstance(node, ast.AnnAssign) and path.stem in CONFIGS:
        found.fields.add(getattr(node.target, "id", ""))
  return found


def dangling_citations(path) -> list[str]:
  """Names between backticks that are no longer there: dotted, or with a `_`.

  Of a document the dotted ones alone.
  """
  own = None
  if path.suffix == ".py":
    own = identifiers(ast.parse(path.read_text(encoding="utf-8")))
  found = []
  cited = re.compile(r"((?:\w+/)*[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+)")
  for text in prose(path):
    if own is None:
      text = re.sub(r"(?ms)^```.*?^```", "", text)
    for code in re.findall(r"`([^`]+)`", text):
      code = " ".join(code.split()).split("(")[0]
      if cited.fullmatch(code):
        there = citable().has(code, own)
      else:
        plain = re.fullmatch(r"[a-z]+(_[a-z0-9]+)+", code)
        there = not plain or own is None or code in citable().words | own
      if not there:
        found.append(f"{path.name}: {code}")
  return found


def test_names_that_are_cited_exist():
  paths = [*pages(), *sources()]
  found = [x for path in paths for x in dangling_citations(path)]
  assert not found, "\n".join(found)


def test_a_dangling_name_is_seen(tmp_path):
  module = tmp_path / "code.py"
  gone = "no_" + "such_name"
  cited = ["order.step_indices", "input_pipeline.order.gone", "gone.name"]
  cited += ["a.b", "models/config.ModelConfig", "models/config.Gone"]
  cited += ["loss.verb_kl", gone, "step_indices", "Cache.gone"]
  cited += ["mipd_jax.losses.config", "losses/order.step_indices"]
  module.write_text(f'"""{" ".join(f"`{x}`" for x in cited)}"""\na = 1\n')
  assert dangling_citations(module) == [
    "code.py: input_pipeline.order.gone",
    "code.py: gone.name",
    "code.py: models/config.Gone",
    f"code.py: {gone}",
    "code.py: Cache.gone",
    "code.py: losses/order.step_indices",
  ]
