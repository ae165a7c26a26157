"""Imports go one way, as docs/architecture.md says, read off the syntax trees.

`ALLOWED` is that table: a module may import what is listed for the longest
prefix of its name. A module without an entry is an error, so that a new one
is given its place on purpose.
"""

import ast
import dataclasses
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGES = ("input_pipeline", "mipd_jax", "configs", "benchmarks")
DATA = "input_pipeline"
CONTRACT = (
  "input_pipeline.schema",
  "input_pipeline.io.errors",
  "input_pipeline.ranges",
)
SMALL = ("mipd_jax.devices",)
STEP = ("mipd_jax.models", "mipd_jax.losses", "mipd_jax.metrics")

ALLOWED: dict[str, tuple[str, ...]] = {
  "input_pipeline": (DATA,),
  "mipd_jax.devices": (*CONTRACT, "input_pipeline.io.atomic"),
  "mipd_jax.feeding": (DATA, *SMALL, "mipd_jax.feeding"),
  "mipd_jax.models": (*CONTRACT, "mipd_jax.models"),
  "mipd_jax.losses": (
    *CONTRACT,
    "mipd_jax.losses",
    "mipd_jax.models.outputs",
  ),
  "mipd_jax.metrics": (
    *CONTRACT,
    "input_pipeline.io.atomic",
    "input_pipeline.io.commands",
    "input_pipeline.boxes",
    "input_pipeline.hico_det",
    "input_pipeline.io.json_files",
    "input_pipeline.ov_swig.layout",
    "input_pipeline.ov_swig.vocabulary",
    "mipd_jax.metrics",
    "mipd_jax.models.outputs",
    "mipd_jax.losses.box_ops",
  ),
  "mipd_jax.rationales": (DATA, "mipd_jax.rationales"),
  "mipd_jax.teachers": (
    DATA,
    *SMALL,
    "mipd_jax.models.eyes",
    "mipd_jax.models.teaching.open_layers",
    "mipd_jax.rationales",
    "mipd_jax.teachers",
  ),
  "mipd_jax.report": (
    DATA,
    "mipd_jax.metrics.hico_det_scores",  # which columns tables have
    "mipd_jax.metrics.swig_scores",
    "mipd_jax.report",
  ),
  "mipd_jax.config": (
    *CONTRACT,
    "input_pipeline.small_world.situations.config",
    "input_pipeline.small_world.interactions.config",
    "mipd_jax.losses",
    "mipd_jax.models.config",
    "mipd_jax.models.teaching.open_layers",
    "mipd_jax.presets",
    "mipd_jax.rationales.judging",
    "mipd_jax.tasks.checks",
    "mipd_jax.tasks.config",
  ),
  "mipd_jax.presets": (
    "mipd_jax.losses.config",
    "mipd_jax.models.config",
    "mipd_jax.tasks.config",
  ),
  "mipd_jax.training": (
    DATA,
    *SMALL,
    *STEP,
    "mipd_jax.config",
    "mipd_jax.feeding",
    "mipd_jax.training",
  ),
  "mipd_jax.evaluation": (
    DATA,
    *SMALL,
    *STEP,
    "mipd_jax.evaluation",
    "mipd_jax.feeding",
  ),
  "mipd_jax.reference": (
    DATA,
    *SMALL,
    *STEP,
    "mipd_jax.config",
    "mipd_jax.presets",
    "mipd_jax.reference",
    "mipd_jax.training",
  ),
  # What is learnt: put together by the stages.
  "mipd_jax.tasks": (
    DATA,
    *SMALL,
    *STEP,
    "mipd_jax.config",
    "mipd_jax.evaluation",
    "mipd_jax.feeding",
    "mipd_jax.rationales",
    "mipd_jax.report",
    "mipd_jax.tasks",
    "mipd_jax.teachers",
    "mipd_jax.training",
  ),
  "mipd_jax.tasks.config": (
    *CONTRACT,
    "input_pipeline.small_world.interactions.config",
    "mipd_jax.losses",
    "mipd_jax.models.outputs",
  ),
  "mipd_jax.tasks.checks": (
    *CONTRACT,
    "mipd_jax.models.outputs",
    "mipd_jax.models.teaching.open_layers",
  ),
  "mipd_jax.inference": (
    DATA,
    *SMALL,
    "mipd_jax.config",
    "mipd_jax.feeding.dequantise",
    "mipd_jax.inference",
    "mipd_jax.metrics.scores",
    "mipd_jax.metrics.swig_scores",
    "mipd_jax.models",
    "mipd_jax.rationales.placeholders",
    "mipd_jax.rationales.wording",
    "mipd_jax.teachers",
    "mipd_jax.training",
  ),
  # The top: may import all that is below, but not main.
  "mipd_jax.stages": (
    DATA,
    *SMALL,
    *STEP,
    "mipd_jax.config",
    "mipd_jax.evaluation",
    "mipd_jax.feeding",
    "mipd_jax.inference",
    "mipd_jax.rationales",
    "mipd_jax.report",
    "mipd_jax.stages",
    "mipd_jax.tasks",
    "mipd_jax.teachers",
    "mipd_jax.training",
  ),
  "mipd_jax.import_reference": (DATA, "mipd_jax", "configs"),
  "mipd_jax.write_rationales": (
    DATA,
    *SMALL,
    "mipd_jax.rationales",
    "mipd_jax.teachers",
  ),
  "mipd_jax.exporting": (
    DATA,
    *SMALL,
    "mipd_jax.exporting",
    "mipd_jax.inference",
    "mipd_jax.models.eyes",
    "mipd_jax.report",
    "mipd_jax.teachers",
  ),
  "mipd_jax.exporting.scripts": (),  # they run without this project
  "mipd_jax.export": (
    DATA,
    *SMALL,
    "mipd_jax.exporting",
    "mipd_jax.inference",
  ),
  "mipd_jax.web_demo": (
    DATA,
    "mipd_jax.inference",
    "mipd_jax.report",
    "mipd_jax.stages.predict",
  ),
  "mipd_jax.command_line": (
    *CONTRACT,
    "input_pipeline.io.commands",
    "input_pipeline.io.commands",
  ),
  "mipd_jax.ablations": (DATA, "mipd_jax"),
  "mipd_jax.ablate": (DATA, "mipd_jax"),
  "mipd_jax.main": (DATA, "mipd_jax"),
  "mipd_jax": (),
  "configs": (
    DATA,
    "configs",
    "mipd_jax.ablations.plan",
    "mipd_jax.config",
    "mipd_jax.losses.situations",
    "mipd_jax.models.outputs",
    "mipd_jax.presets",
  ),
  "benchmarks": (DATA, "mipd_jax", "configs", "benchmarks"),
}

ANYWHERE = "anywhere"  # module level too
INSIDE = "inside functions"
COMMANDS = {
  "mipd_jax.main": ANYWHERE,
  "mipd_jax.ablate": ANYWHERE,
  "mipd_jax.command_line": ANYWHERE,
}
# Library -> the modules that may import it, and where.
LIBRARIES: dict[str, dict[str, str]] = {
  "ml_collections": {**COMMANDS, "configs": ANYWHERE},
  "absl.flags": COMMANDS,
  "absl.app": COMMANDS,
  "transformers": {
    "mipd_jax.teachers": INSIDE,
    "benchmarks.support.published_sizes": INSIDE,
  },
  "torch": {"mipd_jax.import_reference": INSIDE},
  "gradio": {"mipd_jax.web_demo": INSIDE},
  "tensorflow": {"input_pipeline": INSIDE},
  "tensorflow_datasets": {
    "input_pipeline.hico_det.builder": ANYWHERE,
    "input_pipeline.ov_swig.builder": ANYWHERE,
    "benchmarks.hardening.process": INSIDE,
  },
  "clu": {"mipd_jax.training.writers": ANYWHERE},
  "orbax": {
    "mipd_jax.training.checkpoints": ANYWHERE,
    "mipd_jax.import_reference": ANYWHERE,
    "benchmarks.hardening.command_lines": INSIDE,
  },
  "yaml": {"mipd_jax.inference.words_file": ANYWHERE},
  "jax": {"mipd_jax": ANYWHERE, "benchmarks": ANYWHERE},
  "flax": {"mipd_jax": ANYWHERE, "benchmarks": ANYWHERE},
}
# jax is welcome in all of mipd_jax but here.
WITHOUT_JAX = (
  "mipd_jax.report",
  "mipd_jax.rationales",
  "mipd_jax.config",
  "mipd_jax.metrics.hico_det_scores",
  "mipd_jax.metrics.swig_scores",
)


@dataclasses.dataclass(frozen=True)
class Import:
  """One imported name: of which module, and whether at module level."""

  name: str
  line: int
  top: bool


def imports(source: str) -> Iterator[Import]:
  """Imports of a module; those for type checkers only are left out."""
  for node, top in _walk(ast.parse(source), top=True):
    if isinstance(node, ast.Import):
      for alias in node.names:
        yield Import(alias.name, node.lineno, top)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"line {node.lineno}: relative import"
      for alias in node.names:
        yield Import(f"{node.module}.{alias.name}", node.lineno, top)


def _walk(node: ast.AST, top: bool) -> Iterator[tuple[ast.AST, bool]]:
  if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
    return
  yield node, top
  inside = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
  for child in ast.iter_child_nodes(node):
    yield from _walk(child, top and not inside)


def within(name: str, prefix: str) -> bool:
  return name == prefix or name.startswith(prefix + ".")


def longest(name: str, table: dict) -> str | None:
  found = [prefix for prefix in table if within(name, prefix)]
  return max(found, key=len, default=None)


def problems(module: str, source: str) -> list[str]:
  """What a module imports though it may not, one line each."""
  found = []
  place = longest(module, ALLOWED)
  # The bare package is no place for modules.
  if place is None or (place == "mipd_jax" and module != "mipd_jax"):
    return [f"{module} has no place in ALLOWED"]
  for item in imports(source):
    where = f"{module}:{item.line} imports {item.name}"
    if any(within(item.name, package) for package in PACKAGES):
      main = within(item.name, "mipd_jax.main")
      allowed = any(within(item.name, name) for name in ALLOWED[place])
      if main or not allowed:
        found.append(where)
      continue
    library = longest(item.name, LIBRARIES)
    if library is None:
      continue
    home = longest(module, LIBRARIES[library])
    if home is None:
      found.append(where)
    elif LIBRARIES[library][home] == INSIDE and item.top:
      found.append(f"{where} at module level")
    elif library == "jax" and any(within(module, m) for m in WITHOUT_JAX):
      found.append(f"{where}, but has to do without jax")
  return found


def modules() -> list[tuple[str, pathlib.Path]]:
  found = []
  for package in PACKAGES:
    for path in sorted((ROOT / package).rglob("*.py")):
      parts = path.relative_to(ROOT).with_suffix("").parts
      name = ".".join(parts).removesuffix(".__init__")
      found.append((name, path))
  return found


def test_imports_go_one_way():
  found = modules()
  assert len(found) > 70
  wrong = [
    line
    for name, path in found
    for line in problems(name, path.read_text(encoding="utf-8"))
  ]
  assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
  ("module", "source"),
  [
    ("input_pipeline.stream", "from mipd_jax.devices import sharding"),
    ("input_pipeline.stream", "import tensorflow as tf"),
    ("input_pipeline.stream", "def f():\n  import jax"),
    ("mipd_jax.models.student", "from mipd_jax.losses import terms"),
    ("mipd_jax.models.student", "from mipd_jax.metrics import scores"),
    ("mipd_jax.models.student", "from mipd_jax.config import Config"),
    ("mipd_jax.models.student", "from mipd_jax import config"),
    ("mipd_jax.models.student", "from absl import flags"),
    ("mipd_jax.models.student", "import transformers"),
    ("mipd_jax.losses.situations", "import clu.metrics"),
    ("mipd_jax.losses.terms", "from mipd_jax.models.student import Student"),
    ("mipd_jax.training.step", "from orbax import checkpoint"),
    ("mipd_jax.training.loop", "from mipd_jax.stages import train"),
    ("mipd_jax.training.loop", "from ml_collections import config_dict"),
    ("mipd_jax.teachers.clip", "from transformers import CLIPConfig"),
    ("mipd_jax.report.tables", "import jax.numpy as jnp"),
    ("mipd_jax.report.tables", "from mipd_jax.metrics import scores"),
    ("mipd_jax.metrics.swig_scores", "import jax"),
    ("mipd_jax.stages.train", "def f():\n  from mipd_jax import main"),
    ("mipd_jax.stages.train", "import torch"),
    ("mipd_jax.novelty", ""),
  ],
)
def test_the_checker_sees_what_is_wrong(module, source):
  assert len(problems(module, source)) == 1


@pytest.mark.parametrize(
  ("module", "source"),
  [
    (
      "mipd_jax.teachers.clip",
      "def f():\n  import transformers",
    ),
    ("input_pipeline.stream", "def f():\n  import tensorflow"),
    ("mipd_jax.models.student", "from input_pipeline import schema"),
    (
      "mipd_jax.teachers.precompute",
      "from typing import TYPE_CHECKING\n"
      "if TYPE_CHECKING:\n  from mipd_jax.config import Config",
    ),
  ],
)
def test_the_checker_lets_pass_what_is_right(module, source):
  assert problems(module, source) == []


# Machines that only compute have jax and no data libraries.
_BARE = """
import sys
for name in ("tensorflow", "tensorflow_datasets", "clu", "orbax",
             "orbax.checkpoint", "ml_collections", "transformers", "torch",
             "array_record", "matplotlib"):
  sys.modules[name] = None
import mipd_jax.models.mipd
import mipd_jax.losses.situations
import mipd_jax.metrics.scores
import mipd_jax.training.step
import mipd_jax.devices.sharding, mipd_jax.devices.randomness
import mipd_jax.presets
print("imported")
"""


def test_step_runs_without_data_libraries():
  done = subprocess.run(
    [sys.executable, "-c", _BARE],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.stdout.strip() == "imported", done.stderr


def test_nothing_names_a_machine_or_downloads_code():
  """No path of one machine, and nothing that fetches or runs foreign code."""
  words = ("/work/", "/tmp/", "trust_remote_code", "urllib.request")
  for name, path in modules():
    text = path.read_text(encoding="utf-8")
    # Said outright, transformers neither runs such code nor asks.
    text = text.replace("trust_remote_code=False", "")
    for word in words:
      assert word not in text, f"{name} has {word}"
