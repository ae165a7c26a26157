"""The TFDS dataset: built once, read back exactly, never half-built."""

import errno
import hashlib
import pathlib

import numpy as np
import pytest
import tensorflow_datasets as tfds

from input_pipeline import schema
from input_pipeline.geometry import Letterbox, letterbox_image
from input_pipeline.io import builds
from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig import __main__ as command
from input_pipeline.ov_swig import builder as builder_lib
from input_pipeline.ov_swig import folder as folder_lib
from input_pipeline.ov_swig import layout
from input_pipeline.ov_swig.records import RATIONALE_KEYS
from tests.fixtures import swig_fixture

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
  return builder_lib.prepare(folder, root / "data")


@pytest.fixture(scope="module")
def content(folder):
  return folder_lib.read_folder(folder)


@pytest.mark.parametrize("split", layout.SPLITS)
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

  monkeypatch.setattr(builder_lib.OvSwig, "download_and_prepare", refuse)
  monkeypatch.setattr(folder_lib, "read_folder", refuse)
  again = builder_lib.prepare(folder, root / "data")
  assert again.name == prepared.name == f"my_swig_{prepared.fingerprint[:12]}"
  assert again.split("train").names == prepared.split("train").names


def test_changed_folder_is_another_dataset(tmp_path):
  folder = swig_fixture.write(tmp_path / "swig", per_verb=1)
  first = builder_lib.prepare(folder, tmp_path / "data")
  path = folder / "SWiG_jsons" / "train.json"
  records = swig_fixture.load(path)
  del records["jumping_train_0.jpg"]
  swig_fixture.dump(path, records)
  second = builder_lib.prepare(folder, tmp_path / "data")
  assert first.name != second.name
  assert len(second.split("train")) == len(first.split("train")) - 1


def test_draws_groups_where_there_are_none(tmp_path):
  folder = swig_fixture.write(tmp_path / "s", per_verb=1, ov_splits=False)
  prepared = builder_lib.prepare(
    folder, tmp_path / "data", num_unseen=2, seed=5
  )
  assert prepared.groups.counts == {"seen": 3, "rare": 1, "unseen": 2}
  assert len(prepared.split("train")) == 4


def test_broken_image_stops_the_building(tmp_path):
  folder = swig_fixture.write(tmp_path / "swig", per_verb=1)
  path = folder / "images_512" / "raining_dev_0.jpg"
  whole = path.read_bytes()
  path.write_bytes(whole[: len(whole) // 2])
  with pytest.raises(
    InputError, match=r"raining_dev_0\.jpg: cannot be decoded"
  ):
    builder_lib.prepare(folder, tmp_path / "data")
  # Nothing that could be taken for a dataset is left.
  assert not list((tmp_path / "data").rglob("*array_record*"))
  path.write_bytes(whole)
  prepared = builder_lib.prepare(folder, tmp_path / "data")
  assert len(prepared.split("dev")) == len(swig_fixture.FRAMES)


def test_wrong_size_stops_the_building(tmp_path):
  folder = swig_fixture.write(tmp_path / "swig", per_verb=1)
  path = folder / "SWiG_jsons" / "train.json"
  records = swig_fixture.load(path)
  records["jumping_train_0.jpg"]["height"] += 10
  swig_fixture.dump(path, records)
  with pytest.raises(InputError, match=r"jumping_train_0\.jpg: is \d+ x \d+"):
    builder_lib.prepare(folder, tmp_path / "data")


def test_full_disk(tmp_path, monkeypatch):
  folder = swig_fixture.write(tmp_path / "swig", per_verb=1)
  usage = builds.shutil.disk_usage(tmp_path)
  with monkeypatch.context() as patch:
    patch.setattr(builds.shutil, "disk_usage", lambda _: usage._replace(free=9))
    with pytest.raises(InputError, match="needs about"):
      builder_lib.prepare(folder, tmp_path / "data")

  def fail(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")

  monkeypatch.setattr(builder_lib.OvSwig, "download_and_prepare", fail)
  with pytest.raises(InputError, match="free space"):
    builder_lib.prepare(folder, tmp_path / "data")


def test_cut_off_dataset_is_named(tmp_path):
  folder = swig_fixture.write(tmp_path / "swig", per_verb=1)
  prepared = builder_lib.prepare(folder, tmp_path / "data")
  (path,) = pathlib.Path(prepared.builder.data_dir).glob("*train*array_record*")
  path.write_bytes(path.read_bytes()[:500])
  with pytest.raises(InputError, match="split 'train' cannot be read"):
    prepared.split("train").annotations()


def test_wrong_split(prepared):
  with pytest.raises(InputError, match="no split 'validation'"):
    prepared.split("validation")


def test_manual_dir(root, folder, content):
  builder = builder_lib.OvSwig(
    data_dir=root / "manual", file_format="array_record"
  )
  builder.download_and_prepare(
    download_config=tfds.download.DownloadConfig(manual_dir=folder)
  )
  rows = builder.as_data_source("test")
  assert len(rows) == len(content.splits["test"])
  assert rows[0]["image"].shape[-1] == 3


def _rows(builder, split):
  """Examples in order, the image undecoded, from either file format."""
  decoders = {"image": tfds.decode.SkipDecoding()}
  if builder.info.file_format == tfds.core.FileFormat.ARRAY_RECORD:
    return list(builder.as_data_source(split, decoders=decoders))
  dataset = builder.as_dataset(split=split, decoders=decoders)
  return list(dataset.as_numpy_iterator())


def _assert_same(left, right):
  assert len(left) == len(right)
  for a, b in zip(left, right, strict=True):
    assert set(a) == set(b)
    for key in a:
      np.testing.assert_array_equal(a[key], b[key])


def test_tfrecord_and_array_record_hold_the_same(root, folder, content):
  found = {}
  for file_format in ("tfrecord", "array_record"):
    builder = builder_lib.OvSwig(
      config=builder_lib.OvSwigConfig.of(folder),
      data_dir=root / file_format,
      file_format=file_format,
    )
    builder.download_and_prepare()
    found[file_format] = {s: _rows(builder, s) for s in layout.SPLITS}
  for split, records in content.splits.items():
    rows = found["tfrecord"][split]
    _assert_same(rows, found["array_record"][split])
    names = [row["image_name"].decode() for row in rows]
    assert names == [record.name for record in records]


def test_plain_tfds_load(root, folder, content):
  """By name, from TFDS's manual_dir, as any TFDS data set."""
  config = tfds.download.DownloadConfig(manual_dir=folder)
  dataset, info = tfds.load(
    "ov_swig",
    split="dev",
    data_dir=root / "plain",
    download_and_prepare_kwargs={"download_config": config},
    with_info=True,
  )
  rows = list(dataset.as_numpy_iterator())
  assert len(rows) == info.splits["dev"].num_examples == 12
  for row, record in zip(rows, content.splits["dev"], strict=True):
    assert row["image"].shape == (record.height, record.width, 3)
    assert info.metadata["vocabulary"]["verbs"][row["verb"]] in record.name


def test_plain_tfds_data_source(root, folder, content):
  """The same with random access, which array_record files have."""
  config = tfds.download.DownloadConfig(manual_dir=folder)
  rows = tfds.data_source(
    "ov_swig",
    split="dev",
    data_dir=root / "source",
    builder_kwargs={"file_format": "array_record"},
    download_and_prepare_kwargs={"download_config": config},
  )
  record = content.splits["dev"][7]
  assert len(rows) == 12 and rows[7]["image_name"].decode() == record.name
  assert rows[7]["image"].shape == (record.height, record.width, 3)


def test_metadata_has_names_texts_numbers_and_hashes(prepared, content):
  again = builder_lib.OvSwig(
    config=prepared.builder.builder_config,
    data_dir=prepared.builder.data_path.parents[2],
    file_format="array_record",
  )
  about = again.info.metadata
  words = about["vocabulary"]
  assert words["nouns"][3] == "n02084071"
  assert words["noun_glosses"][3] == ["dog"]
  assert words["frame_definitions"][0][1] == "The obstacle of it"
  assert words["verb_definitions"][1] == "to be cooking"
  assert about["groups"]["unseen"] == ["eating"]
  assert about["groups"]["sha256"] == prepared.groups.sha256
  assert about["fingerprint"] == prepared.fingerprint
  train = about["statistics"]["train"]
  assert train["by_group"] == {"seen": 6, "rare": 4, "unseen": 0}
  assert train["images"] == 10 and train["images_per_verb"] == [2, 2]
  assert train["with_rationales"] == 1
  records = content.splits["train"]
  boxes = np.concatenate([record.boxes for record in records])
  nouns = np.concatenate([record.nouns for record in records])
  assert train["roles"] == len(boxes)
  assert train["grounded"] == pytest.approx((boxes[:, 0] >= 0).mean())
  assert train["blank"] == pytest.approx((nouns == 0).mean())
  oov = prepared.vocabulary.noun_index["oov"]
  assert train["out_of_vocabulary"] == pytest.approx((nouns == oov).mean())
  path = content.layout.jsons / "train.json"
  digest = hashlib.sha256(path.read_bytes()).hexdigest()
  assert about["checksums"]["train.json"] == digest


def test_many_shards_keep_the_order(root, folder, prepared, monkeypatch):
  """More than ten: names of files sort as text."""
  monkeypatch.setattr(builds, "_IMAGES", 1)
  dataset = builder_lib.prepare(folder, root / "many")
  assert dataset.builder.info.splits["dev"].num_shards == 12
  for name in layout.SPLITS:
    one, many = prepared.split(name), dataset.split(name)
    assert one.names == many.names
    columns = many.annotations()
    for key, column in one.annotations().items():
      np.testing.assert_array_equal(column, columns[key])


def test_shards_are_cut_by_bytes_too(content, monkeypatch):
  records = content.splits["dev"]
  sizes = [record.path.stat().st_size for record in records]
  monkeypatch.setattr(builds, "_BYTES", 2 * max(sizes))
  cuts = builds.cuts(records)
  assert len(cuts) > 1 and cuts[0][0] == 0 and cuts[-1][1] == len(records)
  assert [stop for _, stop in cuts[:-1]] == [start for start, _ in cuts[1:]]
  for start, stop in cuts:
    assert sum(sizes[start:stop]) <= 2 * max(sizes)
  assert builds.cuts([]) == []


def test_with_beam(root, folder, prepared, monkeypatch):
  pytest.importorskip("apache_beam", reason="apache-beam is not installed")
  monkeypatch.setattr(builds, "_IMAGES", 1)
  builder = builder_lib.OvSwig(
    config=builder_lib.OvSwigConfig.of(folder),
    data_dir=root / "beam",
    file_format="array_record",
  )
  config = tfds.download.DownloadConfig(beam_runner="DirectRunner")
  builder.download_and_prepare(download_config=config)
  assert builder.info.splits["dev"].num_shards == 12
  for split in layout.SPLITS:
    _assert_same(_rows(builder, split), _rows(prepared.builder, split))
  assert "image_checksums" not in builder.info.metadata


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_tfds_build(root, folder, prepared, content, file_format):
  """The command line of TFDS, which imports Beam and mlcroissant."""
  for name in ("apache_beam", "mlcroissant"):
    pytest.importorskip(name, reason=f"{name} is not installed")
  from tensorflow_datasets.scripts.cli import main as tfds_main

  data = root / f"cli_{file_format}"
  arguments = ["tfds", "build", builder_lib.__file__, f"--manual_dir={folder}"]
  arguments += [f"--data_dir={data}", f"--file_format={file_format}"]
  tfds_main.main(tfds_main._parse_flags(arguments))
  builder = builder_lib.OvSwig(data_dir=data, file_format=file_format)
  for split, records in content.splits.items():
    rows = _rows(builder, split)
    assert len(rows) == len(records)
    _assert_same(rows, _rows(prepared.builder, split))


def test_check_prints_counts_and_problems(tmp_path, capsys):
  folder = swig_fixture.write(tmp_path / "swig", per_verb=1)
  assert command.main(["--check", str(folder)]) == 0
  out = capsys.readouterr().out
  assert "train  5 images, {'seen': 3, 'rare': 2, 'unseen': 0}" in out
  assert "all whole" in out
  (folder / "images_512" / "raining_dev_0.jpg").write_bytes(b"")
  assert command.main(["--check", str(folder)]) == 1
  assert "raining_dev_0.jpg" in capsys.readouterr().out
  (folder / "SWiG_jsons" / layout.SPACE_FILE).unlink()
  assert command.main(["--check", str(folder)]) == 1
  assert "Remedy" in capsys.readouterr().err
