"""One geometry: boxes go there and back, and pixels lie where boxes say."""

import json
import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from input_pipeline import boxes
from input_pipeline.geometry import BORDER_RGB, Letterbox, letterbox_image

ROOT = pathlib.Path(__file__).resolve().parents[2]
SIDES = st.integers(1, 2000)


@st.composite
def _image_and_boxes(draw):
  height, width = draw(SIDES), draw(SIDES)
  share = st.floats(0, 1, width=32)
  boxes = draw(st.lists(st.tuples(share, share, share, share), max_size=6))
  scale = np.array([width, height, width, height])
  corners = np.array(boxes, np.float64).reshape(-1, 4) * scale
  low = np.minimum(corners[:, :2], corners[:, 2:])
  high = np.maximum(corners[:, :2], corners[:, 2:])
  return height, width, np.concatenate([low, high], axis=1)


@given(_image_and_boxes())
@settings(max_examples=200, deadline=None)
def test_boxes_there_and_back(case):
  height, width, boxes = case
  letterbox = Letterbox(height, width)
  canvas = letterbox.boxes_to_canvas(boxes)
  assert canvas.dtype == np.float32
  np.testing.assert_allclose(
    letterbox.boxes_to_pixels(canvas), boxes, rtol=0, atol=1e-3
  )
  low, high = canvas[:, :2] - canvas[:, 2:] / 2, canvas[:, :2] + canvas[:, 2:]
  assert (low >= -1e-6).all() and (canvas[:, 2:] <= 1 + 1e-6).all()
  assert (high >= low).all()


@st.composite
def _whole_boxes(draw):
  """Annotated boxes: corners are whole pixels, as SWiG has them."""
  height, width = draw(st.integers(1, 8192)), draw(st.integers(1, 8192))
  boxes = []
  for _ in range(draw(st.integers(1, 6))):
    x1, y1 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    x2 = draw(st.integers(x1 + 1, width))
    y2 = draw(st.integers(y1 + 1, height))
    boxes.append((x1, y1, x2, y2))
  return height, width, np.array([*boxes, (-1, -1, -1, -1)])


@given(_whole_boxes())
@settings(max_examples=300, deadline=None)
def test_whole_pixels_come_back_exactly(case):
  height, width, boxes = case
  letterbox = Letterbox(height, width)
  there = letterbox.boxes_to_canvas(boxes)
  np.testing.assert_array_equal(
    np.rint(letterbox.boxes_to_pixels(there)), boxes
  )


REAL = ROOT.parent / "shared" / "data" / "swig" / "samples_with_boxes.json"


@pytest.mark.skipif(not REAL.exists(), reason="no ../shared/data/swig")
@pytest.mark.parametrize("size", [224, 336, 448])
def test_real_boxes_come_back_exactly(size):
  """The complete records of SWiG, also through the pixels of a canvas."""
  records = json.loads(REAL.read_text())
  assert len(records) == 3
  for record in records.values():
    letterbox = Letterbox(record["height"], record["width"])
    boxes = np.array(list(record["bb"].values()))
    assert (boxes[:, 0] >= 0).any()
    canvas = letterbox.boxes_to_canvas(boxes)
    np.testing.assert_array_equal(
      np.rint(letterbox.boxes_to_pixels(canvas)), boxes
    )
    # A model's boxes are shares of the canvas, drawings are pixels of it.
    drawn = canvas * np.float32(size)
    back = np.where(canvas[:, 2:3] < 0, -1, drawn / np.float32(size))
    np.testing.assert_array_equal(
      np.rint(letterbox.boxes_to_pixels(back)), boxes
    )


def test_known_values():
  # 200 wide, 100 high: full width; a quarter of the canvas above and below.
  letterbox = Letterbox(height=100, width=200)
  assert letterbox.offset == (0, 0.25)
  boxes = [[0, 0, 200, 100], [50, 0, 150, 50], [-1, -1, -1, -1]]
  canvas = letterbox.boxes_to_canvas(np.array(boxes))
  np.testing.assert_allclose(
    canvas,
    [[0.5, 0.5, 1, 0.5], [0.5, 0.375, 0.5, 0.25], [-1, -1, -1, -1]],
  )
  np.testing.assert_allclose(letterbox.boxes_to_pixels(canvas), boxes)


@pytest.mark.parametrize("leading", [(), (3,), (2, 3)])
def test_any_leading_axes(leading):
  boxes = np.tile(np.array([10.0, 20, 30, 60]), (*leading, 1))
  canvas = Letterbox(80, 50).boxes_to_canvas(boxes)
  assert canvas.shape == (*leading, 4)
  np.testing.assert_allclose(
    Letterbox(80, 50).boxes_to_pixels(canvas), boxes, rtol=1e-5
  )


@pytest.mark.parametrize("size", [48, 224, 336])
@pytest.mark.parametrize("shape", [(60, 60), (50, 97), (111, 64), (9, 300)])
def test_the_image_lies_where_the_geometry_says(shape, size):
  height, width = shape
  white = Image.new("RGB", (width, height), (255, 255, 255))
  pixels = letterbox_image(white, size)
  assert pixels.shape == (size, size, 3) and pixels.dtype == np.uint8
  drawn = (pixels != np.array(BORDER_RGB)).any(-1)
  rows, columns = np.flatnonzero(drawn.any(1)), np.flatnonzero(drawn.any(0))
  found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
  whole = np.array([[0, 0, width, height]])
  cx, cy, w, h = Letterbox(height, width).boxes_to_canvas(whole)[0] * size
  wanted = [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]
  np.testing.assert_allclose(found, wanted, atol=1)
  assert (pixels[~drawn] == BORDER_RGB).all()


def test_a_mark_in_the_image_is_found_by_its_box():
  image = Image.new("RGB", (160, 90), (0, 0, 0))
  box = (100, 30, 130, 60)
  image.paste((255, 0, 0), box)
  size = 320
  pixels = letterbox_image(image, size)
  red = (pixels[..., 0] > 200) & (pixels[..., 1] < 50)
  rows, columns = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
  cx, cy, w, h = Letterbox(90, 160).boxes_to_canvas(np.array([box]))[0] * size
  np.testing.assert_allclose(
    [columns[0], columns[-1] + 1], [cx - w / 2, cx + w / 2], atol=2
  )
  np.testing.assert_allclose(
    [rows[0], rows[-1] + 1], [cy - h / 2, cy + h / 2], atol=2
  )


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_other_colour_modes(mode):
  image = Image.new("RGB", (20, 10), (200, 200, 200)).convert(mode)
  pixels = letterbox_image(image, 20)
  assert pixels.shape == (20, 20, 3)
  assert abs(int(pixels[10, 10, 0]) - 200) < 5


@given(_image_and_boxes())
@settings(max_examples=100, deadline=None)
def test_many_sizes_at_once_are_the_same_bits(case):
  height, width, pixels = case
  sizes = np.array([height, width])
  canvas = boxes.to_canvas(pixels, sizes)
  np.testing.assert_array_equal(
    canvas, Letterbox(height, width).boxes_to_canvas(pixels)
  )
  back = boxes.from_canvas(canvas, sizes)
  np.testing.assert_allclose(back, pixels, rtol=0, atol=1e-3)


@given(_whole_boxes())
@settings(max_examples=100, deadline=None)
def test_annotated_whole_pixels_are_kept_whole(case):
  height, width, pixels = case
  there = pixels[pixels[:, 0] >= 0].astype(float)
  sizes = np.array([height, width])
  np.testing.assert_array_equal(boxes.as_kept(there, sizes), there)


@pytest.mark.parametrize(
  ("value", "absent", "box"),
  [
    (None, True, False),
    ([-1, -1, -1, -1], True, True),
    ([-1, 10, 50, 50], True, True),
    ([-1.0, 10, 50, 50], True, True),
    ([-2, 10, 50, 50], False, True),
    ([0, -1, 50, 50], False, True),
    ([-1, 10, 50], False, False),
    ([-1, "10", 50, 50], False, False),
    ([True, 1, 2, 3], False, False),
    ([0, 0, 1, 10**400], False, False),
    ([0, 0, 1, float("nan")], False, False),
    ({"x1": -1}, False, False),
    (-1, False, False),
  ],
)
def test_what_stands_for_no_box(value, absent, box):
  assert boxes.is_absent(value) == absent
  assert boxes.is_box(value) == box


def test_cutting():
  corners = [[-5, -5, 150, 150], [90, 120, 95, 150], [np.nan] * 4]
  found = boxes.cut(corners, [100, 80])
  wanted = [[0, 0, 80, 100], [80, 100, 80, 100], [np.nan] * 4]
  np.testing.assert_array_equal(found, wanted)
  unknown = boxes.cut(corners[0], [np.nan, np.nan])
  np.testing.assert_array_equal(unknown, [0, 0, 150, 150])
