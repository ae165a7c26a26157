"""The small world: its folder, its rules, its drawings."""

import csv
import dataclasses
import hashlib
import itertools
import json
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from input_pipeline.io.errors import InputError
from input_pipeline.small_world import (
  WorldConfig,
  draw_world,
  looks,
  write_folder,
)
from input_pipeline.small_world import __main__ as command
from input_pipeline.small_world.painting import draw
from input_pipeline.small_world.situations import folder
from input_pipeline.small_world.situations.captions import (
  CaptionConfig,
  all_words,
  caption,
  draw_pool,
)
from input_pipeline.small_world.situations.scenes import draw_scene

SWIG = pathlib.Path(__file__).parents[3] / "shared/data/swig"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> pathlib.Path:
  out = tmp_path_factory.mktemp("world") / "tiny"
  return write_folder(out, WorldConfig.tiny())


@pytest.fixture(scope="module")
def world():
  return draw_world(WorldConfig())


def _read(where: pathlib.Path, name: str):
  return json.loads((where / "SWiG_jsons" / name).read_text())


def _hashes(where: pathlib.Path) -> dict[str, str]:
  return {
    str(path.relative_to(where)): hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted(where.rglob("*"))
    if path.is_file()
  }


def test_same_seed_same_bytes_other_seed_other_bytes(tiny, tmp_path):
  # In another process, where Python's own hashes are others.
  again = tmp_path / "again"
  module = "input_pipeline.small_world"
  command = [sys.executable, "-m", module, "--tiny", f"--out={again}"]
  root = pathlib.Path(__file__).parents[2]
  subprocess.run(command, check=True, cwd=root, capture_output=True)
  assert _hashes(again) == _hashes(tiny)
  other = write_folder(tmp_path / "other", WorldConfig.tiny(seed=1))
  assert _read(other, "train.json") != _read(tiny, "train.json")


def test_tiny_world_is_quick(tmp_path):
  started = time.process_time()
  write_folder(tmp_path / "out", WorldConfig.tiny())
  assert time.process_time() - started < 2


@pytest.mark.parametrize("split", folder.SPLITS)
def test_records_are_official(tiny, split):
  space = _read(tiny, "imsitu_space.json")
  records = _read(tiny, f"{split}.json")
  assert records
  grounded = 0
  for name, record in records.items():
    with Image.open(tiny / "images_512" / name) as image:
      assert image.size == (record["width"], record["height"])
    roles = set(space["verbs"][record["verb"]]["order"])
    assert set(record["bb"]) == roles
    assert len(record["frames"]) == 3
    for frame in record["frames"]:
      assert set(frame) == roles
      assert all(n == "" or n in space["nouns"] for n in frame.values())
    for role, box in record["bb"].items():
      assert all(isinstance(value, int) for value in box)
      if box == [-1] * 4:
        continue
      grounded += 1
      x1, y1, x2, y2 = box
      assert role != "place"
      assert 0 <= x1 < x2 <= record["width"]
      assert 0 <= y1 < y2 <= record["height"]
  assert grounded > len(records)


def test_index_files_agree_with_the_space(tiny):
  space = _read(tiny, "imsitu_space.json")
  jsons = tiny / "SWiG_jsons"
  verbs = (jsons / "verb_indices.txt").read_text().split()
  roles = (jsons / "role_indices.txt").read_text().split()
  rows = list(csv.reader((jsons / "train_classes.csv").open()))
  assert verbs == list(space["verbs"])
  assert set(roles) == {r for v in space["verbs"].values() for r in v["order"]}
  assert [int(index) for _, index in rows] == list(range(len(rows)))
  assert rows[0][0] == "blank"
  assert [name for name, _ in rows[-2:]] == ["oov", "Pad"]
  assert {name for name, _ in rows[1:-2]} == set(space["nouns"])


def test_groups_and_splits(tiny):
  groups = _read(tiny, "ov_splits.json")
  assert groups.pop("version") == 1
  assert sorted(itertools.chain(*groups.values())) == sorted(
    _read(tiny, "imsitu_space.json")["verbs"]
  )
  records = {split: _read(tiny, f"{split}.json") for split in folder.SPLITS}
  verbs = {
    split: {record["verb"] for record in of.values()}
    for split, of in records.items()
  }
  assert verbs["train"] == {*groups["seen"], *groups["rare"]}
  assert verbs["dev"] == verbs["test"] == set(itertools.chain(*groups.values()))
  for a, b in itertools.combinations(records.values(), 2):
    assert not set(a) & set(b)


def test_standard_sizes(world):
  """What the task asks of the standard world, without drawing it."""
  group = {verb.name: verb.group for verb in world.verbs}
  train, dev, test = (
    folder.images_per_verb(world, split) for split in folder.SPLITS
  )
  seen = [count for name, count in train.items() if group[name] == "seen"]
  rare = [count for name, count in train.items() if group[name] == "rare"]
  assert (len(seen), len(rare), len(group)) == (64, 16, 96)
  assert len(train) == 80
  assert min(seen) == 16
  assert max(seen) == 90
  assert 36 <= np.mean(seen) <= 44
  assert np.median(seen) < np.mean(seen)
  assert min(rare) >= 3
  assert max(rare) <= 6
  assert 500 <= sum(dev.values()) <= 700
  assert 1800 <= sum(test.values()) <= 2000
  assert all(test[n] >= 40 for n, g in group.items() if g == "unseen")
  assert len(world.nouns) >= 120
  assert len(world.by_kind["place"]) >= 12
  assert {len(verb.roles) for verb in world.verbs} == set(range(1, 7))


def test_codes_and_looks_tell_everything_apart(world):
  for a, b in itertools.combinations(world.verbs, 2):
    assert sum(x != y for x, y in zip(a.code, b.code, strict=True)) >= 2
    assert a.definition != b.definition
  assert len({noun.look for noun in world.nouns}) == len(world.nouns)
  seen = [verb for verb in world.verbs if verb.group == "seen"]
  known = {word for verb in seen for word in verb.definition.split()}
  for verb in world.verbs:
    assert set(verb.definition.split()) <= known


def test_lexicon_is_the_real_one(world):
  if not SWIG.exists():
    pytest.skip("no SWiG data beside the repository")
  space = json.loads((SWIG / "imsitu_space.json").read_text())
  for verb in world.verbs:
    assert list(verb.roles) == space["verbs"][verb.name]["order"]
  for noun in world.nouns:
    assert noun.gloss in space["nouns"][noun.id]["gloss"]


def test_boxes_are_where_things_are_drawn(world):
  """Leaving a thing out changes pixels in its box only, and all over it."""
  rng = np.random.default_rng(0)
  checked = 0
  for verb in [v for v in world.verbs if len(v.roles) >= 5] * 3:
    scene = draw_scene(world, verb, rng)
    things = [t for t in scene.things if t.anchor.startswith("lower")]
    for thing in things[:1]:
      rest = tuple(t for t in scene.things if t is not thing)
      without = draw(dataclasses.replace(scene, things=rest))
      changed = np.any(np.asarray(draw(scene)) != np.asarray(without), -1)
      ys, xs = np.nonzero(changed)
      drawn = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
      box = scene.boxes()[thing.role]
      apart = np.array(drawn) - box
      assert np.all(apart[:2] >= -1)
      assert np.all(apart[2:] <= 1)
      checked += bool(np.all(np.abs(apart) <= 1))
  assert checked >= 20  # the others are partly behind the actor


def test_every_attribute_value_changes_the_picture(world):
  scene = draw_scene(world, world.verbs[0], np.random.default_rng(1))
  for position, words in enumerate(looks.ATTRIBUTES.values()):
    if position == 0:
      continue  # the layout moves things when the scene is drawn
    pictures = set()
    for value in range(len(words)):
      code = list(scene.code)
      code[position] = value
      changed = dataclasses.replace(scene, code=tuple(code))
      pictures.add(draw(changed).tobytes())
    assert len(pictures) == len(words)


def test_annotators_differ_but_one_is_right(world):
  rng = np.random.default_rng(2)
  differ = blank = hidden = total = 0
  for verb in world.verbs * 3:
    scene = draw_scene(world, verb, rng)
    boxes = scene.boxes()
    for role, noun in scene.fillers.items():
      named = [frame[role] for frame in scene.frames]
      total += 1
      if noun is None:
        blank += 1
        assert named == ["", "", ""]
        assert boxes[role] == [-1] * 4
        continue
      assert noun.id in named
      differ += len(set(named)) > 1
      hidden += role != "place" and boxes[role] == [-1] * 4
  assert 0.1 < differ / total < 0.5
  assert 0 < blank / total < 0.1
  assert 0 < hidden / total < 0.1


def test_captions_use_known_words_and_follow_the_seed(world):
  images, scenes = draw_pool(world, 96, 48, seed=5)
  again, _ = draw_pool(world, 96, 48, seed=5)
  other, _ = draw_pool(world, 96, 48, seed=6)
  assert images.shape == (96, 48, 48, 3)
  assert images.dtype == np.uint8
  assert np.array_equal(images, again)
  assert not np.array_equal(images, other)
  assert {scene.verb.name for scene in scenes} == {
    verb.name for verb in world.verbs
  }
  words = set(all_words(world))
  rng = np.random.default_rng(0)
  silent = CaptionConfig(unseen=0.0)
  for scene in scenes:
    assert set(caption(scene, CaptionConfig(), rng).split()) <= words
    if scene.verb.group == "unseen":
      assert scene.verb.name not in caption(scene, silent, rng).split()


def test_refuses_what_it_cannot_do(tiny, tmp_path):
  with pytest.raises(InputError, match="exists already"):
    write_folder(tiny, WorldConfig.tiny())
  with pytest.raises(InputError, match="at most 112 verbs"):
    draw_world(WorldConfig(num_seen=500))
  with pytest.raises(InputError, match="seen, rare and unseen"):
    WorldConfig(num_rare=0)
  (tmp_path / "file").write_text("")
  with pytest.raises(InputError, match="cannot be written"):
    write_folder(tmp_path / "file" / "out", WorldConfig.tiny())


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
  def full(*_):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(folder, "_jpeg", full)
  with pytest.raises(InputError, match="No space left"):
    write_folder(tmp_path / "out", WorldConfig.tiny())
  assert list(tmp_path.iterdir()) == []


def test_command_line(tmp_path, capsys):
  out = str(tmp_path / "out")
  assert command.main(["--tiny", f"--out={out}", "--seed=3"]) == 0
  assert "12 verbs" in capsys.readouterr().out
  assert command.main(["--tiny", f"--out={out}"]) == 2
  assert "Remedy" in capsys.readouterr().err
  for wrong in (f"--out={out}/SWiG_jsons/dev.json/x", "--out=/proc/world"):
    assert command.main(["--tiny", wrong]) == 2
    assert "cannot be written" in capsys.readouterr().err
  assert command.main(["--tiny", f"--out={out}2", "--seed=-1"]) == 2
  assert "--seed=-1" in capsys.readouterr().err
