"""The input benchmarks run, and the data card shows what they found."""

import json
import pathlib
import subprocess
import sys

import pytest

from benchmarks import figures
from benchmarks import input as input_benchmark
from benchmarks.support import swig_folder, swig_tables
from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig import check, folder, layout, vocabulary
from tests.fixtures import swig_fixture
from tests.fixtures.pipeline_fixture import ROOT

SHARED = ROOT.parent / "shared" / "data" / "swig"


@pytest.fixture
def source(tmp_path):
  """What `swig_sized` needs, in small."""
  folder = swig_fixture.write(tmp_path / "source", per_verb=1)
  jsons = folder / "SWiG_jsons"
  names = {
    split: [f"{verb}_{i}.jpg" for i in range(*span) for verb in _verbs()]
    for split, span in {
      "train": (0, 9),
      "dev": (9, 12),
      "test": (12, 14),
    }.items()
  }
  swig_fixture.dump(jsons / swig_folder.IMAGE_NAMES, names)
  nouns = ["", *(n for n in swig_fixture.NOUNS if n != swig_fixture.UNLISTED)]
  support = {
    verb: {role: nouns for role in roles}
    for verb, roles in swig_fixture.FRAMES.items()
  }
  swig_fixture.dump(jsons / swig_folder.SUPPORT, support)
  return jsons


def _verbs():
  return swig_fixture.FRAMES


def test_a_sized_folder_is_sound_and_has_every_noun(source, tmp_path):
  out = tmp_path / "sized"
  counts = swig_folder.make(source, out)
  assert counts == {"train": 54, "dev": 18, "test": 12}
  report, images = check.check_records(out)
  check.check_images(report, images)
  assert report.problems == [] and len(images) == 84
  content = folder.read_folder(out, num_unseen=1, num_rare=1)
  names = [record.name for record in content.splits["dev"]]
  assert (
    names == json.loads((source / swig_folder.IMAGE_NAMES).read_text())["dev"]
  )
  # Without the class list, that of the training records is the same.
  given = vocabulary.load(out).nouns
  (out / "SWiG_jsons" / layout.NOUN_FILE).unlink()
  assert set(vocabulary.load(out, unseen=()).nouns) == set(given)
  with pytest.raises(InputError, match="exists already"):
    swig_folder.make(source, out)


def test_a_share_of_it(source, tmp_path):
  counts = swig_folder.make(source, tmp_path / "sized", share=0.5)
  assert counts == {"train": 27, "dev": 9, "test": 6}


def _line(capsys, *arguments):
  assert input_benchmark.main(list(arguments)) == 0
  (line,) = capsys.readouterr().out.splitlines()
  return json.loads(line)


def test_input_benchmark_prints_one_line(tmp_path, capsys):
  folder = swig_fixture.write(tmp_path / "swig", per_verb=4)
  run = tmp_path / "run"
  run.mkdir()
  rows = [{"step": s, "time": 100 + s / 4, "loss/total": 1} for s in (1, 5, 9)]
  (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
  found = _line(
    capsys,
    f"--folder={folder}",
    f"--data-dir={tmp_path / 'data'}",
    "--batch-size=4",
    "--sizes=32,16",
    "--seconds=0.2",
    f"--run={run}",
  )
  assert found["images"] == 20 and found["sizes"] == [32, 16]
  decoded = found["decoded"]
  rate = decoded["images_per_s"]
  assert rate > 0 and decoded["images"] >= 4
  pixels = 3 * (32**2 + 16**2)
  assert decoded["pixels_mb_per_s"] == pytest.approx(rate * pixels / 1e6)
  read = rate * found["kb_per_image"] / 1e3
  assert decoded["read_mb_per_s"] == pytest.approx(read)
  assert found["annotations"]["mb_per_s"] > 0
  # A step of 4 images in a quarter of a second.
  assert found["need"]["images_per_s"] == pytest.approx(16)
  assert found["need"]["times"] == {"decoded": pytest.approx(rate / 16)}


def test_input_benchmark_says_what_is_missing(tmp_path, capsys):
  folder = swig_fixture.write(tmp_path / "swig", per_verb=4)
  arguments = [f"--folder={folder}", "--batch-size=4", "--seconds=0.1"]
  arguments += ["--sizes=16", f"--run={tmp_path}"]
  assert input_benchmark.main(arguments) == 1
  assert "no two logged steps" in capsys.readouterr().err


def test_the_data_card_shows_the_last_run():
  card = (figures.DOCS / "ov_swig.md").read_text()
  found = json.loads((figures.DOCS / "ov_swig.json").read_text())
  assert card.count("<!-- begin docs/ov_swig.json -->") == 1
  assert swig_tables.filled(card, found) == card
  assert swig_tables.markdown(found) in card


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data/swig")
def test_real_names_frames_and_nouns_go_through_everything(tmp_path):
  """All 126,102 names, 504 frames, 190 roles and 9,929 nouns of SWiG."""
  out = tmp_path / "sized"
  (tmp_path / "ov_swig.md").write_text(
    "<!-- begin docs/ov_swig.json --><!-- end docs/ov_swig.json -->"
  )
  arguments = [f"--vocabulary={SHARED}", f"--out={out}", f"--docs={tmp_path}"]
  # As typed: of a child that this process starts, Linux counts this one's own
  # memory as well.
  command = [sys.executable, "-m", "benchmarks.swig_sized", *arguments]
  assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0
  found = json.loads((tmp_path / "ov_swig.json").read_text())
  assert all(found["swig"].values()), found["swig"]
  assert sum(found["images"].values()) == 126_102
  stages = found["stages"]
  assert stages["build"]["seconds"] < 900
  assert stages["build"]["peak_mb"] < 2000
  files = found["index_files"]
  assert files["role_indices.txt"]["same_numbers"]
  assert files["verb_indices.txt"]["same_names"]
  nouns = files["train_classes.csv"]
  assert nouns["only_derived"] == 0
  # What is not derived belongs to images that training does not see.
  assert nouns["only_given"] == nouns["only_given_of_unseen_verbs"] > 0
  assert not out.exists() and pathlib.Path(tmp_path / "ov_swig.md").exists()
