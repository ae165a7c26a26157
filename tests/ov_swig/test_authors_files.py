"""The authors' Ov-SWiG files: taken as they are, groups from their names."""

import json

import pytest

from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig import __main__ as command
from input_pipeline.ov_swig import folder as folder_lib
from input_pipeline.ov_swig import layout
from input_pipeline.ov_swig.records import RATIONALE_KEYS
from input_pipeline.ov_swig.splits import groups
from tests.fixtures import authors_fixture, swig_fixture


@pytest.fixture(params=[True, False], ids=["overlap", "disjoint"])
def folder(tmp_path, request):
  return authors_fixture.write(tmp_path / "swig", overlap=request.param)


@pytest.fixture
def jsons(folder):
  return folder / "SWiG_jsons"


def _edit(path, change):
  records = swig_fixture.load(path)
  change(records)
  swig_fixture.dump(path, records)


def test_groups_follow_from_the_files(folder):
  content = folder_lib.read_folder(folder)
  assert content.layout.source == layout.AUTHORS
  lists = content.groups.lists(content.vocabulary)
  assert lists == {g: sorted(v) for g, v in swig_fixture.GROUPS.items()}
  assert content.counts() == {
    "train": {"seen": 6, "rare": 4, "unseen": 0},
    "dev": {"seen": 6, "rare": 4, "unseen": 2},
    "test": {"seen": 6, "rare": 4, "unseen": 2},
  }
  assert content.dropped == content.withheld == 0


def test_groups_are_written_once_and_checked(folder, jsons):
  first = folder_lib.read_folder(folder)
  written = swig_fixture.load(jsons / "ov_splits.json")
  assert written["method"] == "authors" and "seed" not in written
  assert authors_fixture.TRAIN in written["files"]
  assert folder_lib.read_folder(folder).fingerprint == first.fingerprint
  written["seen"].append(written["unseen"].pop())
  del written["sha256"]
  swig_fixture.dump(jsons / "ov_splits.json", written)
  with pytest.raises(
    InputError, match="differ from those of the authors' files"
  ):
    folder_lib.read_folder(folder)


def test_rationales_are_those_of_the_file(folder):
  for record in folder_lib.read_folder(folder).splits["train"]:
    wanted = [f"{record.name}: {key} of it" for key in RATIONALE_KEYS]
    assert list(record.rationales) == wanted


def test_dev_images_of_unseen_verbs_choose_no_model(folder):
  content = folder_lib.read_folder(folder)
  eating = content.vocabulary.verb_index["eating"]
  names = [r.name for r in content.splits["dev"] if r.verb != eating]
  assert content.images["dev_selection"] == {
    "images": 10,
    "sha256": groups.names_digest(names),
  }
  assert content.images["dev"]["images"] == 12
  assert not content.groups.may_select(eating)


def test_a_train_json_beside_them_is_left_alone(folder, jsons):
  before = folder_lib.fingerprint(folder)
  stray = {"eating_train_0.jpg": {"verb": "eating"}}
  swig_fixture.dump(jsons / "train.json", stray)
  content = folder_lib.read_folder(folder)
  assert content.dropped == 0 and content.counts()["train"]["seen"] == 6
  (jsons / "ov_splits.json").unlink()
  assert folder_lib.fingerprint(folder) == before


def test_unseen_wins_where_both_files_list_a_verb(folder, jsons):
  def add(records):
    records |= swig_fixture.load(
      jsons / authors_fixture.group_file("dev", "unseen")
    )

  _edit(jsons / authors_fixture.group_file("dev", "rare"), add)
  groups = folder_lib.read_folder(folder).groups
  assert groups.counts == {"seen": 3, "rare": 2, "unseen": 1}


def test_a_training_record_of_an_unseen_verb_is_left_out(folder, jsons):
  def change(records):
    entry = records["jumping_train_0.jpg"]
    entry["verb"] = "eating"
    entry["bb"], entry["frames"] = {}, [{}]

  _edit(jsons / authors_fixture.TRAIN, change)
  content = folder_lib.read_folder(folder)
  assert content.dropped == 1
  names = [record.name for record in content.splits["train"]]
  assert "jumping_train_0.jpg" not in names


def test_a_missing_file_is_named_with_its_pattern(folder, jsons):
  (jsons / authors_fixture.group_file("test", "rare")).unlink()
  with pytest.raises(InputError) as error:
    folder_lib.read_folder(folder)
  assert "test_L[0-9]*_rare*.json" in error.value.problem
  assert "Ov-GSR" in error.value.remedy


def test_two_files_for_one_name_are_refused(folder, jsons):
  swig_fixture.dump(jsons / "dev_L25_unseen.json", {})
  with pytest.raises(InputError, match=r"2 files for dev_L.*dev_L25_unseen"):
    folder_lib.read_folder(folder)


def test_files_that_disagree_on_an_image(tmp_path):
  folder = authors_fixture.write(tmp_path / "swig", overlap=True)
  path = folder / "SWiG_jsons" / authors_fixture.group_file("dev", "rare")

  def change(records):
    records["pushing_dev_0.jpg"]["bb"]["agent"] = [1, 1, 9, 9]

  _edit(path, change)
  with pytest.raises(InputError) as error:
    folder_lib.read_folder(folder)
  for word in (path.name, "pushing_dev_0.jpg", "'agent'", "bb", "dev.json"):
    assert word in error.value.problem


def test_an_image_in_two_splits_is_told_by_its_files(folder, jsons):
  name = "carrying_train_0.jpg"
  entry = swig_fixture.load(jsons / authors_fixture.TRAIN)[name]
  rare = jsons / authors_fixture.group_file("test", "rare")
  _edit(rare, lambda records: records.update({name: entry}))
  with pytest.raises(InputError) as error:
    folder_lib.read_folder(folder)
  for word in (rare.name, name, authors_fixture.TRAIN):
    assert word in error.value.problem


def test_one_command_builds_them(folder, tmp_path, capsys):
  data = tmp_path / "data"
  arguments = ["--build", str(folder), "--data-dir", str(data)]
  assert command.main(arguments) == 0
  out = capsys.readouterr().out
  assert "train  10 images, {'seen': 6, 'rare': 4, 'unseen': 0}" in out
  (path,) = data.glob("ov_swig/*/*/metadata.json")
  about = json.loads(path.read_text())
  assert about["source"] == "authors"
  assert about["groups"]["unseen"] == ["eating"]
  assert authors_fixture.TRAIN in about["checksums"]
  assert about["statistics"]["train"]["with_rationales"] == 10


def test_check_says_that_they_are_the_authors(folder, capsys):
  assert command.main(["--check", str(folder)]) == 0
  out = capsys.readouterr().out
  assert "the authors' Ov-SWiG files" in out and "all whole" in out
  # A check writes nothing.
  assert not (folder / "SWiG_jsons" / "ov_splits.json").exists()
