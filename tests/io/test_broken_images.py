"""Images that cannot be decoded: named; left out and counted if allowed."""

import io

import numpy as np
import pytest
from PIL import Image

from input_pipeline.io import images
from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig import __main__ as command
from input_pipeline.ov_swig import builder
from input_pipeline.ov_swig import folder as folder_module
from input_pipeline.ov_swig import layout as folder_lib
from input_pipeline.ov_swig.splits import groups
from tests.fixtures import swig_fixture

# By what is wrong with it; a missing one would be found without reading.
BROKEN = {
  "jumping_train_0.jpg": "cannot be decoded",  # garbled inside
  "eating_dev_1.jpg": "cannot be decoded",  # no image
  "raining_test_0.jpg": "cannot be read",  # missing
}


@pytest.fixture
def folder(tmp_path):
  folder = swig_fixture.write(tmp_path / "swig", per_verb=2)
  garbled, foreign, missing = (folder / "images_512" / name for name in BROKEN)
  whole = garbled.read_bytes()
  garbled.write_bytes(garble(whole))
  foreign.write_bytes(b"<html>not found")
  missing.unlink()
  return folder


def garble(content: bytes) -> bytes:
  """A JPEG with a wrong length in its tables; both its ends are whole."""
  start = content.index(b"\xff\xc4")
  return content[: start + 2] + b"\x00\x07" + content[start + 4 :]


def test_garbled_data_is_found_though_both_ends_are_whole():
  rng = np.random.default_rng(0)
  pixels = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
  for kind in ("JPEG", "PNG"):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    whole = buffer.getvalue()
    images.check(whole, "a", (60, 80))
    half = len(whole) // 2
    broken = (
      garble(whole) if kind == "JPEG" else whole[:half] + whole[half:][9:]
    )
    for read in (
      lambda content: images.check(content, "a.jpg", None),
      lambda content: images.decode(content, "a.jpg"),
    ):
      with pytest.raises(InputError, match=r"a\.jpg cannot be decoded"):
        read(broken)


RAMP = np.arange(0, 256, dtype=np.uint8).reshape(16, 16)


@pytest.mark.parametrize(
  ("stored", "kind", "seen"),
  [
    (RAMP, "PNG", RAMP),
    (RAMP.astype(np.uint16) * 257, "PNG", RAMP),
    (RAMP.astype(np.int32) * 257, "TIFF", RAMP),
    (RAMP.astype(np.float32) / 255, "TIFF", RAMP),
    # Transparent parts are white, as the predictor has them.
    (np.stack([RAMP, RAMP * 0], -1), "PNG", RAMP * 0 + 255),
    (np.stack([RAMP] * 3 + [RAMP * 0 + 255], -1), "PNG", RAMP),
  ],
)
def test_all_kinds_of_greys_are_seen(stored, kind, seen):
  buffer = io.BytesIO()
  Image.fromarray(stored).save(buffer, kind)
  image = images.decode(buffer.getvalue(), "a")
  assert image.mode == "RGB"
  np.testing.assert_array_equal(np.asarray(image), np.stack([seen] * 3, -1))


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_orientation_tags_turn_nothing(tmp_path, kind, turn):
  """Boxes are those of the stored pixels; Pillow itself turns only TIFF."""
  stored = RAMP[:10]
  exif = Image.Exif()
  exif[0x0112] = turn
  Image.fromarray(stored).save(tmp_path / "a", kind, exif=exif)
  content = (tmp_path / "a").read_bytes()
  image = images.decode(content, "a")
  np.testing.assert_array_equal(np.asarray(image)[..., 0], stored)
  images.check(content, "a", (10, 16))
  assert images.read_size(tmp_path / "a") == (10, 16)
  with pytest.raises(InputError, match="16 x 10") as error:
    images.check(content, "a", (16, 10))
  assert ("its orientation tag" in str(error.value)) == (turn > 1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "GIF", "WEBP", "BMP"])
def test_damage_of_any_kind_is_one_error(kind):
  """Pillow's readers raise struct.error, IndexError and others."""
  rng = np.random.default_rng(0)
  buffer = io.BytesIO()
  pixels = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
  Image.fromarray(pixels).save(buffer, kind)
  whole = buffer.getvalue()
  for _ in range(30):
    spoilt = np.frombuffer(whole, np.uint8).copy()
    places = rng.integers(0, min(len(spoilt), 120), 4)
    spoilt[places] = rng.integers(0, 256, 4)
    for read in (images.check, images.decode):
      arguments = (None,) if read is images.check else ()
      try:
        read(spoilt.tobytes(), "a", *arguments)
      except InputError as error:
        assert "image a cannot be decoded: " in error.problem
    images.is_turned(spoilt.tobytes())


def test_refused_unless_allowed(folder, tmp_path):
  with pytest.raises(InputError, match=r"lacks 1 of 12 .*raining_test_0\.jpg"):
    builder.prepare(folder, tmp_path / "data")


def test_left_out_named_and_counted(folder, tmp_path, capsys):
  data = tmp_path / "data"
  arguments = ["--build", str(folder), "--data-dir", str(data)]
  assert command.main(arguments) == 1
  assert command.main([*arguments, "--skip-broken"]) == 0
  out = capsys.readouterr().out
  assert "3 broken images left out" in out
  for name, problem in BROKEN.items():
    (line,) = [line for line in out.splitlines() if name in line]
    assert problem in line

  dataset = builder.prepare(folder, data, skip_broken=True)
  assert dataset.broken == tuple(BROKEN)
  about = dataset.builder.info.metadata
  assert [row["file"] for row in about["broken"]] == [
    f"{split}.json" for split in folder_lib.SPLITS
  ]
  assert about["statistics"]["dev"]["images"] == 11
  for split, count in {"train": 9, "dev": 11, "test": 11}.items():
    images_of = dataset.split(split)
    assert len(images_of) == count and not BROKEN.keys() & set(images_of.names)
    assert about["images"][split] == {
      "images": count,
      "sha256": groups.names_digest(images_of.names),
    }
    assert len(images_of.letterboxed(range(count), 16)) == count


def test_the_split_file_counts_all_records(folder):
  path = folder / "SWiG_jsons" / "ov_splits.json"
  path.unlink()
  content = folder_module.read_folder(folder, skip_broken=True)
  assert swig_fixture.load(path)["images"]["dev"]["images"] == 12
  assert content.images["dev"]["images"] == 11
  assert len(content.broken) == 3


def test_nothing_changes_where_all_are_whole(tmp_path):
  folder = swig_fixture.write(tmp_path / "swig", per_verb=1)
  strict = builder.prepare(folder, tmp_path / "data")
  lenient = builder.prepare(folder, tmp_path / "data", skip_broken=True)
  assert lenient.broken == () and lenient.name != strict.name
  for split in folder_lib.SPLITS:
    assert lenient.split(split).names == strict.split(split).names


def test_another_size_is_refused_all_the_same(folder, tmp_path):
  """Boxes were drawn on another picture: no accident of one file."""
  path = folder / "images_512" / "jumping_dev_0.jpg"
  Image.new("RGB", (31, 37)).save(path)
  with pytest.raises(InputError, match="is 37 x 31 pixels"):
    builder.prepare(folder, tmp_path / "data", skip_broken=True)


def test_wrong_boxes_are_cut_or_dropped(tmp_path, capsys):
  folder = swig_fixture.write(tmp_path / "swig", per_verb=1)
  path = folder / "SWiG_jsons" / "train.json"
  records = swig_fixture.load(path)
  entry = records["cooking_train_0.jpg"]
  wide = entry["width"]
  boxes = {"agent": [5, 6, wide + 40, 30], "food": [9, 4, 9, 8], "tool": "x"}
  entry["bb"] |= boxes
  swig_fixture.dump(path, records)
  arguments = ["--build", str(folder), "--data-dir", str(tmp_path / "data")]
  assert command.main(arguments) == 1
  assert "role 'agent'" in capsys.readouterr().err
  assert command.main([*arguments, "--skip-broken"]) == 0
  assert "3 boxes cut or dropped" in capsys.readouterr().out

  dataset = builder.prepare(folder, tmp_path / "data", skip_broken=True)
  told = dataset.builder.info.metadata["wrong_boxes"]
  assert {row["role"] for row in told} == boxes.keys()
  assert {row["image"] for row in told} == {"cooking_train_0.jpg"}
  (record,) = (
    record
    for record in folder_module.read_folder(folder, skip_broken=True).splits[
      "train"
    ]
    if record.name == "cooking_train_0.jpg"
  )
  agent, food, _, _, tool, _ = record.boxes.tolist()
  assert agent == [5, 6, wide, 30]
  assert food == tool == [-1, -1, -1, -1]


def test_a_wrong_role_is_refused_all_the_same(folder):
  path = folder / "SWiG_jsons" / "train.json"
  records = swig_fixture.load(path)
  records["jumping_train_1.jpg"]["bb"]["food"] = [1, 1, 2, 2]
  swig_fixture.dump(path, records)
  with pytest.raises(InputError, match="has a role that the frame"):
    folder_module.read_folder(folder, skip_broken=True)


def test_a_split_of_broken_images_alone_is_refused(tmp_path):
  folder = swig_fixture.write(tmp_path / "swig", per_verb=1)
  for path in (folder / "images_512").glob("*_dev_*"):
    path.write_bytes(b"")
  with pytest.raises(InputError, match="all 6 images of the split 'dev'"):
    builder.prepare(folder, tmp_path / "data", skip_broken=True)
