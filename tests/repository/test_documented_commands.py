"""Commands in README and docs are ones that exist, with flags as typed.

Every `python -m ...` and `make ...` is read from the pages. Modules are run as
`__main__` with the arguments of the page, up to where the real parser has
taken them; commands with --config up to where the config is unpacked. So a
flag that is gone, a value that is refused and a module that does nothing are
noticed, and a new command needs a line in `_PARSED`, `_CONFIG` or `_BARE`.
"""

import argparse
import ast
import json
import os
import pathlib
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator

import pytest
from tensorflow_datasets.core import registered

from benchmarks import step
from benchmarks.hardening import command_lines as hardening
from configs import hico_det, ov_swig, synthetic
from input_pipeline.hico_det import builder as _builder  # noqa: F401, registers
from input_pipeline.ov_swig import builder as _swig  # noqa: F401, the same
from tests.fixtures.pipeline_fixture import ROOT

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
# Modules whose flags an ArgumentParser reads.
_PARSED = {
  *("benchmarks.checkpoints", "benchmarks.export", "benchmarks.figures"),
  "benchmarks.hardening",
  *("benchmarks.hico_small_world", "benchmarks.input", "benchmarks.mutants"),
  *("benchmarks.open_layers", "benchmarks.parity", "benchmarks.step"),
  "benchmarks.swig_sized",
  *("benchmarks.teachers", "benchmarks.tpu_compile"),
  *("input_pipeline.feature_cache", "input_pipeline.ov_swig"),
  *("input_pipeline.hico_det.builder", "input_pipeline.hico_det.check"),
  "input_pipeline.hico_det.detection_import",
  *("input_pipeline.hico_det.split_files", "input_pipeline.split_maker"),
  *("mipd_jax.export", "mipd_jax.import_reference"),
  *("mipd_jax.metrics.hico_det", "mipd_jax.metrics.swig"),
  "mipd_jax.teachers.foundation",
  *("mipd_jax.web_demo", "mipd_jax.write_rationales", "tests.browser"),
}
# Modules that take --config.
_CONFIG = {"mipd_jax.main", "mipd_jax.ablate"}
# Modules without any flag, and those of others.
_BARE = {"benchmarks.minute"}
_FOREIGN = {"pip"}
# What stands on a page for what a reader puts there.
_PLACEHOLDERS = {
  "[:VARIANT]": ":debug",
  "--config.FIELD=VALUE": "--config.seed=1",
  "--mode=all|prepare|train|eval|predict|report": "--mode=train",
  "N": "1",
}
# Commands of which a page gives the beginning only.
_BEGINNINGS = {
  "mipd_jax.main": ["--config=configs/synthetic.py:debug"],
  "benchmarks.input": ["--folder=DIR"],
  "benchmarks.swig_sized": ["--vocabulary=FILE", "--out=DIR"],
  "input_pipeline.hico_det.detection_import": ["--oracle", "--out=FILE"],
  "mipd_jax.teachers.foundation": ["--out=DIR"],
}
_COMMAND = re.compile(
  r"(\S+/)?python3? -m \w|make [a-z]|\./launch_tpu\.sh .* -- "
)
_LANGUAGES = ("", "bash", "sh", "console", "text")


def _commands(text: str) -> Iterator[str]:
  """Commands of a page, in blocks of code and between backticks."""
  text = re.sub(r"(?m)^ {1,4}```", "```", text)
  blocks = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
  for language, block in blocks.findall(text):
    if language in _LANGUAGES:
      yield from _lines(block)
  prose = blocks.sub("", text)
  for code in re.findall(r"`([^`]+)`", prose):
    line = " ".join(code.replace("\\\n", " ").split())
    if _COMMAND.match(line):
      yield line
  yield from _lines("\n".join(re.findall(r"(?m)^ {4}(.*)", prose)))


def _lines(block: str) -> Iterator[str]:
  """Lines with what is continued, by a backslash or by indented flags."""
  block = re.sub(r"\\\n\s*", " ", block)
  block = re.sub(r"\n\s+(?=\[?--)", " ", block)
  for line in block.splitlines():
    line = line.strip().removeprefix("$ ")
    if _COMMAND.match(line):
      # An explanation stands behind two blanks or more.
      yield re.split(r"\s{2,}(?![-\[])|\s+# ", line)[0]


def _documented() -> dict[str, str]:
  """Command -> the first page that has it."""
  found: dict[str, str] = {}
  for page in PAGES:
    for command in _commands(page.read_text(encoding="utf-8")):
      found.setdefault(command, page.name)
  return found


DOCUMENTED = _documented()


def _arguments(command: str) -> tuple[str, list[str]]:
  """The module, and the arguments with placeholders filled in."""
  if command.startswith("./launch_tpu.sh"):  # those of the job behind --
    command = f"python -m mipd_jax.main {command.split(' -- ')[1]}"
  for old, new in _PLACEHOLDERS.items():
    command = re.sub(
      rf"(?<![\w.]){re.escape(old)}(?!\w)" if old.isalnum() else re.escape(old),
      new,
      command,
    )
  command = re.sub(r"\[(?=[-,:])|\](?=\s|$)", "", command)
  command = re.sub(r"\[,\w+\]", "", command)
  short = command.endswith("...")
  words = [x for x in shlex.split(command) if x not in ("...", "|", "&&")]
  module = words[words.index("-m") + 1]
  arguments = words[words.index("-m") + 2 :]
  if short or not arguments:
    known = {x.split("=")[0] for x in arguments}
    arguments += [
      x for x in _BEGINNINGS.get(module, []) if x.split("=")[0] not in known
    ]
  return module, arguments


class _ParsedError(BaseException):
  """Raised where a command's parser has taken its arguments."""


@pytest.fixture
def parsing(monkeypatch):
  """Commands stop once their arguments are read; nothing else is kept."""
  environment = dict(os.environ)
  original = argparse.ArgumentParser.parse_args

  def parse(self, *arguments, **more):
    original(self, *arguments, **more)
    raise _ParsedError

  monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)

  def replace(*_):
    raise AssertionError("a command would replace the tests' process")

  monkeypatch.setattr(os, "execve", replace)
  for name in step.ALLOCATOR:  # or it starts itself again with these
    monkeypatch.setenv(name, "")
  yield
  os.environ.clear()
  os.environ.update(environment)


def _python(kinds: set[str]) -> list[str]:
  return [
    command
    for command in DOCUMENTED
    if not command.startswith("make ") and _arguments(command)[0] in kinds
  ]


def test_every_command_has_its_entry():
  known = _PARSED | _CONFIG | _BARE | _FOREIGN
  unknown = [
    f"{page}: {command}"
    for command, page in DOCUMENTED.items()
    if not command.startswith("make ") and _arguments(command)[0] not in known
  ]
  assert not unknown, "\n".join(unknown)
  assert len(DOCUMENTED) > 50


@pytest.mark.parametrize("command", _python(_PARSED))
def test_the_parser_takes_it(command, parsing, monkeypatch, capsys):
  module, arguments = _arguments(command)
  monkeypatch.chdir(ROOT)
  monkeypatch.setattr(sys, "argv", [module, *arguments])
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", RuntimeWarning)  # it was imported before
    try:
      with registered.skip_registration():  # a builder, once more
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except _ParsedError:
      return
    except SystemExit as error:
      said = capsys.readouterr().err
      pytest.fail(f"{command}\nexit code {error.code}: {said[-600:]}")
  pytest.fail(f"{command} does nothing")


# Commands that are quick on a small run: word of the page -> what is there.
_RUN = {
  ("input_pipeline.ov_swig", "--check"): {
    name: "world" for name in ("DIR", "data/swig", "club")
  },
  ("input_pipeline.feature_cache", "--verify"): {
    name: "cache" for name in ("DIR", "CACHE")
  },
  ("mipd_jax.metrics.swig", "--predictions=P.json"): {
    "P.json": "scored/predictions.json",
    "test.json": "world/SWiG_jsons/test.json",
    "ov_splits.json": "world/SWiG_jsons/ov_splits.json",
  },
  ("mipd_jax.metrics.hico_det", "--predictions=P.json"): {
    "P.json": "scored/pairs.json",
    "A.json": "scored/test_hico.json",
    "test_hico.json": "scored/test_hico.json",
  },
}


def _to_run() -> list[str]:
  """Documented commands that `_RUN` has."""
  return [command for command in _python(_PARSED) if _key(command) in _RUN]


def _key(command: str) -> tuple[str, ...]:
  """The module and its first argument."""
  module, arguments = _arguments(command)
  return (module, *arguments[:1])


@pytest.fixture(scope="module")
def small_run(pipeline, tmp_path_factory):
  """A finished run's folder, with predictions to be scored."""
  folder = tmp_path_factory.mktemp("documented")
  for name in ("world", "cache"):
    shutil.copytree(pipeline.folder / name, folder / name)
  hardening.write_inputs(folder)
  return folder


@pytest.mark.parametrize("command", _to_run())
def test_it_runs_as_written(command, small_run, monkeypatch, capsys):
  module, arguments = _arguments(command)
  for old, new in _RUN[_key(command)].items():
    arguments = [
      re.sub(rf"(^|=){re.escape(old)}$", rf"\g<1>{new}", x) for x in arguments
    ]
  monkeypatch.chdir(small_run)
  monkeypatch.setattr(sys, "argv", [module, *arguments])
  with warnings.catch_warnings(), registered.skip_registration():
    warnings.simplefilter("ignore", RuntimeWarning)
    try:
      runpy.run_module(module, run_name="__main__", alter_sys=True)
      code = 0
    except SystemExit as error:
      code = error.code
  said = capsys.readouterr()
  assert not code, said.err[-1000:]
  assert said.out.strip()


def test_quick_commands_are_documented():
  assert {_key(command) for command in _to_run()} == {*_RUN}


@pytest.mark.parametrize("command", _python(_BARE))
def test_commands_without_flags_exist(command):
  module, arguments = _arguments(command)
  assert not arguments
  source = (ROOT / (module.replace(".", "/") + ".py")).read_text()
  assert 'if __name__ == "__main__":' in source


# Ends each command where its config is whole, before jax starts a backend.
_PROBE = """
import json, os, runpy, sys, traceback
from absl import app
import ml_collections, mipd_jax.config, mipd_jax.devices.compilation
import mipd_jax.command_line

class Parsed(BaseException):
  pass

def stop(*_, **__):
  raise Parsed

mipd_jax.devices.compilation.set_up = stop
for line in json.loads(sys.stdin.read()):
  child = os.fork()
  if not child:
    sys.argv, code = line, 1
    sys.stderr = open(2, "w", closefd=False, buffering=1)
    try:
      runpy.run_module(line[0], run_name="__main__", alter_sys=True)
      code = 3
    except Parsed:
      code = 0
    except SystemExit as error:
      code = error.code or 3
    except BaseException:
      traceback.print_exc()
    sys.stderr.flush()
    os._exit(code)
  code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
  print(json.dumps([line, code]), flush=True)
"""


def test_configs_take_their_flags():
  lines = [
    [module, *arguments]
    for module, arguments in map(_arguments, _python(_CONFIG))
  ]
  assert len(lines) > 15
  done = subprocess.run(
    [sys.executable, "-c", _PROBE],
    input=json.dumps(lines),
    cwd=ROOT,
    env=os.environ | {"XLA_FLAGS": ""},
    capture_output=True,
    text=True,
    timeout=200,
    check=False,
  )
  found = [json.loads(line) for line in done.stdout.splitlines()]
  assert len(found) == len(lines), done.stderr[-2000:]
  wrong = [" ".join(line) for line, code in found if code]
  assert not wrong, "\n".join(wrong) + "\n" + done.stderr[-3000:]


def test_make_targets_exist():
  targets = set(re.findall(r"(?m)^([a-z][\w-]*):", _makefile()))
  for command, page in DOCUMENTED.items():
    if command.startswith("make "):
      named = command.split()[1]
      assert named in targets, f"{page}: {command}"
  assert "test" in targets


def _makefile() -> str:
  return (ROOT / "Makefile").read_text()


def test_commands_of_the_makefile_are_documented_kinds():
  modules = set(re.findall(r"-m ([a-z][\w.]+)", _makefile()))
  assert modules <= _PARSED | _CONFIG | {"venv", "pip", "pytest"}


# Flags in messages.

# Not the variables of style sheets.
_FLAG = re.compile(
  r"(?<![\w-])(?<!var\()(?<!style=\")--([a-zA-Z][\w.-]*)(?![\w.-]|: ?#)"
)
_TOP = "dataset|eval|loss|mesh|model|teacher|train|interactions"
# A field without --config. in front, as nobody can type it.
_BARE_FIELD = re.compile(rf"(?<![\w./-])(?:{_TOP})\.[a-z_]+(?![\w(/]|\.\w)")
# Files and methods that read like fields.
_NO_FIELD = re.compile(r"\.(json|jsonl|py|md|csv|config|state_dict)$")
# Options of other programs that messages name.
_OTHERS = {
  *("help", "helpshort", "no-deps", "from-filter", "local-dir", "signal"),
  *("unseen", "rare"),  # of split_maker, which makes them in a loop
  *("index-url", "xla_backend_optimization_level"),
  *("proce", "c"),  # how flags of processes begin; a variable of a style
}


def _sources() -> list[pathlib.Path]:
  return sorted(
    path
    for package in ("mipd_jax", "input_pipeline", "configs")
    for path in (ROOT / package).rglob("*.py")
  )


def _texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
  """String constants but docstrings, f-strings with their fields left out."""
  documented = {
    id(node.body[0].value)
    for node in ast.walk(tree)
    if isinstance(
      node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    )
    and node.body
    and isinstance(node.body[0], ast.Expr)
  }
  for node in ast.walk(tree):
    text = isinstance(node, ast.Constant) and isinstance(node.value, str)
    if text and id(node) not in documented:
      yield node.lineno, node.value


def _messages(tree: ast.AST) -> Iterator[tuple[int, str]]:
  """Problem and remedy of every InputError, as one text each."""
  for node in ast.walk(tree):
    if isinstance(node, ast.Call):
      name = getattr(node.func, "id", getattr(node.func, "attr", ""))
      if name == "InputError":
        for part in node.args[1:2]:
          yield node.lineno, " ".join(text for _, text in _texts(part))


def _known_flags() -> set[str]:
  """Flags that any parser here defines."""
  found = set(_OTHERS)
  for path in (*_sources(), *(ROOT / "benchmarks").rglob("*.py")):
    text = path.read_text(encoding="utf-8")
    found |= set(re.findall(r"""(?:add|add_argument)\(\s*"--([\w-]+)""", text))
    found |= set(re.findall(r"""DEFINE_\w+\(\s*"(\w+)\"""", text))
  found |= set(
    re.findall(r"--([\w-]+)\)", (ROOT / "launch_tpu.sh").read_text())
  )
  return found


def _fields() -> set[str]:
  """Dotted names of all fields and groups of the configs."""
  found: set[str] = set()

  def add(values, prefix=""):
    for name, value in values.items():
      found.add(prefix + name)
      if isinstance(value, dict):
        add(value, f"{prefix}{name}.")

  for config in (synthetic, hico_det, ov_swig):
    add(config.get_config("").to_dict())
  return found


def test_messages_name_flags_that_exist():
  known, fields = _known_flags(), _fields()
  wrong = []
  for path in _sources():
    for line, text in _texts(ast.parse(path.read_text(encoding="utf-8"))):
      for name in _FLAG.findall(text):
        name = name.rstrip(".-")
        if name.startswith("config."):
          name = name.removeprefix("config.")
          right = name in fields or name in ("FIELD", "")
        else:
          right = name in known
        if not right:
          wrong.append(f"{path.relative_to(ROOT)}:{line} --{name}")
  assert not wrong, "\n".join(wrong)


def test_remedies_name_fields_as_they_are_typed():
  fields = _fields()
  wrong = [
    f"{path.relative_to(ROOT)}:{line} {name}"
    for path in _sources()
    for line, text in _messages(ast.parse(path.read_text(encoding="utf-8")))
    for name in _BARE_FIELD.findall(text)
    if not _NO_FIELD.search(name) and name in fields
  ]
  assert not wrong, "as --config.NAME:\n" + "\n".join(wrong)
