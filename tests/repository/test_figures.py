"""The documents show what the files of the last runs say."""

import json
import re

import pytest

from benchmarks import figures, hico_small_world, minute, open_layers, teachers
from input_pipeline import schema
from mipd_jax.ablations import tables


@pytest.mark.parametrize(
  ("name", "parts"),
  [
    ("README.md", 1),
    ("docs/ablations.md", 3),
    ("docs/demo.md", 1),
    ("docs/hico_det.md", 1),
    ("docs/performance.md", 4),
    ("docs/teachers.md", 2),
  ],
)
def test_documents_are_what_their_sources_say(name, parts):
  text = (figures.ROOT / name).read_text()
  assert text.count("<!-- begin ") == parts
  assert figures.filled(text) == text, "run `python -m benchmarks.figures`"


def test_teachers_table_is_what_its_json_says():
  docs = figures.DOCS
  found = json.loads((docs / "teachers.json").read_text())
  assert (docs / "teachers_table.md").read_text() == teachers.table(found)
  assert all(row["fits"] for row in found["programs"])


def test_table_of_open_layers_is_what_its_json_says():
  found = json.loads((figures.DOCS / "open_layers.json").read_text())
  table = (figures.DOCS / "open_layers_table.md").read_text()
  assert table == open_layers.table(found)


def test_stale_figures_are_noticed():
  readme = (figures.ROOT / "README.md").read_text()
  stale = re.sub(r"\d\d\.\d ±", "99.9 ±", readme, count=1)
  assert stale != readme
  assert figures.filled(stale) == readme


@pytest.mark.parametrize("folder", [".", "six_worlds"])
def test_tables_of_the_study_are_what_its_json_says(folder):
  docs = figures.DOCS / folder
  found = json.loads((docs / "ablations.json").read_text())
  assert (docs / "ablations_main.md").read_text() == tables.main_table(found)
  assert (docs / "ablations_short.md").read_text() == tables.short_table(found)
  whole = (docs / "ablations_tables.md").read_text()
  assert tables.main_table(found).splitlines()[4].split(" | ")[1] in whole


def test_the_choice_was_made_without_unseen_verbs():
  found = json.loads((figures.DOCS / "ablations_choice.json").read_text())
  for name, variant in found["variants"].items():
    assert variant["figures"], name
    assert all(figure.startswith("held_out/") for figure in variant["figures"])


def test_the_table_of_interactions_is_what_its_json_says():
  docs = figures.DOCS
  found = json.loads((docs / "hico_small_world.json").read_text())
  told = (docs / "hico_small_world.md").read_text()
  assert told == hico_small_world.markdown(found)


def test_the_minute_is_the_sum_of_what_was_compiled():
  folder = figures.DOCS / "performance"
  found = json.loads((folder / "tpu.json").read_text())[minute.TOPOLOGY]
  seconds = minute.parts({row["program"]: row for row in found["programs"]})
  assert (folder / "minute.md").read_text() == minute.table(seconds)
  assert sum(seconds.values()) < 90


def test_bytes_of_an_image_are_those_of_an_int8_cache():
  tokens = 577 * (1024 + 4)
  student = minute.image_bytes([schema.STUDENT_TOKENS, schema.EXAMPLE_MASK])
  assert student == tokens
  assert minute.image_bytes([schema.VERB]) == 4


def test_pictures_of_the_readme_are_there():
  readme = (figures.ROOT / "README.md").read_text()
  names = re.findall(r"\]\((docs/[^)#]+)\)", readme)
  assert "docs/demo_sheet.png" in names
  for name in names:
    assert (figures.ROOT / name).stat().st_size > 0, name
