"""The TFDS dataset: built once, read back exactly, never half-built."""

import errno
import pathlib

import numpy as np
import pytest
import tensorflow_datasets as tfds

from input_pipeline import ov_swig, schema, swig, vocabulary
from input_pipeline.errors import InputError
from input_pipeline.geometry import Letterbox, letterbox_image
from input_pipeline.swig_record import RATIONALE_KEYS
from tests import swig_fixture

RATIONALE_IMAGE = "cooking_train_1.jpg"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  root = tmp_path_factory.mktemp("ov_swig")
  folder = swig_fixture.write(root / "My SWiG!", per_verb=2)
  path = folder / "SWiG_jsons" / "train.json"
  records = swig_fixture.load(path)
  texts = {key: f"{key} é" for key in RATIONALE_KEYS}
  records[RATIONALE_IMAGE].update(texts)
  swig_fixture.dump(path, records)
  return root


@pytest.fixture(scope="module")
def folder(root):
  return root / "My SWiG!"


@pytest.fixture(scope="module")
def prepared(root, folder):
  return ov_swig.prepare(folder, root / "data")


@pytest.fixture(scope="module")
def content(folder):
  return swig.read_folder(folder)


@pytest.mark.parametrize("split", swig.SPLITS)
def test_annotations_are_those_of_the_folder(prepared, content, split):
  images = prepared.split(split)
  records = content.splits[split]
  assert images.names == tuple(record.name for record in records)
  columns = images.annotations()
  assert schema.validate(columns, schema.ANNOTATIONS)["B"] == len(records)
  words = prepared.vocabulary
  for row, record in enumerate(records):
    n = len(record.nouns)
    assert columns["index"][row] == row
    assert columns["verb"][row] == record.verb
    assert columns["group"][row] == prepared.groups.groups[record.verb]
    assert tuple(columns["roles"][row, :n]) == words.frames[record.verb]
    assert columns["role_mask"][row].tolist() == [True] * n + [False] * (6 - n)
    np.testing.assert_array_equal(columns["nouns"][row, :n], record.nouns)
    assert (columns["nouns"][row, n:] == len(words.nouns) - 1).all()
    assert (columns["roles"][row, n:] == -1).all()
    boxes = Letterbox(record.height, record.width).boxes_to_pixels(
      columns["boxes"][row]
    )
    np.testing.assert_allclose(boxes[:n], record.boxes, atol=1e-3)
    assert (columns["boxes"][row, n:] == -1).all()
    np.testing.assert_array_equal(
      columns["box_mask"][row, :n], record.boxes[:, 0] >= 0
    )
    assert not columns["box_mask"][row, n:].any()
    size = columns["image_size"][row].tolist()
    assert size == [record.height, record.width]
  assert columns["example_mask"].all()


def test_images_are_stored_unchanged(prepared, content):
  rows = prepared.builder.as_data_source(
    "train", decoders={"image": tfds.decode.SkipDecoding()}
  )
  for row, record in zip(rows, content.splits["train"], strict=True):
    assert row["image"] == record.path.read_bytes()


def test_pixels(prepared, content):
  images = prepared.split("dev")
  record = content.splits["dev"][3]
  image = images.image(3)
  assert (image.height, image.width) == (record.height, record.width)
  pixels = images.letterboxed([3, 0], 40)
  assert pixels.shape == (2, 40, 40, 3) and pixels.dtype == np.uint8
  np.testing.assert_array_equal(pixels[0], letterbox_image(image, 40))
  both = images.letterboxed_sizes([3, 0], (24, 40))
  np.testing.assert_array_equal(both[40], pixels)
  assert both[24].shape == (2, 24, 24, 3)


def test_rationales(prepared):
  images = prepared.split("train")
  index = images.names.index(RATIONALE_IMAGE)
  assert images.rationales(index) == tuple(f"{k} é" for k in RATIONALE_KEYS)
  others = [images.rationales(i) for i in range(len(images)) if i != index]
  assert others == [None] * (len(images) - 1)


def test_reads_a_part_as_a_stream_source(prepared):
  images = prepared.split("test")
  columns = images.annotations()
  part = images.read(np.array([5, 1, 5]))
  assert set(part) == set(schema.ANNOTATIONS) - {schema.EXAMPLE_MASK}
  for key, value in part.items():
    np.testing.assert_array_equal(value, columns[key][[5, 1, 5]])


def test_second_call_reuses(root, folder, prepared, monkeypatch):
  def refuse(*_, **__):
    raise AssertionError("built or read again")

  monkeypatch.setattr(ov_swig.OvSwig, "download_and_prepare", refuse)
  monkeypatch.setattr(swig, "read_folder", refuse)
  again = ov_swig.prepare(folder, root / "data")
  assert again.name == prepared.name == f"my_swig_{prepared.fingerprint[:12]}"
  assert again.split("train").names == prepared.split("train").names


def test_changed_folder_is_another_dataset(tmp_path):
  folder = swig_fixture.write(tmp_path / "swig", per_verb=1)
  first = ov_swig.prepare(folder, tmp_path / "data")
  path = folder / "SWiG_jsons" / "train.json"
  records = swig_fixture.load(path)
  del records["jumping_train_0.jpg"]
  swig_fixture.dump(path, records)
  second = ov_swig.prepare(folder, tmp_path / "data")
  assert first.name != second.name
  assert len(second.split("train")) == len(first.split("train")) - 1


def test_draws_groups_where_there_are_none(tmp_path):
  folder = swig_fixture.write(tmp_path / "s", per_verb=1, ov_splits=False)
  prepared = ov_swig.prepare(folder, tmp_path / "data", num_unseen=2, seed=5)
  assert prepared.groups.counts == {"seen": 3, "rare": 1, "unseen": 2}
  assert len(prepared.split("train")) == 4


def test_broken_image_stops_the_building(tmp_path):
  folder = swig_fixture.write(tmp_path / "swig", per_verb=1)
  path = folder / "images_512" / "raining_dev_0.jpg"
  whole = path.read_bytes()
  path.write_bytes(whole[: len(whole) // 2])
  with pytest.raises(InputError, match=r"raining_dev_0\.jpg cannot be decoded"):
    ov_swig.prepare(folder, tmp_path / "data")
  # Nothing that could be taken for a dataset is left.
  assert not list((tmp_path / "data").rglob("*array_record*"))
  path.write_bytes(whole)
  prepared = ov_swig.prepare(folder, tmp_path / "data")
  assert len(prepared.split("dev")) == len(swig_fixture.FRAMES)


def test_wrong_size_stops_the_building(tmp_path):
  folder = swig_fixture.write(tmp_path / "swig", per_verb=1)
  path = folder / "SWiG_jsons" / "train.json"
  records = swig_fixture.load(path)
  records["jumping_train_0.jpg"]["height"] += 10
  swig_fixture.dump(path, records)
  with pytest.raises(InputError, match=r"jumping_train_0\.jpg is \d+ x \d+"):
    ov_swig.prepare(folder, tmp_path / "data")


def test_full_disk(tmp_path, monkeypatch):
  folder = swig_fixture.write(tmp_path / "swig", per_verb=1)
  usage = ov_swig.shutil.disk_usage(tmp_path)
  with monkeypatch.context() as patch:
    patch.setattr(
      ov_swig.shutil, "disk_usage", lambda _: usage._replace(free=9)
    )
    with pytest.raises(InputError, match="needs about"):
      ov_swig.prepare(folder, tmp_path / "data")

  def fail(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")

  monkeypatch.setattr(ov_swig.OvSwig, "download_and_prepare", fail)
  with pytest.raises(InputError, match="make room"):
    ov_swig.prepare(folder, tmp_path / "data")


def test_cut_off_dataset_is_named(tmp_path):
  folder = swig_fixture.write(tmp_path / "swig", per_verb=1)
  prepared = ov_swig.prepare(folder, tmp_path / "data")
  (path,) = pathlib.Path(prepared.builder.data_dir).glob("*train*array_record*")
  path.write_bytes(path.read_bytes()[:500])
  with pytest.raises(InputError, match="split 'train' cannot be read"):
    prepared.split("train").annotations()


def test_wrong_split(prepared):
  with pytest.raises(InputError, match="no split 'validation'"):
    prepared.split("validation")


def test_manual_dir(root, folder, content):
  builder = ov_swig.OvSwig(data_dir=root / "manual", file_format="array_record")
  builder.download_and_prepare(
    download_config=tfds.download.DownloadConfig(manual_dir=folder)
  )
  rows = builder.as_data_source("test")
  assert len(rows) == len(content.splits["test"])
  assert rows[0]["image"].shape[-1] == 3


def test_check_prints_counts_and_problems(tmp_path, capsys):
  folder = swig_fixture.write(tmp_path / "swig", per_verb=1)
  assert ov_swig.main(["--check", str(folder)]) == 0
  out = capsys.readouterr().out
  assert "train  5 images, {'seen': 3, 'rare': 2, 'unseen': 0}" in out
  assert "all whole" in out
  (folder / "images_512" / "raining_dev_0.jpg").write_bytes(b"")
  assert ov_swig.main(["--check", str(folder)]) == 1
  assert "raining_dev_0.jpg" in capsys.readouterr().out
  (folder / "SWiG_jsons" / vocabulary.SPACE_FILE).unlink()
  assert ov_swig.main(["--check", str(folder)]) == 1
  assert "Remedy" in capsys.readouterr().err
