"""The split maker: three methods, balance, one page, nothing overwritten."""

import collections
import json
import pathlib

import numpy as np
import pytest

from input_pipeline import split_maker
from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig import folder as folder_lib
from input_pipeline.ov_swig import layout, vocabulary
from input_pipeline.ov_swig.splits import groups as groups_lib
from input_pipeline.ov_swig.splits import verb_draw
from tests.fixtures import authors_fixture, swig_fixture

SHARED = pathlib.Path(__file__).parents[3] / "shared" / "data" / "swig"
real_data = pytest.mark.skipif(
  not SHARED.exists(), reason="no ../shared/data/swig"
)


@pytest.fixture
def folder(tmp_path):
  return swig_fixture.write(tmp_path / "swig", ov_splits=False)


@pytest.fixture
def jsons(folder):
  return folder / "SWiG_jsons"


def _written(jsons):
  return json.loads((jsons / "ov_splits.json").read_text())


def test_needs_no_image(folder, jsons):
  for path in (folder / "images_512").iterdir():
    path.unlink()
  (folder / "images_512").rmdir()
  groups = split_maker.make(folder, unseen=1, rare=2, seed=3)
  assert groups.counts == {"seen": 3, "rare": 2, "unseen": 1}
  written = _written(jsons)
  assert written["method"] == "random" and written["seed"] == 3
  assert written["sha256"] == groups.sha256
  assert set(written["files"]) >= {"train.json", "imsitu_space.json"}


def test_by_list(jsons, folder, tmp_path):
  unseen, rare = tmp_path / "unseen.txt", tmp_path / "rare.txt"
  unseen.write_text("eating\nraining\n\n")
  rare.write_text("cooking\n")
  arguments = [str(folder), "--method=list", f"--unseen={unseen}"]
  assert split_maker.main([*arguments, f"--rare={rare}"]) == 0
  written = _written(jsons)
  assert written["unseen"] == ["eating", "raining"]
  assert written["rare"] == ["cooking"]
  assert written["seen"] == ["carrying", "jumping", "pushing"]
  assert "seed" not in written
  content = folder_lib.read_folder(folder)
  assert content.dropped == 6 and content.counts()["train"]["unseen"] == 0


def test_by_frequency(folder, jsons):
  train = swig_fixture.load(jsons / "train.json")
  few = {"eating": 1, "pushing": 2}
  seen = collections.Counter()
  kept = {}
  for name, entry in train.items():
    seen[entry["verb"]] += 1
    if seen[entry["verb"]] <= few.get(entry["verb"], 9):
      kept[name] = entry
  swig_fixture.dump(jsons / "train.json", kept)
  split_maker.make(folder, method="frequency", unseen=1, rare=1)
  written = _written(jsons)
  assert written["unseen"] == ["eating"] and written["rare"] == ["pushing"]


def test_the_page_says_what_is_in_the_split(folder, jsons):
  split_maker.make(folder, unseen=1, rare=2)
  page = (jsons / "ov_splits.md").read_text()
  written = _written(jsons)
  for word in (
    written["sha256"],
    written["images"]["dev_selection"]["sha256"],
    "seed 0",
    "| unseen | 1 | 0 (3 in the files, left out) | 3 | 3 |",
    *written["unseen"],
    *written["rare"],
  ):
    assert word in page
  assert page.count("\n") < 60


def test_image_sets_say_what_each_image_may_do(folder, jsons):
  split_maker.make(folder, unseen=1, rare=2)
  written = _written(jsons)
  unseen = set(written["unseen"])
  records = {
    split: swig_fixture.load(jsons / f"{split}.json") for split in layout.SPLITS
  }

  def names(split):
    found = records[split].items()
    return [name for name, entry in found if entry["verb"] not in unseen]

  wanted = {
    "train": names("train"),
    "dev_selection": names("dev"),
    "dev": list(records["dev"]),
    "test": list(records["test"]),
  }
  for key, some in wanted.items():
    found = written["images"][key]
    assert found["images"] == len(some)
    assert found["sha256"] == groups_lib.names_digest(some)
  assert written["images"]["train"]["images"] == 15
  assert folder_lib.read_folder(folder).images == written["images"]


def test_changed_records_are_noticed(folder, jsons, caplog):
  split_maker.make(folder, unseen=1, rare=2)
  folder_lib.read_folder(folder)
  assert "made for other records" not in caplog.text
  dev = swig_fixture.load(jsons / "dev.json")
  dev.pop(next(iter(dev)))
  swig_fixture.dump(jsons / "dev.json", dev)
  folder_lib.read_folder(folder)
  assert "made for other records" in caplog.text


def test_a_split_is_not_overwritten(folder, jsons, capsys):
  split_maker.make(folder, unseen=1, rare=1, seed=0)
  before = (jsons / "ov_splits.json").read_bytes()
  assert split_maker.main([str(folder), "--unseen=2"]) == 1
  assert "--replace" in capsys.readouterr().err
  assert (jsons / "ov_splits.json").read_bytes() == before
  assert split_maker.main([str(folder), "--unseen=2", "--replace"]) == 0
  assert len(_written(jsons)["unseen"]) == 2


def test_help_tells_defaults(capsys):
  with pytest.raises(SystemExit):
    split_maker.main(["--help"])
  said = " ".join(capsys.readouterr().out.split())
  for default in ("random", "a sixth of all", "none", "0", "refuse"):
    assert f"(default: {default})" in said


def test_the_authors_groups_are_not_to_be_chosen(tmp_path, capsys):
  folder = authors_fixture.write(tmp_path / "swig")
  assert split_maker.main([str(folder), "--unseen=2"]) == 1
  assert "groups are given" in capsys.readouterr().err
  assert split_maker.main([str(folder)]) == 0
  assert _written(folder / "SWiG_jsons")["method"] == "authors"


@pytest.mark.parametrize(
  ("options", "says"),
  [
    ({"method": "list", "unseen": "flying"}, ["flying", "not verbs"]),
    ({"method": "list", "unseen": "eating", "rare": "eating"}, ["both lists"]),
    ({"method": "list", "unseen": "\n"}, ["no verb", "leave --unseen out"]),
    (
      {"method": "list", "unseen": "eating", "rare": ""},
      ["no verb", "leave --rare out"],
    ),
    ({"unseen": "many"}, ["--unseen=many", "not a number"]),
    ({"unseen": 3, "rare": 3}, ["cannot draw 3 rare and 3 unseen"]),
    ({"unseen": -2}, ["cannot draw 1 rare and -2 unseen"]),
    ({"seed": -1}, ["no draw with seed -1"]),
    ({"seed": 2**128}, ["no draw with seed"]),
  ],
)
def test_wrong_choices_are_named(folder, jsons, tmp_path, options, says):
  if options.get("method") == "list":
    for key in ("unseen", "rare"):
      if key in options:
        (tmp_path / key).write_text(options[key])
        options = options | {key: str(tmp_path / key)}
  with pytest.raises(InputError) as error:
    split_maker.make(folder, **options)
  assert all(word in str(error.value) for word in says), error.value
  assert not (jsons / "ov_splits.json").exists()


def test_a_role_is_not_lost_while_others_can_be_taken(folder):
  """Jumping, cooking and carrying each have a role that no other verb has."""
  words = vocabulary.load(folder)
  counts = np.ones(len(words.verbs), int)
  for seed in range(20):
    lists = verb_draw.draw(words, counts, num_rare=0, num_unseen=3, seed=seed)
    assert verb_draw.untrained_roles(words, lists) == {}
    assert set(lists["unseen"]) <= {"raining", "pushing", "eating"}
  lists = verb_draw.draw(words, counts, num_rare=0, num_unseen=4, seed=0)
  assert len(lists["unseen"]) == 4
  assert verb_draw.untrained_roles(words, lists)


@real_data
@pytest.mark.parametrize("method", ["random", "frequency"])
def test_real_verbs_are_balanced_over_frames(method):
  words = vocabulary.load(SHARED)
  names = json.loads((SHARED / "image_splits.json").read_text())
  verbs = [name.rpartition("_")[0] for name in names["train"]]
  counts = np.bincount([words.verb_index[v] for v in verbs], minlength=504)
  lists = verb_draw.draw(
    words, counts, num_rare=101, num_unseen=51, seed=1, method=method
  )
  assert verb_draw.untrained_roles(words, lists) == {}
  every = verb_draw.frame_sizes(words, words.verbs)
  unseen = verb_draw.frame_sizes(words, lists["unseen"])
  for size, number in every.items():
    assert abs(unseen[size] - 51 * number / 504) <= 1
  count = dict(zip(words.verbs, counts, strict=True))
  assert max(count[v] for v in lists["rare"]) <= min(
    count[v] for v in lists["seen"]
  )


@real_data
def test_real_names_go_through_the_split_maker(tmp_path):
  """All 126,102 names of SWiG, with records that have only a verb."""
  jsons = tmp_path / "SWiG_jsons"
  jsons.mkdir()
  for name in (layout.SPACE_FILE, layout.VERB_FILE, layout.NOUN_FILE):
    (jsons / name).write_bytes((SHARED / name).read_bytes())
  names = json.loads((SHARED / "image_splits.json").read_text())
  for split, some in names.items():
    records = {name: {"verb": name.rpartition("_")[0]} for name in some}
    swig_fixture.dump(jsons / f"{split}.json", records)
  groups = split_maker.make(tmp_path, unseen=51, rare=101)
  written = _written(jsons)
  assert groups.counts == {"seen": 352, "rare": 101, "unseen": 51}
  counts = {key: found["images"] for key, found in written["images"].items()}
  unseen = set(written["unseen"])
  trained = [n for n in names["train"] if n.rpartition("_")[0] not in unseen]
  assert counts == {
    "train": len(trained),
    "dev_selection": 50 * (504 - 51),
    "dev": 25200,
    "test": 25200,
  }
  again = groups_lib.read(tmp_path, vocabulary.load(tmp_path))
  assert again.sha256 == groups.sha256
