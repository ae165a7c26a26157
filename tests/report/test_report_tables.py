"""Tables show the given numbers; files are valid and whole."""

import io
import json
import math

import numpy as np
import pytest
import rich.console

from input_pipeline.io import atomic
from input_pipeline.io.errors import InputError
from mipd_jax.report import files, tables

FIRST_ROW = "student seen 20000 41.25 42.25 43.25 44.25 45.25 46.25"


def metrics(start: float, images: int = 50) -> dict:
  names = ["verb_top1", "verb_top5"] + [
    f"{name}_{criterion}"
    for criterion in ("top1", "top5", "gt")
    for name in ("value", "value_all", "grnd", "grnd_all")
  ]
  return {"images": images} | {n: start + i for i, n in enumerate(names)}


@pytest.fixture
def results() -> dict:
  student = {
    "seen": metrics(41.25, 20000),
    "rare": metrics(21.5, 3000),
    "unseen": metrics(11.125),
    "all": metrics(31.0, 25200),
    "macro": {"seen": metrics(51.0), "unseen": metrics(12.0)},
    "harmonic_mean": 17.52,
  }
  zero_shot = {
    "seen": {"images": 7, "verb_top1": 33.333, "verb_top5": None},
    "rare": {"images": 0},
    "harmonic_mean": math.nan,
  }
  return {
    "dataset": "ov_swig/a|b",
    "preset": "mipd",
    "step": 1200,
    "seed": 3,
    "config_hash": "abc123",
    "models": {"student": student, "teacher zero-shot": zero_shot},
    "per_verb": {},
  }


def section(text: str, title: str) -> list[list[str]]:
  """The cells of the table below a heading, its header row first."""
  body = text.split(f"## {title}\n")[1].split("\n## ")[0]
  rows = [line for line in body.splitlines() if line.startswith("|")]
  cells = [[c.strip() for c in row.strip("|").split("|")] for row in rows]
  return [cells[0], *cells[2:]]


def test_markdown_holds_the_given_numbers(results):
  text = tables.markdown(results)
  header, *rows = section(text, tables.CRITERIA["top1"])
  assert header[3:] == [
    "verb top-1",
    "verb top-5",
    "value",
    "value-all",
    "grnd",
    "grnd-all",
  ]
  assert " ".join(rows[0]) == FIRST_ROW
  assert [row[1] for row in rows[:4]] == ["seen", "rare", "unseen", "all"]
  _, *rows = section(text, tables.CRITERIA["gt"])
  # gt comes third: two verb scores and eight scores stand before it.
  assert " ".join(rows[0]) == "student seen 20000 51.25 52.25 53.25 54.25"
  _, *rows = section(text, "Harmonic mean of verb top-1")
  assert rows == [["student", "seen, unseen", "17.52"]]
  _, *rows = section(
    text, "Averaged over verbs: verb and frame as predicted (top-1)"
  )
  assert [row[3] for row in rows] == ["51.00", "12.00"]
  assert "step 1200, seed 3, config abc123" in text
  assert "ov_swig/a\\|b" in text


def test_missing_numbers_are_dashes(results):
  _, *rows = section(tables.markdown(results), tables.CRITERIA["top1"])
  dash = tables.DASH
  assert rows[4] == ["teacher zero-shot", "seen", "7", "33.33"] + [dash] * 5
  assert rows[5] == ["teacher zero-shot", "rare", "0"] + [dash] * 6
  assert len(rows) == 6
  _, *rows = section(tables.markdown(results), tables.CRITERIA["gt"])
  assert {row[0] for row in rows} == {"student"}


def test_results_without_models_are_refused():
  with pytest.raises(InputError, match="no models"):
    tables.markdown({"dataset": "x"})


def test_terminal_table_fits_100_columns(results):
  results["models"]["a model with a name of [some] length"] = metrics_model()
  stream = io.StringIO()
  console = rich.console.Console(file=stream, width=100)
  tables.print_results(results, console)
  lines = stream.getvalue().splitlines()
  assert max(len(line) for line in lines) <= 100
  assert "…" not in stream.getvalue()
  row = next(line for line in lines if line.strip().startswith("student"))
  assert " ".join(row.split()) == FIRST_ROW
  assert "[some]" in stream.getvalue()


def metrics_model() -> dict:
  return {"seen": metrics(86.0, 1000000), "harmonic_mean": 1.0}


def test_print_results_is_not_cut_in_a_log_file(results):
  stream = io.StringIO()
  tables.print_results(results, rich.console.Console(file=stream, width=80))
  assert "46.25" in stream.getvalue() and "…" not in stream.getvalue()


def test_results_json_is_valid_and_plain(results, tmp_path):
  results["models"]["student"]["seen"]["value_gt"] = np.float32(np.inf)
  results["step"] = np.int64(1200)
  results["per_verb"] = {"jumping": {"scores": np.array([0.5, np.nan])}}
  json_path, md_path = files.write_results(tmp_path / "new", results)

  def refuse(constant):
    raise AssertionError(f"{constant} is not JSON")

  read = json.loads(json_path.read_text(), parse_constant=refuse)
  assert read["models"]["student"]["seen"]["value_gt"] is None
  assert read["models"]["student"]["seen"]["verb_top1"] == 41.25
  assert read["models"]["teacher zero-shot"]["harmonic_mean"] is None
  assert read["step"] == 1200
  assert read["per_verb"]["jumping"]["scores"] == [0.5, None]
  assert md_path.read_text() == tables.markdown(read)
  assert {p.name for p in json_path.parent.iterdir()} == {
    "results.json",
    "results.md",
  }


def test_bad_results_leave_nothing(results, tmp_path):
  results["per_verb"] = {"jumping": {"score": object()}}
  with pytest.raises(InputError, match=r"results\['per_verb'\]\['jumping'\]"):
    files.write_results(tmp_path, results)
  assert not list(tmp_path.iterdir())


def test_replacing_keeps_the_old_file_when_writing_fails(tmp_path):
  path = tmp_path / "a.txt"
  path.write_text("old")
  with pytest.raises(RuntimeError), atomic.replacing(path) as temporary:
    temporary.write_text("half of the new")
    raise RuntimeError
  assert path.read_text() == "old"
  assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
