"""`--check` reports all faults at once and writes nothing."""

import json

import pytest
from PIL import Image

from input_pipeline.ov_swig import __main__ as command
from input_pipeline.ov_swig import builder, check
from input_pipeline.ov_swig.records import RATIONALE_KEYS
from tests.fixtures import swig_fixture


@pytest.fixture
def folder(tmp_path):
  return swig_fixture.write(tmp_path / "swig", per_verb=2)


def _edit(folder, split, change):
  path = folder / "SWiG_jsons" / f"{split}.json"
  records = swig_fixture.load(path)
  change(records)
  swig_fixture.dump(path, records)


def _report(folder, *, images=True):
  report, checked = check.check_records(folder)
  if images:
    check.check_images(report, checked)
  return report


def _spoil(folder):
  """One of each kind of fault, in different records and splits."""

  def train(records):
    records["jumping_train_0.jpg"]["bb"]["agent"] = [1, 2, 4000, 30]
    records["jumping_train_0.jpg"]["bb"]["place"] = [9, 9, 3, 3]
    records["jumping_train_1.jpg"]["frames"][1]["tool"] = ""
    records["carrying_train_0.jpg"]["bb"]["tool"] = [1, 1, 2, 2]
    records["cooking_train_0.jpg"]["frames"] = []
    records["raining_train_0.jpg"]["verb"] = "hailing"
    del records["pushing_train_0.jpg"]["bb"]

  def dev(records):
    records["jumping_dev_0.jpg"]["height"] = "tall"
    records["jumping_dev_1.jpg"]["frames"][0]["agent"] = 7
    records["eating_dev_0.jpg"]["pos_verb_caption"] = ["no text"]

  _edit(folder, "train", train)
  _edit(folder, "dev", dev)
  test = swig_fixture.load(folder / "SWiG_jsons" / "dev.json")
  _edit(
    folder,
    "test",
    lambda r: r.update({"cooking_dev_0.jpg": test["cooking_dev_0.jpg"]}),
  )
  images = folder / "images_512"
  (images / "eating_test_0.jpg").unlink()
  (images / "raining_test_0.jpg").write_bytes(b"<html>not found")
  whole = (images / "pushing_test_0.jpg").read_bytes()
  (images / "pushing_test_0.jpg").write_bytes(whole[: len(whole) // 2])
  Image.new("RGB", (31, 37)).save(images / "pushing_test_1.jpg")


FAULTS = {
  ("boxes", "train.json", "jumping_train_0.jpg", "agent"),
  ("boxes", "train.json", "jumping_train_0.jpg", "place"),
  ("roles", "train.json", "jumping_train_1.jpg", "tool"),
  ("roles", "train.json", "carrying_train_0.jpg", "tool"),
  ("frames", "train.json", "cooking_train_0.jpg", None),
  ("verb", "train.json", "raining_train_0.jpg", None),
  ("boxes", "train.json", "pushing_train_0.jpg", None),
  ("size", "dev.json", "jumping_dev_0.jpg", None),
  ("frames", "dev.json", "jumping_dev_1.jpg", "agent"),
  ("rationales", "dev.json", "eating_dev_0.jpg", None),
  ("overlap", "test.json", "cooking_dev_0.jpg", None),
  ("missing", "test.json", "eating_test_0.jpg", None),
  ("image", "test.json", "raining_test_0.jpg", None),
  ("image", "test.json", "pushing_test_0.jpg", None),
  ("image", "test.json", "pushing_test_1.jpg", None),
}


def test_every_fault_is_told_at_once(folder):
  assert not _report(folder).problems
  _spoil(folder)
  problems = _report(folder).problems
  found = {(p.kind, p.file, p.image, p.role) for p in problems}
  assert found == FAULTS
  assert len(problems) == len(FAULTS)
  for problem in problems:
    assert problem.image in problem.text
    assert problem.role is None or repr(problem.role) in problem.text


def test_records_alone_read_no_image(folder, monkeypatch, capsys):
  _spoil(folder)
  monkeypatch.setattr(check, "check_images", None)
  arguments = ["--check", str(folder), "--records-only"]
  assert command.main(arguments) == 1
  out = capsys.readouterr().out
  assert "no image read" in out and "12 problems" in out


def test_a_sound_folder_in_numbers(folder, tmp_path, capsys):
  path = tmp_path / "report.json"
  arguments = ["--check", str(folder), f"--report={path}"]
  assert command.main(arguments) == 0
  out = capsys.readouterr().out
  assert "dev    12 images, {'seen': 6, 'rare': 4, 'unseen': 2}" in out
  assert "6 verbs with 2 to 2" in out
  found = json.loads(path.read_text())
  assert found["problems"] == []
  assert found["images"]["train"] == {"seen": 6, "rare": 4, "unseen": 0}
  assert found["per_verb"]["train"]["eating"] == 0
  assert found["per_verb"]["test"]["eating"] == 2
  assert found["facts"]["verbs"] == 6
  assert not any(found["facts"]["swig"].values())
  assert len(found["facts"]["checksums"]) == 8


def test_image_checksums_are_those_of_the_build(folder, tmp_path):
  wanted = _report(folder).facts["image_checksums"]
  dataset = builder.prepare(folder, tmp_path / "data")
  assert dict(dataset.builder.info.metadata["image_checksums"]) == wanted
  path = folder / "images_512" / "raining_dev_0.jpg"
  path.write_bytes(path.read_bytes() + b"\0")
  changed = _report(folder).facts["image_checksums"]
  assert changed["dev"] != wanted["dev"]
  assert changed["train"] == wanted["train"]


def test_nouns_out_of_the_vocabulary_are_counted(folder):
  notes = _report(folder).notes
  for split in ("train", "dev", "test"):
    records = swig_fixture.load(folder / "SWiG_jsons" / f"{split}.json")
    given = [
      (name, role)
      for name, entry in records.items()
      for frame in entry["frames"]
      for role, noun in frame.items()
      if noun == swig_fixture.UNLISTED
    ]
    found = notes[f"nouns out of the vocabulary, {split}"]
    assert [(note.image, note.role) for note in found] == given
    assert {note.text for note in found} == {swig_fixture.UNLISTED}


def test_notes_are_no_problems(folder, capsys):
  def change(records):
    del records["jumping_train_0.jpg"]["frames"][0]["agent"]
    records["jumping_train_1.jpg"] |= dict.fromkeys(RATIONALE_KEYS, "eating")
    records["raining_train_0.jpg"] |= {RATIONALE_KEYS[0]: "it rains"}
    del records["pushing_train_0.jpg"], records["pushing_train_1.jpg"]

  _edit(folder, "train", change)
  first = folder / "images_512" / "jumping_train_0.jpg"
  other = folder / "images_512" / "jumping_test_0.jpg"
  other.write_bytes(first.read_bytes())
  size = {
    key: swig_fixture.load(folder / "SWiG_jsons" / "train.json")[first.name][
      key
    ]
    for key in ("height", "width", "bb")
  }
  _edit(folder, "test", lambda r: r[other.name].update(size))
  assert command.main(["--check", str(folder)]) == 0
  out = capsys.readouterr().out
  assert "1 roles an annotator left out" in out
  assert "1 rationales that name unseen verbs, withheld: eating" in out
  lacking = ", ".join(RATIONALE_KEYS[1:])
  assert f"1 rationales, some of them empty: {lacking}" in out
  assert "2 images without a record: pushing_train_0.jpg" in out
  assert "1 seen or rare verbs without a training image: pushing" in out
  assert "2 training images of unseen verbs, left out" in out
  assert "1 the same image in two splits" in out
  assert "jumping_test_0.jpg is train: jumping_train_0.jpg" in out


def test_a_broken_json_does_not_hide_the_others(folder):
  _spoil(folder)
  path = folder / "SWiG_jsons" / "dev.json"
  path.write_text(path.read_text()[:200])
  report = _report(folder, images=False)
  (broken,) = [p for p in report.problems if p.kind == "file"]
  assert "dev.json is cut off" in broken.text
  assert any(p.image == "jumping_train_0.jpg" for p in report.problems)


def test_wrong_groups_are_a_problem(folder):
  path = folder / "SWiG_jsons" / "ov_splits.json"
  content = swig_fixture.load(path)
  content["rare"].append("eating")
  swig_fixture.dump(path, content)
  report = _report(folder, images=False)
  (wrong,) = report.problems
  assert wrong.kind == "groups" and "'eating'" in wrong.text
  assert report.images["train"] == {"images": 12}


def test_a_check_writes_nothing(tmp_path, capsys):
  folder = swig_fixture.write(tmp_path / "swig", ov_splits=False)
  before = sorted(path for path in folder.rglob("*"))
  assert command.main(["--check", str(folder)]) == 0
  assert "split_maker" in capsys.readouterr().out
  assert sorted(path for path in folder.rglob("*")) == before


@pytest.mark.parametrize("index_files", [True, False])
def test_index_files_are_compared_with_derived_ones(tmp_path, index_files):
  folder = swig_fixture.write(tmp_path / "swig", index_files=index_files)
  found = _report(folder, images=False).facts["index_files"]
  assert {row["given"] for row in found.values()} == {index_files}
  verbs, roles = found["verb_indices.txt"], found["role_indices.txt"]
  assert verbs["same_names"] and roles["same_numbers"]
  # The fixture lists its verbs in another order than the sorted one.
  assert verbs["same_numbers"] is not index_files
  nouns = found["train_classes.csv"]
  assert nouns["same_names"] is not index_files
  assert nouns["only_derived"] == (1 if index_files else 0)


def test_nouns_of_unseen_verbs_explain_a_longer_list(folder, capsys):
  """Bread is a class because `eating` has it in train.json."""

  def change(records):
    for entry in records.values():
      for frame in entry["frames"]:
        for role, noun in frame.items():
          if (noun == "n07679356") != (entry["verb"] == "eating"):
            frame[role] = "" if entry["verb"] != "eating" else "n07679356"

  _edit(folder, "train", change)
  found = _report(folder, images=False).facts["index_files"]
  nouns = found["train_classes.csv"]
  assert nouns["only_given"] == nouns["only_given_of_unseen_verbs"] == 1
  command.main(["--check", str(folder), "--records-only"])
  out = capsys.readouterr().out
  assert "1 names only in the file (1 are nouns of training images" in out


def test_orientation_tags_are_noted_and_explain_an_exchanged_size(
  folder, capsys
):
  """Tags are ignored; whoever drew the boxes may have heeded them."""
  records = swig_fixture.load(folder / "SWiG_jsons" / "train.json")
  names = ("jumping_train_0.jpg", "jumping_train_1.jpg")
  for name, orientation in zip(names, (3, 6), strict=True):
    path = folder / "images_512" / name
    with Image.open(path) as image:
      exif = image.getexif()
      exif[0x0112] = orientation
      image.save(path, exif=exif)
  assert command.main(["--check", str(folder)]) == 0
  assert "2 images with an orientation tag" in capsys.readouterr().out

  def exchange(records):
    for name in (names[1], "cooking_train_0.jpg"):
      entry = records[name]
      entry |= {"height": entry["width"], "width": entry["height"], "bb": {}}

  assert all(records[n]["height"] != records[n]["width"] for n in names)
  _edit(folder, "train", exchange)
  assert command.main(["--check", str(folder)]) == 1
  out = capsys.readouterr().out
  assert "its orientation tag turns it, and tags are ignored" in out
  assert "the two are exchanged" in out
