"""A few kills and damaged files, as `python -m benchmarks.hardening` does."""

import json
import os
import pathlib
import random
import subprocess
import sys

import pytest

from benchmarks.hardening import cases, command_lines, damage, judge, table
from benchmarks.hardening.process import Ended
from tests.fixtures import pipeline_fixture
from tests.fixtures.pipeline_fixture import ROOT


@pytest.mark.slow
def test_few_kills_and_damaged_files(pipeline, tmp_path):
  done = subprocess.run(
    [
      *(sys.executable, "-m", "benchmarks.hardening", "--fixed"),
      *(f"--finished={pipeline.folder}", f"--folder={tmp_path}", "--docs="),
      "--workers=1",
    ],
    cwd=ROOT,
    env=pipeline_fixture.environment()
    | {"HARDENING_COMPILED": os.environ["JAX_COMPILATION_CACHE_DIR"]},
    capture_output=True,
    text=True,
    timeout=500,
    check=False,
  )
  assert done.stdout, done.stderr[-3000:]
  counts = json.loads(done.stdout.splitlines()[-1])
  assert list(counts) == list(judge.OUTCOMES)
  wrong = {name: counts[name] for name in ("traceback", "silent", "lost")}
  assert not any(wrong.values()), done.stdout
  assert done.returncode == 0
  assert sum(counts.values()) == len(cases.FIXED)
  assert counts["same"] >= 3 and counts["message"] >= 4


def test_cases_are_a_function_of_seed_and_name():
  plan = cases.plan(0, 40, 120)
  assert plan == cases.plan(0, 40, 120) != cases.plan(1, 40, 120)
  assert len({case.name for case in plan}) == 160
  # More of them are the same and others behind.
  more = {case.name: case for case in cases.plan(0, 60, 200)}
  assert all(more[case.name] == case for case in plan)
  assert all(cases.of(case.name, 0) == case for case in plan)
  assert {case.kind for case in plan} == {
    *cases.KINDS,
    *(signal.name for signal in cases.SIGNALS),
  }
  assert all(case.command in command_lines.COMMANDS for case in plan)


@pytest.mark.parametrize("how", (*damage.ANY, "nul"))
def test_damage_changes_the_file(tmp_path, how):
  path, other = tmp_path / "a.bin", tmp_path / "b.bin"
  content = random.Random(1).randbytes(9000)
  path.write_bytes(content)
  other.write_bytes(content[::-1])
  before = path.stat().st_mtime_ns
  said = damage.apply(
    path, how, random.Random(2), [path, other], keep_time=True
  )
  assert said
  if how == "delete":
    assert not path.exists()
  else:
    assert path.read_bytes() != content
    assert path.stat().st_mtime_ns == before


@pytest.mark.parametrize(
  ("name", "content"),
  [
    ("a.json", b'{"a": [1, 2], "b": "c"}'),
    ("a.jsonl", b'{"a": 1}\n{"a": 2}\n'),
    ("words.yaml", b"verbs:\n  jumping:\n    roles: [agent]\n"),
    ("labels.npz", b"PK"),
  ],
)
def test_hostile_contents(tmp_path, name, content):
  path = tmp_path / name
  for known in (True, False):
    for hostile in damage.hostile_names(path, known=known):
      path.write_bytes(content)
      damage.apply(path, f"hostile:{hostile}", random.Random(0))
      assert path.read_bytes() != content, hostile


@pytest.mark.parametrize(
  ("code", "err", "differ", "outcome"),
  [
    (0, "", [], "same"),
    (0, "", ["work/results.json"], "silent"),
    (0, "x.jpg cannot be read", ["cache/manifest.json"], "message"),
    (2, "x.jpg is cut off\n  Remedy: copy it", [], "message"),
    (2, "", [], "traceback"),
    (1, "Traceback (most recent call last)\nKeyError", [], "traceback"),
    (-11, "", [], "traceback"),
    (-6, "", [], "traceback"),
  ],
)
def test_outcomes(code, err, differ, outcome):
  ended = Ended(code, "", err, 1.0)
  assert judge.outcome_of(ended, differ, "world/images_512/x.jpg")[0] == outcome


@pytest.mark.parametrize(
  ("code", "after", "outcome"),
  [
    (143, "Stopped by a signal.", None),
    (0, "Stopped by a signal.", "silent"),
    (-15, "", "traceback"),
    (1, "What?", "traceback"),
    (143, "Traceback (most recent call last)", "traceback"),
  ],
)
def test_stops(code, after, outcome):
  case = cases.Case("k1", "SIGTERM", "mid", "all", number=15)
  ended = Ended(code, "", after, 5.0, killed=True, after=after)
  found = judge.stopped_wrong(case, ended)
  assert (found and found[0]) == outcome


def test_damaged_stores_that_nobody_read_are_no_product():
  wanted = {"work/results.json": "a", "cache/x.npz": "b", "work/best": "c"}
  found = {"work/results.json": "a", "cache/x.npz": "?", "work/best": "?"}
  left = {"cache/x.npz", "work/best/12/default/d/1"}
  assert command_lines.differing(wanted, found, left) == []
  assert command_lines.differing(wanted, found, set()) == [
    "cache/x.npz",
    "work/best",
  ]
  assert command_lines.differing(wanted, {}, left) == ["work/results.json"]


def test_the_page_keeps_its_words(tmp_path: pathlib.Path):
  rows = [
    {
      **{"case": "c1", "kind": "run.json", "state": "mid", "command": "all"},
      **{"damage": "deleted", "outcome": "silent", "why": "x differs"},
    }
  ]
  page = tmp_path / "reliability.md"
  page.write_text(
    "Before.\n<!-- begin cases -->\nold\n<!-- end cases -->\nEnd."
  )
  table.write(tmp_path, rows, "the command")
  text = page.read_text()
  assert text.startswith("Before.") and text.endswith("End.")
  assert "old" not in text and "| c1 | run.json | deleted |" in text
  content = json.loads((tmp_path / "reliability.json").read_text())
  assert content["counts"]["silent"] == 1 == len(content["not_right"])


def test_a_manifest_counts_by_what_was_encoded(tmp_path: pathlib.Path):
  path = tmp_path / "manifest.json"

  def digest(dataset, nouns):
    plan = {"dataset": dataset, "vocabulary": nouns}
    path.write_text(
      json.dumps({"plan": plan, "plan_hash": dataset, "digest": nouns})
    )
    found = command_lines.products(
      command_lines.Command((), ("manifest.json",)), tmp_path, ""
    )
    return found["manifest.json"]

  assert digest("a", "x") == digest("b", "x") != digest("a", "y")
