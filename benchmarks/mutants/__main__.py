"""Mutation testing: breaks the code, one fault at a time; does a test notice?

  python -m benchmarks.mutants [--only=losses] [--out=docs/mutants.md]

Each fault of `situations.MUTANTS` is applied to a copy of the source; the tests
of parity, losses, scores, evaluator and pairs run there until the first
failure. A fault that no test notices "lives", and so does one that no longer
applies; then the exit status is 1. Takes about 15 s per fault on one core.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from benchmarks.mutants.situations import MUTANTS
from input_pipeline.io import atomic

ROOT = pathlib.Path(__file__).resolve().parents[2]
_COPIED = ("mipd_jax", "input_pipeline", "tests", "configs")
_REFERENCE = "tests/reference/test_reference.py"
# Tests that probably notice quickly; if they pass, all of _TESTS run.
_LIKELY = {
  "losses": (
    "tests/job/test_losses.py",
    _REFERENCE,
    "-k",
    "test_losses.py or test_criterion or gradients_of_the_criterion",
  ),
  "network": (
    "tests/rationales/test_prompts.py",
    _REFERENCE,
    "-k",
    "test_prompts.py or prompter or resize or outputs",
  ),
  "metrics": (
    "tests/scores/test_scores.py",
    "tests/scores/test_metrics_swig_cli.py",
    _REFERENCE,
    "-k",
    "test_scores.py or swig or canvas or test_criterion",
  ),
  "optimizer": (_REFERENCE, "-k", "steps"),
  "pairs": (
    "tests/hico_det/test_pairs_data.py",
    "tests/interactions/test_pairs_evaluation.py",
    "tests/hico_det/test_hico_metric.py",
  ),
}
_PAIRS = "pairs"
_TESTS_OF_PAIRS = (
  "tests/interactions/test_pairs_model.py",
  "tests/interactions/test_pairs_rationales.py",
  "tests/interactions/test_pairs_task.py",
)
_TESTS = (
  "tests/teachers/test_absorbed.py",
  "tests/job/test_losses.py",
  "tests/scores/test_scores.py",
  "tests/scores/test_metrics_swig_cli.py",
  "tests/rationales/test_prompts.py",
  _REFERENCE,
)


def copy_source(folder: pathlib.Path) -> None:
  """Copies the source to run tests in, with a link to the goldens."""
  for name in _COPIED:
    shutil.copytree(
      ROOT / name,
      folder / name,
      ignore=shutil.ignore_patterns("__pycache__", "goldens"),
    )
  (folder / "tests" / "goldens").symlink_to(ROOT / "tests" / "goldens")
  shutil.copy(ROOT / "pyproject.toml", folder)


def judge(folder: pathlib.Path, tests: Sequence[str]) -> str:
  """The first test that fails in a copy, or "" if all pass."""
  environment = os.environ | {
    # Programs that a fault does not affect are compiled only once.
    "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".pytest_cache" / "jax"),
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONPATH": str(folder),
  }
  options = ("-x", "-q", "-p", "no:cacheprovider")
  done = subprocess.run(
    [sys.executable, "-m", "pytest", *options, *tests],
    cwd=folder,
    env=environment,
    capture_output=True,
    text=True,
    check=False,
  )
  for line in done.stdout.splitlines():
    if line.startswith(("FAILED", "ERROR")):
      return line.split(" ")[1].removeprefix("tests/")
  return "" if done.returncode == 0 else f"exit status {done.returncode}"


def run(kind: str, mutant: tuple[str, str, str, str]) -> tuple[str, bool]:
  """Applies one fault: (what happened, whether it was noticed)."""
  _, path, old, new = mutant
  source = (ROOT / path).read_text()
  if source.count(old) != 1:
    return f"does not apply: found {source.count(old)} times", False
  others = _TESTS_OF_PAIRS if kind == _PAIRS else _TESTS
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    copy_source(folder)
    (folder / path).write_text(source.replace(old, new))
    test = judge(folder, _LIKELY[kind]) or judge(folder, others)
  return (f"`{test}`", True) if test else ("no test", False)


def main(arguments: list[str] | None = None) -> int:
  """Command line; returns the exit status."""
  parser = argparse.ArgumentParser(prog="python -m benchmarks.mutants")
  parser.add_argument("--only", choices=MUTANTS, help="one kind of fault")
  parser.add_argument("--out", help="file for the table")
  given = parser.parse_args(arguments)
  kinds = [given.only] if given.only else list(MUTANTS)
  lines = ["| kind | fault | file | killed | by |", "|---|---|---|---|---|"]
  print("\n".join(lines), flush=True)
  living = 0
  for kind in kinds:
    for mutant in MUTANTS[kind]:
      found, killed = run(kind, mutant)
      living += not killed
      name, path = mutant[0], mutant[1].removeprefix("mipd_jax/")
      verdict = "yes" if killed else "**no**"
      lines.append(f"| {kind} | {name} | `{path}` | {verdict} | {found} |")
      print(lines[-1], flush=True)
  total = len(lines) - 2
  print(f"{total - living} of {total} faults were noticed")
  if given.out:
    text = "# Faults that tests notice\n\nWritten by `python -m "
    text += "benchmarks.mutants`; do not edit.\n\n" + "\n".join(lines) + "\n"
    with atomic.replacing(given.out) as partial:
      partial.write_text(text)
  return bool(living)


if __name__ == "__main__":
  sys.exit(main())
