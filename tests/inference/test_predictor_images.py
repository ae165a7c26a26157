"""Any image: upright, RGB, in bounded memory, or one clear message."""

import io
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from input_pipeline.io.errors import InputError
from mipd_jax.inference import pictures
from tests.fixtures import predict_fixture
from tests.fixtures.pipeline_fixture import ROOT

T = Image.Transpose
# EXIF orientation -> how a camera stored the upright picture.
STORED = {
  2: T.FLIP_LEFT_RIGHT,
  3: T.ROTATE_180,
  4: T.FLIP_TOP_BOTTOM,
  5: T.TRANSPOSE,
  6: T.ROTATE_90,
  7: T.TRANSVERSE,
  8: T.ROTATE_270,
}
UPRIGHT = predict_fixture.photograph(0, 40, 28)


def _open(source):
  return pictures.open_image(source, pictures.name_of(source, 0))


def _tagged(turn: int, image=UPRIGHT):
  exif = Image.Exif()
  exif[0x0112] = turn
  return image.transpose(STORED[turn]), exif.tobytes()


@pytest.mark.parametrize("turn", STORED)
def test_photographs_are_turned_upright(tmp_path, turn):
  stored, exif = _tagged(turn)
  # Pillow itself turns TIFF: not a second time.
  stored.save(tmp_path / "a.tiff", exif=exif)
  found = _open(tmp_path / "a.tiff")
  np.testing.assert_array_equal(found.pixels, UPRIGHT)
  assert (found.width, found.height) == (40, 28)
  stored.save(tmp_path / "a.png", exif=exif)
  found = _open(tmp_path / "a.png")
  np.testing.assert_array_equal(found.pixels, UPRIGHT)
  assert (found.width, found.height) == (40, 28)
  assert found.notes == ("turned upright",)
  # An image that is open already, too; and it is left as it was.
  with Image.open(tmp_path / "a.png") as image:
    np.testing.assert_array_equal(_open(image).pixels, UPRIGHT)
    assert image.size == stored.size and image.getexif()[0x0112] == turn


def test_boxes_of_a_turned_photograph_are_in_upright_pixels(tmp_path):
  predictor = predict_fixture.predictor()
  stored, exif = _tagged(6)
  stored.save(tmp_path / "turned.png", exif=exif)
  turned, upright = predictor.predict([tmp_path / "turned.png", UPRIGHT])
  assert (turned.width, turned.height) == (40, 28)
  assert turned.roles == upright.roles and turned.verbs == upright.verbs
  assert turned.notes == ("turned upright",) and upright.notes == ()


def test_colour_models(tmp_path):
  red = Image.new("RGB", (8, 8), (200, 30, 40))
  red.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100)
  found = np.asarray(_open(tmp_path / "cmyk.jpg").pixels, int)
  assert np.abs(found - (200, 30, 40)).max() < 12
  clear = Image.new("RGBA", (8, 8), (200, 30, 40, 0))
  clear.putpixel((0, 0), (200, 30, 40, 255))
  clear.save(tmp_path / "clear.png")
  found = _open(tmp_path / "clear.png").pixels
  assert found.getpixel((0, 0)) == (200, 30, 40)
  assert found.getpixel((1, 0)) == (255, 255, 255)
  grey = np.full((8, 8), 128 * 257, np.uint16)
  Image.fromarray(grey).save(tmp_path / "grey.png")
  assert _open(tmp_path / "grey.png").pixels.getpixel((0, 0)) == (128,) * 3
  for mode in ("1", "L", "P", "LA", "YCbCr", "HSV", "LAB"):
    image = UPRIGHT.convert("RGB").convert(mode) if mode != "LAB" else None
    if image is None:
      image = Image.new("LAB", (8, 8))
    assert _open(image).pixels.mode == "RGB"


def test_of_an_animation_the_first_frame_is_taken(tmp_path):
  frames = [Image.new("RGB", (9, 7), colour) for colour in ("red", "blue")]
  frames[0].save(
    tmp_path / "a.gif", save_all=True, append_images=frames[1:] * 2
  )
  found = _open(tmp_path / "a.gif")
  assert found.pixels.getpixel((4, 4)) == (255, 0, 0)
  assert len(found.notes) == 1 and found.notes[0].startswith("the first of ")
  # What some cameras write holds two pictures and is no animation.
  frames[0].save(
    tmp_path / "a.mpo", "MPO", save_all=True, append_images=frames[1:]
  )
  assert _open(tmp_path / "a.mpo").notes == ()


@pytest.mark.parametrize("size", [(1, 1), (20_000, 10), (10, 20_000)])
def test_extreme_shapes(tmp_path, size):
  Image.new("RGB", size, "green").save(tmp_path / "a.png")
  found = _open(tmp_path / "a.png")
  assert (found.width, found.height) == size and found.pixels.size == size


def test_bad_files_are_named(tmp_path):
  whole = tmp_path / "whole.jpg"
  UPRIGHT.resize((200, 200)).save(whole)
  contents = {
    "text.jpg": b"no picture",
    "empty.png": b"",
    "cut.jpg": whole.read_bytes()[:2000],
    "drawing.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "print.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
  }
  for name, content in contents.items():
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name) as error:
      _open(tmp_path / name)
    assert "\n" not in error.value.problem and error.value.remedy
  for path in (tmp_path, tmp_path / "absent.jpg"):
    with pytest.raises(InputError, match=path.name):
      _open(path)


@pytest.mark.parametrize(
  ("array", "said"),
  [
    (np.zeros((4, 4, 2), np.uint8), r"\[4, 4, 2\]"),
    (np.zeros((0, 4, 3), np.uint8), r"\[0, 4, 3\]"),
    (np.zeros((4, 4, 3), np.int64), "int64"),
    (np.full((4, 4, 3), 255.0), "floats from 255.0"),
    (np.full((4, 4, 3), np.nan), "floats from nan"),
    (np.zeros(4, np.uint8), r"\[4\]"),
    (b"\x89PNG", "bytes and open files"),
    (io.BytesIO(), "bytes and open files"),
    (Image.new("RGB", (0, 5)), "0 x 5 pixels"),
  ],
)
def test_arrays_that_are_no_image(array, said):
  with pytest.raises(InputError, match=said):
    _open(array)


def test_arrays_that_are():
  colour = np.asarray(UPRIGHT)
  np.testing.assert_array_equal(_open(colour).pixels, colour)
  np.testing.assert_array_equal(_open(colour / 255).pixels, colour)
  for shape in ((5, 6), (5, 6, 1), (5, 6, 4)):
    assert _open(np.full(shape, 255, np.uint8)).pixels.size == (6, 5)


_PEAK = """
import sys
from mipd_jax.inference import pictures as images
def peak():  # getrusage would count what the parent of this process had
  lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
  return int(lines["VmHWM"].split()[0]) / 1024
images.open_image(sys.argv[2], "first")
before = peak()
found = images.open_image(sys.argv[1], "large")
print(peak() - before, found.width, found.height, *found.pixels.size)
"""


@pytest.mark.skipif(
  not pathlib.Path("/proc/self/status").exists(), reason="no /proc here"
)
@pytest.mark.parametrize(("suffix", "most"), [("jpg", 60), ("png", 460)])
def test_a_hundred_megapixels_in_bounded_memory(tmp_path, suffix, most):
  """MiB above a small image's; a PNG has to be decoded whole (RGB: 400)."""
  large, small = tmp_path / f"large.{suffix}", tmp_path / f"small.{suffix}"
  Image.new("RGB", (10_000, 10_000), "teal").save(large, compress_level=1)
  UPRIGHT.save(small)
  done = subprocess.run(
    [sys.executable, "-c", _PEAK, str(large), str(small)],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  used, *sizes = done.stdout.split()
  assert float(used) < most
  assert sizes[:2] == ["10000", "10000"]
  assert 2048 <= int(sizes[2]) <= 4096


def test_too_many_pixels_are_refused_before_they_are_decoded(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(pictures, "LARGE", 100)
  monkeypatch.setattr(pictures, "KEPT", 8)
  monkeypatch.setattr(pictures, "MOST_PIXELS", 500)
  Image.new("RGB", (40, 28)).save(tmp_path / "a.png")
  Image.new("RGB", (40, 28)).save(tmp_path / "a.jpg")
  with pytest.raises(InputError, match=r"a.png: 40 x 28 pixels are too many"):
    _open(tmp_path / "a.png")
  found = _open(tmp_path / "a.jpg")
  assert (found.width, found.height) == (40, 28)
  assert max(found.pixels.size) <= 20
  # A bomb that Pillow itself refuses.
  monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
  with pytest.raises(InputError, match=r"a.png: .*exceeds limit"):
    _open(tmp_path / "a.png")
