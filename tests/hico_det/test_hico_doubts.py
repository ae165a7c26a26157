"""What a whole file of predictions on HICO-DET shows, of many annotated pairs.

Boxes of other sizes, roles exchanged, other numberings and scores: named.
"""

import numpy as np
import pytest

from tests.fixtures.hico_fixture import WORDS, number, scaled
from tests.hico_det.test_hico_kinds import scored


def many(seed=0, images=25):
  """Annotations and right predictions of images of several sizes."""
  rng = np.random.default_rng(seed)
  true, found = [], []
  for row in range(images):
    width, height = [(640, 480), (480, 640), (640, 427), (500, 333)][row % 4]
    pairs = []
    for _ in range(3):
      corner = rng.uniform(0, 0.5, (2, 2))
      low = np.round(corner * [width, height])
      high = np.round(
        (corner + rng.uniform(0.1, 0.4, (2, 2))) * [width, height]
      )
      pairs.append(np.concatenate([low, high], axis=1).tolist())
    hoi = rng.choice(np.arange(20, 580), 3, False).tolist()
    boxes = [[pair[i] for pair in pairs] for i in range(2)]
    name = f"{row}.jpg"
    true.append(
      {"file_name": name, "width": width, "height": height, "hoi": hoi}
      | {"boxes_h": boxes[0], "boxes_o": boxes[1]}
    )
    # Each pair once more, wrong and less sure.
    found.append(
      {"file_name": name, "human_boxes": 2 * boxes[0]}
      | {"object_boxes": 2 * boxes[1], "hoi": hoi + [0] * 3}
      | {"scores": [0.9] * 3 + [0.2] * 3}
    )
  return true, found


def as_read(content, write):
  """Predictions with each box converted by a function of box, width, height."""
  true, found = content
  return true, [
    item
    | {
      key: [write(box, entry["width"], entry["height"]) for box in item[key]]
      for key in ("human_boxes", "object_boxes")
    }
    for entry, item in zip(true, found, strict=True)
  ]


_KINDS = {
  "hundredths": lambda b, w, h: scaled([100 / w, 100 / h] * 2)(b),
  "resized to 224 x 224": lambda b, w, h: scaled([224 / w, 224 / h] * 2)(b),
  "resized to 640 x 640": lambda b, w, h: scaled([640 / w, 640 / h] * 2)(b),
  "longer side is 384": lambda b, w, h: scaled([384 / max(w, h)] * 4)(b),
  "shorter side is 672": lambda b, w, h: scaled([672 / min(w, h)] * 4)(b),
  "half as large": lambda b, w, h: scaled([0.5] * 4)(b),
  "mirrored": lambda b, w, h: [w - 1 - b[2], b[1], w - 1 - b[0], b[3]],
  "lower edge": lambda b, w, h: [b[0], h - 1 - b[3], b[2], h - 1 - b[1]],
}


@pytest.mark.parametrize("kind", _KINDS)
def test_boxes_of_other_sizes_and_sides(tmp_path, capsys, kind):
  true, found = as_read(many(), _KINDS[kind])
  code, _, said = scored(tmp_path, capsys, true, found, "--box-base=0")
  assert code == 2 and kind in said, said


def test_thousandths_without_sizes_are_told_by_usual_ones(tmp_path, capsys):
  content = many()
  thousandths = as_read(
    content, lambda b, w, h: scaled([1000 / w, 1000 / h] * 2)(b)
  )
  without = [
    {k: x for k, x in entry.items() if k not in ("width", "height")}
    for entry in content[0]
  ]
  for found, expected in ((content[1], 0), (thousandths[1], 2)):
    code, _, said = scored(tmp_path, capsys, without, found, "--box-base=0")
    assert code == expected
    assert ("thousandths" in said) == bool(expected)


def test_one_role_of_another_kind(tmp_path, capsys):
  true, found = many()
  _, shares = as_read((true, found), lambda b, w, h: [b[0] / w] * 4)
  _, thousandths = as_read(
    (true, found), lambda b, w, h: scaled([1000 / w, 1000 / h] * 2)(b)
  )
  key = "object_boxes"
  for other, words in (
    (shares, "object_boxes: all 150 boxes lie within 0 and 1"),
    (thousandths, "object_boxes: taken as corners in pixels from 0"),
  ):
    mixed = [x | {key: y[key]} for x, y in zip(found, other, strict=True)]
    code, _, said = scored(tmp_path, capsys, true, mixed, "--box-base=0")
    assert code == 2 and words in said, said
  exchanged = [
    x | {"human_boxes": x["object_boxes"], "object_boxes": x["human_boxes"]}
    for x in found
  ]
  code, _, said = scored(tmp_path, capsys, true, exchanged, "--box-base=0")
  assert code == 2 and "human_boxes and object_boxes exchanged, 150" in said


_BY_NAME = sorted(range(600), key=WORDS.names.__getitem__)


@pytest.mark.parametrize(
  ("told", "words"),
  [
    (lambda x: x, None),
    (lambda x: x + 1, "the predictions count interactions from 1"),
    (_BY_NAME.index, "in the order of their names"),
    (lambda x: int(WORDS.verb_of[x]), "numbers of verbs"),
    (lambda x: 599 - x, "are these the numbers of classes.json"),
  ],
)
def test_interactions_of_another_numbering(tmp_path, capsys, told, words):
  """Told also where most of the best detections are wrong."""
  true, found = many(images=40)
  for row, item in enumerate(found):
    right = row % 3 == 0
    item["hoi"] = [told(x) if right else 599 for x in item["hoi"][:3]] + [0] * 3
  code, full, said = scored(tmp_path, capsys, true, found, "--box-base=0")
  if words is None:
    assert code == 0 and full > 0 and "numbers of" not in said
    return
  assert code == (0 if "are these" in words else 2) and words in said, said


@pytest.mark.parametrize(
  ("change", "words"),
  [
    (lambda x: [1 - s for s in x["scores"]], "larger where a detection is su"),
    (lambda x: [0.5] * 6, "all 150 scores are 0.5"),
  ],
)
def test_scores_in_another_sense_are_told(tmp_path, capsys, change, words):
  true, found = many()
  for item in found:
    item["scores"] = change(item)
  code, _, said = scored(tmp_path, capsys, true, found, "--box-base=0")
  assert code == 0 and words in said, said


def test_no_detection_and_boxes_outside_are_told(tmp_path, capsys):
  true, found = many()
  empty = {"human_boxes": [], "object_boxes": [], "hoi": [], "scores": []}
  some = [
    x | {"human_boxes": [scaled([5] * 4)(b) for b in x["human_boxes"]]}
    if row % 3 == 0
    else x
    for row, x in enumerate(found)
  ]
  for content, words in (
    ([], "has no detection"),
    ([x | empty for x in found], "has no detection"),
    (some, "leave their image by more than half"),
  ):
    code, _, said = scored(tmp_path, capsys, true, content, "--box-base=0")
    assert code == 0 and words in said, said


@pytest.mark.parametrize(
  ("name", "other"),
  [
    ("Ride Bicycle", "ride bicycle"),
    (" ride-bicycle ", "ride bicycle"),
    ("wash motorbike", "wash motorcycle"),
    ("sit at Dining-Table", "sit at dining table"),
  ],
)
def test_names_of_interactions_in_other_spellings(name, other):
  assert WORDS.interactions([name], "here")[0] == number(other)
