"""Boxes land where they belong; the draw of examples is fair and fixed."""

import dataclasses

import numpy as np
import pytest
from PIL import Image, ImageColor, ImageDraw

from input_pipeline.io.errors import InputError
from mipd_jax.report import drawing, examples, sheets, style

GREY = 128


def role(true_box=None, predicted_box=None, noun="dog", name="agent"):
  return examples.RoleExample(
    name, ("dog", "dog", "puppy"), noun, true_box, predicted_box
  )


def example(roles, height=64, width=64, **changes):
  image = np.full((height, width, 3), GREY, np.uint8)
  made = examples.Example(
    image, "a_1.jpg", "rare", "jumping", "jumping", 0.5, roles
  )
  return dataclasses.replace(made, **changes)


def extent(picture: np.ndarray, colour: str) -> tuple[int, int, int, int]:
  """First and last column and row of a colour: x1, y1, x2, y2."""
  found = (picture == ImageColor.getrgb(colour)).all(-1)
  ys, xs = np.nonzero(found)
  return xs.min(), ys.min(), xs.max(), ys.max()


@pytest.mark.parametrize("dashed", [False, True])
@pytest.mark.parametrize(
  "box", [(10, 20, 50, 40), (0, 0, 64, 48), (33.3, 1, 34, 47)]
)
def test_box_corners_after_enlarging(box, dashed):
  picture, scale = drawing.fit_image(Image.new("RGB", (64, 48), "white"), 256)
  assert picture.size == (256, 192) and scale == 4.0
  canvas = Image.new("RGB", (400, 300), "white")
  corners = drawing.place_box(box, scale, (30, 50), picture.size)
  drawing.draw_box(ImageDraw.Draw(canvas), corners, "#FF0000", dashed)
  # Pixel 255 is the last one of a picture that is 256 wide.
  expected = (
    30 + 4 * box[0],
    50 + 4 * box[1],
    30 + min(4 * box[2], 255),
    50 + min(4 * box[3], 191),
  )
  np.testing.assert_allclose(
    extent(np.asarray(canvas), "#FF0000"), expected, atol=0.5
  )


def test_card_shows_truth_left_and_prediction_right():
  true_box, predicted_box = (16, 8, 48, 56), (4, 32, 60, 60)
  drawn = sheets.draw_card(example([role(true_box, predicted_box)]), 572)
  pixels = np.asarray(drawn)[sheets.HEADER : sheets.HEADER + 264]
  side = (572 - 2 * sheets.PAD - sheets.GAP) // 2
  scale = side / 64
  for column, box in ((0, true_box), (1, predicted_box)):
    left = sheets.PAD + column * (side + sheets.GAP)
    half = pixels[:side, left : left + side]
    found = extent(half, style.ROLE_COLOURS[0])
    np.testing.assert_allclose(found, np.array(box) * scale, atol=1.0)
    # Inside the box the photograph is untouched.
    centre = half[int((box[1] + box[3]) / 2 * scale), int(32 * scale)]
    assert centre.tolist() == [GREY] * 3


def test_absent_boxes_are_not_drawn():
  drawn = np.asarray(sheets.draw_card(example([role()]), 572))
  side = (572 - 2 * sheets.PAD - sheets.GAP) // 2
  top, left = sheets.HEADER, sheets.PAD
  left = drawn[top : top + side, left : left + side]
  assert (left == GREY).all()


def test_badges_stay_apart_and_inside():
  picture = (100, 100, 300, 300)
  boxes = [(100, 100, 299, 299)] * 6
  places = drawing.badge_places(boxes, picture)
  for position, (x, y) in enumerate(places):
    assert 100 <= x <= 300 - drawing.BADGE and 100 <= y <= 300 - drawing.BADGE
    for other in places[:position]:
      assert max(abs(x - other[0]), abs(y - other[1])) >= drawing.BADGE


def test_verdicts_follow_the_metric():
  assert role(None, None).box_verdict == (True, "no box")
  assert role((0, 0, 1, 1), None).box_verdict == (False, "box missed")
  assert role(None, (0, 0, 1, 1)).box_verdict == (False, "box added")
  assert role((0, 0, 10, 10), (0, 0, 10, 5)).box_verdict == (True, "IoU 0.50")
  assert role((0, 0, 10, 10), (0, 0, 10, 4)).box_verdict == (False, "IoU 0.40")
  assert role((3, 3, 3, 3), (3, 3, 3, 3)).box_verdict == (False, "IoU 0.00")
  assert role(noun="puppy").noun_right and not role(noun="cat").noun_right


def test_shorten_fits_and_keeps_what_fits():
  assert drawing.shorten("dog", 100, 13) == "dog"
  short = drawing.shorten("Standard Schnauzer " * 9, 120, 13)
  assert short.startswith("Standard") and short.endswith("…")
  assert style.font(13).getlength(short) <= 120


def test_sheet_size_and_bytes(tmp_path):
  rng = np.random.default_rng(0)
  noise = rng.integers(0, 256, (300, 400, 3), np.uint8)
  six = [
    role((10, 10, 200, 150), (15, 12, 190, 160), "cat " * 30, f"role {i}")
    for i in range(6)
  ]
  shown = [example(six, image=noise) for _ in range(4)]
  shown.append(example([], height=200, width=3, probability=None))
  out = tmp_path / "sheet.png"
  sheets.example_sheet(shown, out, title="Title", note="Note")
  picture = Image.open(out)
  assert picture.width == sheets.SHEET_WIDTH
  cards = [sheets.draw_card(e, 572).height for e in shown]
  gaps = 2 * sheets.MARGIN + sheets.TITLE + sheets.NOTE + 2 * sheets.GAP
  assert picture.height == cards[0] + cards[2] + cards[4] + gaps
  assert out.stat().st_size <= sheets.MAX_BYTES
  assert [p.name for p in tmp_path.iterdir()] == ["sheet.png"]


def test_palette_keeps_the_colours_that_carry_a_meaning(tmp_path):
  rng = np.random.default_rng(0)
  pixels = rng.integers(0, 256, (600, 600, 3), np.uint8)
  meanings = [ImageColor.getrgb(colour) for colour in style.MEANINGS]
  pixels[0, : len(meanings)] = meanings
  sheets._save_small(Image.fromarray(pixels), tmp_path / "s.png")
  saved = Image.open(tmp_path / "s.png")
  assert saved.mode == "P"
  saved = np.asarray(saved.convert("RGB"))
  wrong = np.abs(saved[0, : len(meanings)].astype(int) - meanings).max()
  assert wrong == 0
  assert len(np.unique(saved.reshape(-1, 3), axis=0)) > 128


@pytest.mark.parametrize(
  ("examples", "columns", "words"),
  [
    ([], 2, "0 examples"),
    ([example([])], 0, "0 columns"),
    ([example([role((5, 5, 1, 9))])], 2, "a_1.jpg, role agent: true_box"),
    (
      [example([], image=np.zeros((4, 4, 3)))],
      2,
      "a_1.jpg: the image is float",
    ),
  ],
)
def test_bad_examples_are_named(examples, columns, words, tmp_path):
  with pytest.raises(InputError, match=words):
    sheets.example_sheet(examples, tmp_path / "s.png", columns=columns)
  assert not list(tmp_path.iterdir())


def test_choose_examples_mixes_and_repeats():
  rng = np.random.default_rng(1)
  groups = rng.choice(["seen", "rare", "unseen"], 300, p=[0.8, 0.15, 0.05])
  correct = rng.random(300) < 0.7
  chosen = examples.choose_for_sheet(groups, correct, 12, seed=5)
  assert chosen == examples.choose_for_sheet(groups, correct, 12, seed=5)
  assert chosen != examples.choose_for_sheet(groups, correct, 12, seed=6)
  cells = [(groups[i], bool(correct[i])) for i in chosen]
  assert len(set(chosen)) == 12
  assert {cells.count(cell) for cell in set(cells)} == {2}
  assert len(set(cells)) == 6
  assert [g for g, _ in cells] == ["seen"] * 4 + ["rare"] * 4 + ["unseen"] * 4


def test_choose_examples_with_few_and_with_ids():
  few = examples.choose_for_sheet([0, 0, 2], [True, True, False], 8, seed=0)
  assert few == [0, 1, 2]
  groups, correct = [0] * 9 + [1] * 9, [True, False, True] * 6
  two = examples.choose_for_sheet(groups, correct, 2, 0)
  assert two[0] < 9 <= two[1]
  assert [i % 3 != 1 for i in two] == [True, False]
  with pytest.raises(InputError, match="1 groups, 2 verdicts"):
    examples.choose_for_sheet([0], [True, False], 1, 0)
