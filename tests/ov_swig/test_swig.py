"""Reading a SWiG-layout folder, and every wrong folder we know of."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from input_pipeline.io.errors import InputError
from input_pipeline.io.findings import RecordError
from input_pipeline.ov_swig import folder as folder_lib
from input_pipeline.ov_swig import layout, vocabulary
from input_pipeline.ov_swig.records import RATIONALE_KEYS
from tests.fixtures import swig_fixture

SHARED = pathlib.Path(__file__).parents[3] / "shared" / "data" / "swig"
IMAGE = "jumping_train_0.jpg"


@pytest.fixture
def folder(tmp_path):
  return swig_fixture.write(tmp_path / "swig", per_verb=2)


def _edit(folder, split="train", name=IMAGE, **changes):
  """Changes fields of one record; None takes a field out."""
  path = folder / "SWiG_jsons" / f"{split}.json"
  records = swig_fixture.load(path)
  records[name].update(changes)
  for key in [key for key, value in changes.items() if value is None]:
    del records[name][key]
  swig_fixture.dump(path, records)
  return records[name]


def _record(folder, split="train", name=IMAGE):
  records = folder_lib.read_folder(folder).splits[split]
  return next(record for record in records if record.name == name)


def test_records_are_those_of_the_json(folder):
  content = folder_lib.read_folder(folder)
  words = content.vocabulary
  source = swig_fixture.load(folder / "SWiG_jsons" / "test.json")
  records = content.splits["test"]
  assert [record.name for record in records] == list(source)
  for record in records:
    entry = source[record.name]
    assert words.verbs[record.verb] == entry["verb"]
    assert (record.height, record.width) == (entry["height"], entry["width"])
    assert record.nouns.dtype == np.int32
    roles = words.frame_roles(record.verb)
    for row, role in enumerate(roles):
      wanted = [words.noun_id(frame[role]) for frame in entry["frames"]]
      assert record.nouns[row].tolist() == wanted
      assert record.boxes[row].tolist() == entry["bb"][role]


def test_no_training_image_of_an_unseen_verb(folder):
  content = folder_lib.read_folder(folder)
  assert content.dropped == 2
  assert content.counts() == {
    "train": {"seen": 6, "rare": 4, "unseen": 0},
    "dev": {"seen": 6, "rare": 4, "unseen": 2},
    "test": {"seen": 6, "rare": 4, "unseen": 2},
  }
  eating = content.vocabulary.verb_index["eating"]
  assert content.train_counts[eating] == 0 and content.train_counts.sum() == 10


def test_draws_groups_once_and_keeps_them(tmp_path):
  folder = swig_fixture.write(tmp_path / "swig", ov_splits=False)
  first = folder_lib.read_folder(folder, num_rare=1, num_unseen=2, seed=1)
  second = folder_lib.read_folder(folder)
  assert first.groups.counts == {"seen": 3, "rare": 1, "unseen": 2}
  assert first.groups.sha256 == second.groups.sha256
  assert first.fingerprint == second.fingerprint


def test_dev_may_lack_boxes_but_training_may_not(folder):
  name = "jumping_dev_0.jpg"
  _edit(folder, "dev", name, bb=None)
  assert (_record(folder, "dev", name).boxes == -1).all()
  _edit(folder, bb=None)
  with pytest.raises(InputError, match="no boxes, 'bb'"):
    folder_lib.read_folder(folder)


def test_size_comes_from_the_image_where_the_record_has_none(folder):
  before = _record(folder)
  _edit(folder, height=None, width=None)
  after = _record(folder)
  assert (after.height, after.width) == (before.height, before.width)


def test_fewer_annotators_are_repeated(folder):
  entry = _edit(folder, frames=[{"agent": "n02084071"}, {}])
  record = _record(folder)
  assert entry["verb"] == "jumping"
  assert record.nouns[0, 0] == record.nouns[0, 2] != 0
  assert record.nouns[0, 1] == 0 and (record.nouns[1:] == 0).all()


def test_boxes_within_two_pixels_are_clipped(folder):
  entry = _edit(folder, bb={"agent": [-2, -1, 20, 21]})
  assert _record(folder).boxes[0].tolist() == [0, 0, 20, 21]
  width, height = entry["width"], entry["height"]
  _edit(folder, bb={"agent": [3, 4, width + 2, height + 1]})
  assert _record(folder).boxes[0].tolist() == [3, 4, width, height]


def test_rationales_of_the_record_are_kept_in_order(folder):
  assert _record(folder).rationales is None
  _edit(folder, **{key: f"text {i}" for i, key in enumerate(RATIONALE_KEYS)})
  assert _record(folder).rationales == tuple(f"text {i}" for i in range(4))


def test_fingerprint_follows_annotations_and_images(folder):
  prints = [folder_lib.fingerprint(folder), folder_lib.fingerprint(folder)]
  assert prints[0] == prints[1] == folder_lib.read_folder(folder).fingerprint
  _edit(folder, height=None, width=None)
  prints.append(folder_lib.fingerprint(folder))
  with (folder / "images_512" / IMAGE).open("ab") as file:
    file.write(b"\0")
  prints.append(folder_lib.fingerprint(folder))
  assert len(set(prints)) == 3


def _lay_bare(folder):
  (folder / "SWiG_jsons" / "dev.json").unlink()
  (folder / "SWiG_jsons" / "imsitu_space.json").unlink()
  (folder / "images_512").rename(folder / "pictures")


def _cut_off(folder):
  path = folder / "SWiG_jsons" / "dev.json"
  path.write_text(path.read_text()[:100])


def _lose_images(folder):
  for path in (folder / "images_512").glob("*_dev_*"):
    path.unlink()


def _two_splits(folder):
  path = folder / "SWiG_jsons" / "test.json"
  train = swig_fixture.load(folder / "SWiG_jsons" / "train.json")
  swig_fixture.dump(path, {**swig_fixture.load(path), IMAGE: train[IMAGE]})


def _twice(folder):
  path = folder / "SWiG_jsons" / "train.json"
  text = json.dumps(swig_fixture.load(path))
  path.write_text(text.replace("jumping_train_1.jpg", IMAGE))


def _no_image_behind_the_size(folder):
  _edit(folder, height=None)
  (folder / "images_512" / IMAGE).write_bytes(b"no image")


def _box(*corners, role="agent"):
  return lambda folder: _edit(folder, bb={role: list(corners)})


@pytest.mark.parametrize(
  ("damage", "says"),
  [
    (
      _lay_bare,
      [
        "images_512/",
        "SWiG_jsons/dev.json",
        "SWiG_jsons/imsitu_space.json",
        "https://github.com/allenai/swig",
        "images_512.zip",
      ],
    ),
    (_cut_off, ["dev.json is cut off", "line 1, column"]),
    (_lose_images, ["lacks 12 of 12 images of dev.json", ", ..."]),
    (_two_splits, [IMAGE, "train.json", "test.json"]),
    (_twice, [IMAGE, "twice"]),
    (_no_image_behind_the_size, [IMAGE, "cannot be decoded"]),
    (lambda f: _edit(f, verb="flying"), [IMAGE, "'flying'", "no frame"]),
    (lambda f: _edit(f, height="tall"), [IMAGE, "height and width"]),
    (lambda f: _edit(f, frames=[]), [IMAGE, "'frames'"]),
    (
      lambda f: _edit(f, frames=[{"food": ""}] * 3),
      [IMAGE, "'frames'", "'food'", "'jumping'"],
    ),
    (lambda f: _edit(f, frames=[{"agent": 3}]), [IMAGE, "'agent'", "noun 3"]),
    (_box(1, 1, 5, 5, role="food"), [IMAGE, "'bb'", "'food'"]),
    (_box(1, 1, 500, 5), [IMAGE, "'agent'", "leaves the image", "500"]),
    (_box(-9, 1, 5, 5), [IMAGE, "'agent'", "leaves the image"]),
    (_box(5, 1, 5, 9), [IMAGE, "'agent'", "is empty"]),
    (_box(5, 9, 8, 3), [IMAGE, "'agent'", "is empty"]),
    (_box(5, 9, 8), [IMAGE, "'agent'", "four numbers"]),
    (_box(float("nan"), 1, 5, 5), [IMAGE, "'agent'"]),
  ],
)
def test_wrong_folders_are_named(folder, damage, says):
  damage(folder)
  with pytest.raises(InputError) as error:
    folder_lib.read_folder(folder)
  message = str(error.value)
  assert "Remedy: " in message
  assert all(text in message for text in says), message


@pytest.mark.parametrize(
  ("changes", "kind", "role"),
  [
    ({"verb": "flying"}, "verb", None),
    ({"height": 0}, "size", None),
    ({"width": True}, "size", None),
    ({"frames": [{"food": ""}]}, "roles", "food"),
    ({"frames": [{"agent": None}]}, "frames", "agent"),
    ({"frames": {}}, "frames", None),
    ({"bb": [1, 1, 2, 2]}, "boxes", None),
    ({"bb": {"agent": [1, 1, 900, 2]}}, "boxes", "agent"),
    ({"bb": {"agent": ["1", 1, 2, 2]}}, "boxes", "agent"),
    ({"bb": {"food": [1, 1, 2, 2]}}, "roles", "food"),
    ({"neg_attr_caption": 3}, "rationales", None),
  ],
)
def test_reader_errors_name_file_image_and_role(folder, changes, kind, role):
  _edit(folder, **changes)
  with pytest.raises(RecordError) as error:
    folder_lib.read_folder(folder)
  found = error.value
  assert (found.file, found.image) == ("train.json", IMAGE)
  assert (found.kind, found.role) == (kind, role)
  assert "train.json" in found.problem and IMAGE in found.problem
  assert role is None or repr(role) in found.problem


def test_image_errors_name_the_file_too(folder):
  path = folder / "images_512" / IMAGE
  (record,) = (
    record
    for record in folder_lib.read_folder(folder).splits["train"]
    if record.name == IMAGE
  )
  whole = path.read_bytes()
  assert record.read_image() == whole
  damages = {
    "cannot be decoded": lambda: path.write_bytes(whole[:-200]),
    "is 37 x 31 pixels": lambda: Image.new("RGB", (31, 37)).save(path),
    "cannot be read": path.unlink,
  }
  for says, damage in damages.items():
    damage()
    with pytest.raises(RecordError, match=says) as error:
      record.read_image()
    found = error.value
    assert (found.file, found.image) == ("train.json", IMAGE)
    assert found.kind == "image" and "train.json" in found.problem


@pytest.mark.skipif(not SHARED.exists(), reason="no ../shared/data/swig")
def test_real_records(tmp_path):
  """Real frames, boxes and vocabulary, behind stand-in images."""
  jsons = tmp_path / "SWiG_jsons"
  jsons.mkdir()
  (tmp_path / "images_512").mkdir()
  for name in (
    layout.SPACE_FILE,
    layout.VERB_FILE,
    layout.ROLE_FILE,
    layout.NOUN_FILE,
  ):
    (jsons / name).write_bytes((SHARED / name).read_bytes())
  boxed = swig_fixture.load(SHARED / "samples_with_boxes.json")
  plain = swig_fixture.load(SHARED / "test_frames.json")
  test = {k: plain[k] for k in ("jumping_100.jpg", "jumping_107.jpg")}
  dev = swig_fixture.load(SHARED / "dev_frames_50.json")
  dev = {k: v for k, v in list(dev.items())[:20] if k not in boxed}
  for split, records in (("train", boxed), ("dev", dev), ("test", test)):
    swig_fixture.dump(jsons / f"{split}.json", records)
    for name, record in records.items():
      size = (record.get("width", 64), record.get("height", 48))
      Image.new("RGB", size).save(tmp_path / "images_512" / name)
  # The few training verbs must be seen, or their records are left out.
  verbs = vocabulary.load(jsons).verbs
  seen = sorted({record["verb"] for record in boxed.values()})
  unseen = [verb for verb in verbs if verb not in seen]
  swig_fixture.dump(
    jsons / "ov_splits.json",
    {"version": 1, "seen": seen, "rare": [], "unseen": unseen},
  )
  content = folder_lib.read_folder(tmp_path)
  assert [len(content.splits[s]) for s in layout.SPLITS] == [3, len(dev), 2]
  drinking = content.splits["train"][1]
  roles = content.vocabulary.frame_roles(drinking.verb)
  agent = drinking.boxes[roles.index("agent")]
  assert agent.tolist() == [0, 1, 654, 512]
  for records in content.splits.values():
    assert all(record.read_image() for record in records)
