"""The TFDS builder: what is annotated is what is read back."""

import json
import pathlib
import re
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from input_pipeline.hico_det import builder, folder, split_files, splits
from input_pipeline.io.errors import InputError
from tests.fixtures import hico_fixture
from tests.fixtures.hico_fixture import WORDS

FIELDS = ("name", "height", "width")
ARRAYS = ("boxes", "objects", "pairs", "labels")


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
  return hico_fixture.write(tmp_path_factory.mktemp("data") / "Hico", "qpic")


@pytest.fixture(scope="module")
def dataset(directory, tmp_path_factory):
  return builder.prepare(directory, tmp_path_factory.mktemp("tfds"))


def test_records_survive_the_build(directory, dataset):
  layout = folder.find(directory)
  for name in folder.SPLITS:
    expected = folder.read_records(layout, name, WORDS)
    found = dataset.split(name)
    assert found.names == tuple(hico_fixture.IMAGES[name])
    assert len(found) == len(expected)
    for a, b in zip(found.records, expected, strict=True):
      assert [getattr(a, f) for f in FIELDS] == [getattr(b, f) for f in FIELDS]
      for field in ARRAYS:
        x, y = getattr(a, field), getattr(b, field)
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        np.testing.assert_array_equal(x, y)


def test_an_image_without_labels_is_part_of_the_test(dataset):
  record = dataset.split("test").records[1]
  assert record.name == "HICO_test2015_00000002.jpg"
  assert record.boxes.shape == (0, 4)
  assert record.labels.shape == (0, 2)


def test_pixels_are_the_images(directory, dataset):
  split = dataset.split("test")
  path = directory / "images" / "test2015" / split.names[2]
  with Image.open(path) as image:
    np.testing.assert_array_equal(np.asarray(split.image(2)), np.asarray(image))
  canvas = split.letterboxed_sizes([2, 0], (16, 8))
  assert canvas[16].shape == (2, 16, 16, 3)
  assert canvas[8].dtype == np.uint8


def test_seen_only_keeps_images_and_records_together(directory, dataset):
  """Image 1 is dropped by pair, so places shift by one."""
  split = splits.load("UV", WORDS)
  found = dataset.split("train").seen_only(split, "pair")
  names = tuple(hico_fixture.IMAGES["train"])
  assert found.names == names[1:]
  for index, name in enumerate(found.names):
    path = directory / "images" / "train2015" / name
    with Image.open(path) as image:
      pixels = np.asarray(image)
    np.testing.assert_array_equal(np.asarray(found.image(index)), pixels)
  unseen = split.unseen
  assert not any(unseen[r.labels[:, 1]].any() for r in found.records)
  by_label = dataset.split("train").seen_only(split, "label")
  assert by_label.names == names
  everything = splits.ZeroShot("all", np.ones(600, bool), "")
  with pytest.raises(InputError, match="no image of 'train'"):
    found.seen_only(everything, "label")


def test_metadata(dataset):
  about = dataset.builder.info.metadata
  assert about["form"] == "qpic"
  assert about["statistics"]["train"]["labels"] == 7
  assert about["classes"]["texts"] == list(WORDS.texts)
  assert set(about["checksums"]) == {"trainval_hico.json", "test_hico.json"}
  assert dataset.name.startswith("hico_qpic_")
  with pytest.raises(InputError, match="no split 'dev'"):
    dataset.split("dev")


def test_plain_tfds_builds_the_same(directory, dataset, tmp_path):
  plain = builder.HicoDet(config="manual", data_dir=str(tmp_path))
  plain.download_and_prepare(
    download_config=tfds.download.DownloadConfig(manual_dir=str(directory))
  )
  rows = list(tfds.as_numpy(plain.as_dataset(split="train")))
  assert [row["image_name"].decode() for row in rows] == list(
    dataset.split("train").names
  )
  np.testing.assert_array_equal(
    rows[1]["labels"], dataset.split("train").records[1].labels
  )


def test_a_built_dataset_is_found_and_a_changed_folder_is_another(tmp_path):
  directory = hico_fixture.write(tmp_path / "hico", "upt")
  first = builder.prepare(directory, tmp_path / "tfds")
  path = pathlib.Path(first.builder.data_path) / "dataset_info.json"
  written = path.stat().st_mtime_ns
  again = builder.prepare(directory, tmp_path / "tfds")
  assert again.fingerprint == first.fingerprint
  assert path.stat().st_mtime_ns == written
  where = directory / "annotations" / "instances_train2015.json"
  content = json.loads(where.read_text())
  content["annotation"][0]["boxes_h"][0][0] += 1
  where.write_text(json.dumps(content))
  assert builder.prepare(directory, tmp_path / "tfds").name != first.name


def test_what_is_broken_can_be_left_out(tmp_path, capsys):
  """A label of a box that is not there, a cut image, one that is absent."""
  directory = hico_fixture.write(tmp_path / "hico", "qpic")
  where = directory / "annotations" / "trainval_hico.json"
  content = json.loads(where.read_text())
  content[1]["hoi_annotation"][0]["object_id"] = 9
  where.write_text(json.dumps(content))
  images = directory / "images" / "train2015"
  cut, absent = (images / content[i]["file_name"] for i in (2, 3))
  cut.write_bytes(cut.read_bytes()[:400])
  absent.unlink()
  assert builder.main([str(directory), "--form=qpic"]) == 2
  assert "object_id 9, there are" in capsys.readouterr().err
  assert builder.main([str(directory), "--skip-broken"]) == 0
  said = capsys.readouterr().out
  assert "train  1 images" in said
  assert "3 images left out, see above" in said
  assert said.count("left out: ") == 3
  found = builder.prepare(directory, tmp_path / "tfds", skip_broken=True)
  assert found.name.endswith("_without_broken")
  left = tuple(hico_fixture.IMAGES["train"])
  assert set(found.broken) == set(left[1:])
  assert found.split("train").names == left[:1]
  assert len(found.split("test")) == 3
  out = tmp_path / "split.json"
  arguments = [str(directory), "--split=UO", f"--out={out}"]
  assert split_files.main(arguments) == 2
  assert split_files.main([*arguments, "--skip-broken"]) == 0
  assert json.loads(out.read_text())["training"]["images"] == 1
  for path in images.iterdir():
    path.unlink()
  assert builder.main([str(directory), "--skip-broken"]) == 2
  assert "none of 4 images of the split 'train'" in capsys.readouterr().err


def test_a_broken_image_leaves_nothing_built(tmp_path, capsys):
  directory = hico_fixture.write(tmp_path / "hico", "upt")
  name = "HICO_test2015_00000003.jpg"
  path = directory / "images" / "test2015" / name
  path.write_bytes(path.read_bytes()[:400])
  assert builder.main([str(directory)]) == 2
  said = capsys.readouterr().err
  assert name in said
  assert "cannot be decoded" in said
  assert not list((tmp_path / "tfds").rglob("dataset_info.json"))
  path.unlink()
  assert builder.main([str(directory)]) == 2
  assert f"lacks 1 of 3 images of instances_test2015.json: {name}" in (
    capsys.readouterr().err
  )


@pytest.mark.parametrize(
  "name", ["metadata.json", "hico_det-test.array_record"]
)
@pytest.mark.parametrize("kind", ["flipped", "cut off", "missing", "another"])
def test_damaged_files_of_the_dataset_are_named(
  directory, dataset, tmp_path, name, kind
):
  place = pathlib.Path(dataset.builder.data_dir)
  root = tmp_path / "tfds"
  shutil.copytree(place.parents[2], root)
  (path,) = (root / place.relative_to(place.parents[2])).glob(f"{name}*")
  content = path.read_bytes()
  if kind == "flipped":
    middle = len(content) // 2
    byte = bytes([content[middle] ^ 1])
    path.write_bytes(content[:middle] + byte + content[middle + 1 :])
  elif kind == "cut off":
    path.write_bytes(content[: len(content) // 2])
  elif kind == "missing":
    path.unlink()
  else:  # a whole file of another build
    other = hico_fixture.write(tmp_path / "Hico", "qpic")
    image = next((other / "images" / "test2015").iterdir())
    Image.new("RGB", (hico_fixture.WIDTH, hico_fixture.HEIGHT)).save(image)
    built = builder.prepare(other, tmp_path / "other").builder.data_dir
    shutil.copy(pathlib.Path(built) / path.name, path)
  told = rf"{re.escape(path.name)}|was built from another folder"
  with pytest.raises(InputError, match=told) as error:
    builder.prepare(directory, root).split("test")
  assert "delete" in error.value.remedy


def test_a_place_that_cannot_be_written_is_told_first(directory, tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(InputError, match="datasets cannot be written there"):
    builder.prepare(directory, tmp_path / "file" / "tfds")
