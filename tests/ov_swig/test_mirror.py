"""The mirrored view: pixels, boxes and words agree, or it is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from input_pipeline import schema
from input_pipeline.geometry import Letterbox, letterbox_image
from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig import mirror
from mipd_jax.rationales import wording

SIDES = st.integers(2, 700)


@st.composite
def _sized_boxes(draw):
  height, width = draw(SIDES), draw(SIDES)
  count = draw(st.integers(0, 6))
  rows = []
  for _ in range(count):
    x = sorted(draw(st.tuples(st.integers(0, width), st.integers(0, width))))
    y = sorted(draw(st.tuples(st.integers(0, height), st.integers(0, height))))
    rows.append([x[0], y[0], x[1], y[1]])
  rows.append([-1, -1, -1, -1])
  return height, width, np.array(rows, np.float32)


@given(_sized_boxes())
@settings(max_examples=150, deadline=None)
def test_boxes_on_the_canvas_and_in_pixels_agree(case):
  height, width, boxes = case
  box = Letterbox(height, width)
  there = mirror.mirror_pixel_boxes(boxes, width)
  canvas = mirror.mirror_boxes(box.boxes_to_canvas(boxes))
  np.testing.assert_allclose(canvas, box.boxes_to_canvas(there), atol=1e-6)
  np.testing.assert_array_equal(mirror.mirror_pixel_boxes(there, width), boxes)
  assert canvas.dtype == np.float32 and there.dtype == np.float32
  assert (canvas[-1] == -1).all() and (there[-1] == -1).all()


@pytest.mark.parametrize("shape", [(90, 160), (160, 90), (51, 97), (64, 64)])
def test_a_mark_is_found_by_its_mirrored_box(shape):
  height, width = shape
  image = Image.new("RGB", (width, height))
  box = (5, 10, 25, 40)
  image.paste((255, 0, 0), box)
  size = 320
  pixels = mirror.mirror_pixels(letterbox_image(image, size))
  red = (pixels[..., 0] > 200) & (pixels[..., 1] < 50)
  rows, columns = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
  canvas = Letterbox(height, width).boxes_to_canvas(np.array([box]))
  cx, cy, w, h = mirror.mirror_boxes(canvas)[0] * size
  found = [columns[0], columns[-1] + 1, rows[0], rows[-1] + 1]
  wanted = [cx - w / 2, cx + w / 2, cy - h / 2, cy + h / 2]
  np.testing.assert_allclose(found, wanted, atol=2.5)


def test_pixels_are_those_of_the_mirrored_image():
  rng = np.random.default_rng(0)
  pixels = rng.integers(0, 256, (3, 20, 40, 3), dtype=np.uint8)
  flipped = mirror.mirror_pixels(pixels)
  assert flipped.flags.c_contiguous and flipped.shape == pixels.shape
  image = mirror.mirror_image(Image.fromarray(pixels[1]))
  np.testing.assert_array_equal(np.asarray(image), flipped[1])
  np.testing.assert_array_equal(mirror.mirror_pixels(flipped), pixels)


def test_annotations_change_in_their_boxes_alone():
  boxes = np.full((2, 6, 4), -1, np.float32)
  boxes[0, 0] = [0.25, 0.5, 0.1, 0.2]
  columns = {schema.BOXES: boxes, schema.VERB: np.array([1, 2])}
  found = mirror.mirror_annotations(columns)
  np.testing.assert_allclose(found[schema.BOXES][0, 0], [0.75, 0.5, 0.1, 0.2])
  assert (found[schema.BOXES][1] == -1).all()
  assert found[schema.VERB] is columns[schema.VERB]
  assert boxes[0, 0, 0] == 0.25  # The original is left as it was.


SWAPPED = [
  ("a man on the left of a dog", "a man on the right of a dog"),
  ("Left hand up, then turn right.", "Right hand up, then turn left."),
  ("from left to right", "from right to left"),
  ("the left and right arms", "the right and left arms"),
  ("a dog in the top left corner", "a dog in the top right corner"),
  ("a LEFT-handed man", "a RIGHT-handed man"),
  (
    "the leftmost cup turns clockwise",
    "the rightmost cup turns counterclockwise",
  ),
  ("counter-clockwise", "clockwise"),
  ("to her right, a boy", "to her left, a boy"),
  (
    "agent: a dog, furry animal, small top left. item: a ball, right",
    "agent: a dog, furry animal, small top right. item: a ball, left",
  ),
  # No places: they stay.
  ("all right, at right angles, right now", None),
  ("leftovers of a bright and upright copyright", None),
  ("nothing of the kind", None),
  ("", None),
]


@pytest.mark.parametrize(("text", "mirrored"), SWAPPED)
def test_places_are_exchanged(text, mirrored):
  assert mirror.mirror_text(text) == (text if mirrored is None else mirrored)


@pytest.mark.parametrize("text", [a for a, _ in SWAPPED if "counter-" not in a])
def test_twice_is_the_same(text):
  assert mirror.mirror_text(mirror.mirror_text(text)) == text


@pytest.mark.parametrize(
  "text",
  [
    "the man left the room",
    "She left shoes behind her",
    "what is left of the cake",
    "the right tool for it",
    "on the right track",
    "looking right at the camera",
    "a man on the left with the right tool",
  ],
)
def test_what_may_be_no_place_is_refused(text):
  with pytest.raises(InputError) as error:
    mirror.mirror_text(text, "train.json: image a.jpg")
  assert repr(text) in error.value.problem
  assert error.value.problem.startswith("train.json: image a.jpg: ")
  with pytest.raises(InputError, match="cannot be mirrored"):
    mirror.mirror_texts(["on the left", text])


@given(st.floats(0.02, 0.98), st.floats(0, 1), st.floats(0.01, 1))
@settings(max_examples=100, deadline=None)
def test_templates_say_the_mirrored_place(x, y, side):
  """A template text of the mirrored box is the mirrored template text."""
  box = np.array([x, y, side, side], np.float32)
  flipped = mirror.mirror_boxes(box)

  def text(where):
    return f"agent: a dog, furry animal, {wording.position(where)}. item: a cup"

  if min(abs(box[0] * 3 % 1 - edge) for edge in (0, 1)) > 1e-3:
    assert mirror.mirror_text(text(box)) == text(flipped)
