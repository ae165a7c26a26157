"""HICO-DET's metric: by hand, against a slow one, on the real test set.

`data/hico_sample.json` has 57 images of HICO-DET's test2015, three of them
without pairs.
"""

import json
import pathlib

import numpy as np
import pytest

from input_pipeline.hico_det import splits
from input_pipeline.hico_det.sources import annotations
from input_pipeline.io.errors import InputError
from mipd_jax.metrics import (
  hico_det,
  hico_det_files,
  hico_det_matching,
  hico_det_scores,
)
from tests.fixtures.hico_fixture import SHARED, WORDS, number

SAMPLE = pathlib.Path(__file__).parents[1] / "data" / "hico_sample.json"
RIDE, SIT = number("ride bicycle"), number("sit on bicycle")
PET = number("pet dog")
# Counted from 1, like all annotations here.
HUMAN, OBJECT = [11, 11, 30, 50], [11, 31, 60, 70]
FAR = [[201, 201, 230, 240], [201, 221, 260, 270]]


def _image(name, *pairs, **extra):
  """An annotated image; each pair is (human, object, interaction)."""
  return {
    "file_name": name,
    "boxes_h": [human for human, _, _ in pairs],
    "boxes_o": [object_ for _, object_, _ in pairs],
    "hoi": [interaction for _, _, interaction in pairs],
    **extra,
  }


def _predict(name, *found):
  """Detections (human, object, interaction, score), boxes from 1 as above."""
  return {
    "file_name": name,
    "human_boxes": [[x - 1 for x in human] for human, *_ in found],
    "object_boxes": [[x - 1 for x in object_] for _, object_, *_ in found],
    "hoi": [x[2] for x in found],
    "scores": [x[3] for x in found],
  }


def _write(tmp_path, true, predicted):
  paths = tmp_path / "true.json", tmp_path / "predicted.json"
  for path, content in zip(paths, (true, predicted), strict=True):
    path.write_text(json.dumps(content))
  return paths


def _score(tmp_path, true, predicted, split="full", **options):
  paths = _write(tmp_path, true, predicted)
  truth = hico_det_files.read_truth(paths[0], WORDS)
  found = hico_det_files.read_predictions(paths[1], truth, WORDS)
  division = splits.load(split, WORDS)
  return hico_det.score(found, truth, WORDS, division, **options)


def _precision(tmp_path, true, predicted, interaction=RIDE, kind="default"):
  found = _score(tmp_path, true, predicted)
  return found["by_interaction"][kind][interaction]


# By hand. 11-point precision: the best precision at each recall or above.


def test_one_right_detection(tmp_path):
  true = [_image("a", (HUMAN, OBJECT, RIDE))]
  assert (
    _precision(tmp_path, true, [_predict("a", (HUMAN, OBJECT, RIDE, 1))]) == 100
  )


def test_a_duplicate_is_wrong(tmp_path):
  """Two pairs; the better-scored finds, its copy is wrong, the third finds.

  Precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1: six points of 1, five of 2/3.
  """
  true = [_image("a", (HUMAN, OBJECT, RIDE), (*FAR, RIDE))]
  found = [(HUMAN, OBJECT, RIDE, 0.9), (HUMAN, OBJECT, RIDE, 0.8)]
  found.append((*FAR, RIDE, 0.7))
  expected = 100 * (6 + 5 * 2 / 3) / 11
  got = _precision(tmp_path, true, [_predict("a", *found)])
  assert got == pytest.approx(expected, abs=1e-12)


def test_there_is_no_second_choice(tmp_path):
  """Both detections like the first pair best, so the second pair is lost.

  The pairs overlap by more than half, so a second choice would be right.
  """
  near = [HUMAN[0] + 4, *HUMAN[1:]]
  true = [_image("a", (HUMAN, OBJECT, RIDE), (near, OBJECT, RIDE))]
  closer = [HUMAN[0] + 1, *HUMAN[1:]]
  found = [(HUMAN, OBJECT, RIDE, 0.9), (closer, OBJECT, RIDE, 0.8)]
  got = _precision(tmp_path, true, [_predict("a", *found)])
  # Recall stops at 1/2: precision 1 at 0, .1, ..., .5.
  assert got == pytest.approx(100 * 6 / 11, abs=1e-12)
  found[1] = (near, OBJECT, RIDE, 0.8)
  assert _precision(tmp_path, true, [_predict("a", *found)]) == 100


def test_the_first_of_equally_good_pairs_is_taken(tmp_path):
  """Two equal pairs: every detection goes to the first of them."""
  true = [_image("a", (HUMAN, OBJECT, RIDE), (HUMAN, OBJECT, RIDE))]
  found = [(HUMAN, OBJECT, RIDE, 0.9), (HUMAN, OBJECT, RIDE, 0.8)]
  got = _precision(tmp_path, true, [_predict("a", *found)])
  assert got == pytest.approx(100 * 6 / 11, abs=1e-12)


def test_ties_go_by_image_and_then_by_place(tmp_path):
  """Equal scores: the annotations' first image counts as the better one."""
  true = [_image("a", (HUMAN, OBJECT, RIDE)), _image("b")]
  right = _predict("a", (HUMAN, OBJECT, RIDE, 0.5))
  wrong = _predict("b", (HUMAN, OBJECT, RIDE, 0.5))
  for predicted in ([right, wrong], [wrong, right]):
    assert _precision(tmp_path, true, predicted) == 100
  got = _precision(tmp_path, true[::-1], [right, wrong])
  assert got == pytest.approx(50, abs=1e-12)
  # In one image: its own order.
  wrong, right = (*FAR, RIDE, 0.5), (HUMAN, OBJECT, RIDE, 0.5)
  for found, expected in (((right, wrong), 100), ((wrong, right), 50)):
    got = _precision(tmp_path, true, [_predict("a", *found)])
    assert got == pytest.approx(expected, abs=1e-12)


def test_the_smaller_overlap_counts_and_half_is_enough(tmp_path):
  """Boxes of 20 x 40 pixels; the detection's left half is 10 x 40: IoU 1/2."""
  true = [_image("a", (HUMAN, OBJECT, RIDE))]
  half = [11, 11, 20, 50]
  less = [11, 11, 20, 49]
  cases = (((half, OBJECT), 100), ((less, OBJECT), 0), ((HUMAN, FAR[1]), 0))
  for (human, object_), expected in cases:
    predicted = [_predict("a", (human, object_, RIDE, 1))]
    assert _precision(tmp_path, true, predicted) == expected


def test_widths_count_both_corners(tmp_path):
  """3 of 5 pixels are 0.6; without the +1 it would be 2/4, and 2 of 4 none."""
  row = [[1, 1, 5, 1], [1, 1, 5, 1]]
  true = [_image("a", (*row, RIDE))]
  predicted = [_predict("a", ([1, 1, 3, 1], row[1], RIDE, 1))]
  assert _precision(tmp_path, true, predicted) == 100
  predicted = [_predict("a", ([1, 1, 2, 1], row[1], RIDE, 1))]
  assert _precision(tmp_path, true, predicted) == 0


def test_empty_images_count_as_in_the_original(tmp_path):
  true = [_image("a", (HUMAN, OBJECT, RIDE)), _image("b")]
  predicted = [
    _predict("b", (HUMAN, OBJECT, RIDE, 0.9)),
    _predict("a", (HUMAN, OBJECT, RIDE, 0.8)),
  ]
  found = _score(tmp_path, true, predicted)["by_interaction"]
  assert found["default"][RIDE] == pytest.approx(50, abs=1e-12)
  # Nobody says that a bicycle is in it.
  assert found["known_object"][RIDE] == 100
  left = _score(tmp_path, true, predicted, skip_empty=True)["by_interaction"]
  assert left["default"][RIDE] == 100


def test_known_objects(tmp_path):
  """A wrong detection counts where the object is, with any interaction."""
  true = [
    _image("a", (HUMAN, OBJECT, RIDE)),
    _image("b", (HUMAN, OBJECT, SIT)),
    _image("c", (HUMAN, OBJECT, PET)),
  ]
  right = _predict("a", (HUMAN, OBJECT, RIDE, 0.1))
  wrong = {n: _predict(n, (HUMAN, OBJECT, RIDE, 0.9)) for n in "bc"}

  def both(*predicted):
    found = _score(tmp_path, true, predicted)["by_interaction"]
    return found["default"][RIDE], found["known_object"][RIDE]

  assert both(right, wrong["c"]) == (pytest.approx(50), 100)
  assert both(right, wrong["b"]) == (pytest.approx(50), pytest.approx(50))


def test_invisible_pairs_are_not_asked_for(tmp_path):
  """Not in the recall, and a detection of one is wrong; its object is known."""
  true = [
    _image("a", (HUMAN, OBJECT, RIDE)),
    _image("b", (HUMAN, OBJECT, RIDE), invis=[True]),
  ]
  right = _predict("a", (HUMAN, OBJECT, RIDE, 0.8))
  assert _precision(tmp_path, true, [right]) == 100
  wrong = _predict("b", (HUMAN, OBJECT, RIDE, 0.9))
  for kind in ("default", "known_object"):
    got = _precision(tmp_path, true, [right, wrong], kind=kind)
    assert got == pytest.approx(50, abs=1e-12)
  # An image may be labelled as a whole.
  true[1] = _image("b", image_hoi=[SIT])
  got = _precision(tmp_path, true, [right, wrong], kind="known_object")
  assert got == pytest.approx(50, abs=1e-12)


def test_no_predictions(tmp_path):
  true = [_image("a", (HUMAN, OBJECT, RIDE), (HUMAN, OBJECT, SIT))]
  found = _score(tmp_path, true, [], "UV")
  assert all(found[group] == 0 for group in hico_det_scores.NAMES)
  found = _score(tmp_path, true, [_predict("a", (HUMAN, OBJECT, SIT, 1))], "UV")
  by_class = found["by_interaction"]["default"]
  assert (by_class[SIT], by_class[RIDE], sum(by_class)) == (100, 0, 100)
  assert found["full"] == pytest.approx(100 / 600)
  # Nothing unseen was right, so neither is the harmonic mean.
  assert (found["unseen"], found["hm"]) == (0, 0)
  assert found["seen"] == pytest.approx(100 / 516)
  assert found["without_pairs"] == 598


def test_detections_of_what_nothing_is_annotated_of(tmp_path):
  """The original's precision of such a class is 0; without 0 / 0 here."""
  true = [_image("a", (HUMAN, OBJECT, RIDE))]
  predicted = [_predict("a", (HUMAN, OBJECT, PET, 1))]
  with np.errstate(all="raise"):
    assert _precision(tmp_path, true, predicted, PET) == 0


def test_recall_of_three_tenths_is_matlabs(tmp_path):
  """0:0.1:1 in doubles: 3/10 is below its fourth point, 6/10 and 7/10 not."""
  boxes = [[1 + 100 * i, 1, 50 + 100 * i, 50] for i in range(10)]
  true = [_image("a", *((box, box, RIDE) for box in boxes))]
  for hits, points in ((3, 3), (6, 7), (7, 8)):
    found = [(box, box, RIDE, 0.5) for box in boxes[:hits]]
    got = _precision(tmp_path, true, [_predict("a", *found)])
    assert got == pytest.approx(100 * points / 11, abs=1e-12)


# Against an implementation that shares no code with it.

_RECALLS = (
  0.0,
  0.1,
  0.2,
  0.30000000000000004,
  0.4,
  0.5,
  0.6,
  0.7,
  0.8,
  0.9,
  1.0,
)


def _slow_iou(a, b):
  width = min(a[2], b[2]) - max(a[0], b[0]) + 1
  height = min(a[3], b[3]) - max(a[1], b[1]) + 1
  if width <= 0 or height <= 0:
    return 0.0
  one = (a[2] - a[0] + 1) * (a[3] - a[1] + 1)
  other = (b[2] - b[0] + 1) * (b[3] - b[1] + 1)
  return width * height / (one + other - width * height)


def _slow_precision(detections, true):
  """Precision of one class; detections (image, human, object, score)."""
  pairs = sum(map(len, true.values()))
  if not pairs:
    return 0.0
  taken, right, recall, precision = set(), 0, [], []
  ranked = sorted(detections, key=lambda x: -x[3])
  for rank, (image, human, object_, _) in enumerate(ranked, 1):
    best, which = -1.0, None
    for place, (h, o) in enumerate(true.get(image, [])):
      overlap = min(_slow_iou(human, h), _slow_iou(object_, o))
      if overlap > best:
        best, which = overlap, (image, place)
    if best >= 0.5 and which not in taken:
      taken.add(which)
      right += 1
    recall.append(right / pairs)
    precision.append(right / rank)
  points = [
    max(
      (p for p, r in zip(precision, recall, strict=True) if r >= t), default=0
    )
    for t in _RECALLS
  ]
  return sum(points) / 11


def _slow(predicted, true):
  """Precisions of all 600, by default and of known objects."""
  known = {x["file_name"]: {WORDS.object_of[h] for h in x["hoi"]} for x in true}
  place = {x["file_name"]: i for i, x in enumerate(true)}
  found = []
  for hoi in range(600):
    annotated = {
      x["file_name"]: [
        (h, o)
        for h, o, c in zip(x["boxes_h"], x["boxes_o"], x["hoi"], strict=True)
        if c == hoi
      ]
      for x in true
    }
    detections = [
      (x["file_name"], [v + 1 for v in h], [v + 1 for v in o], s)
      for x in sorted(predicted, key=lambda x: place[x["file_name"]])
      for h, o, c, s in zip(
        x["human_boxes"], x["object_boxes"], x["hoi"], x["scores"], strict=True
      )
      if c == hoi
    ]
    there = [d for d in detections if WORDS.object_of[hoi] in known[d[0]]]
    found.append(
      [
        _slow_precision(detections, annotated),
        _slow_precision(there, annotated),
      ]
    )
  return np.array(found).T


def _perturb(rng, true):
  """Detections near the truth, with duplicates, ties and strange classes."""
  predicted = []
  classes = sorted({hoi for x in true for hoi in x["hoi"]})
  for x in true:
    if rng.random() < 0.05:
      continue
    rows = rng.integers(0, len(x["hoi"]), 12) if x["hoi"] else [None] * 4
    entry = {"file_name": x["file_name"], "human_boxes": [], "object_boxes": []}
    entry |= {"hoi": [], "scores": []}
    for row in rows:
      for key, boxes in (
        ("human_boxes", "boxes_h"),
        ("object_boxes", "boxes_o"),
      ):
        box = [50, 50, 200, 200] if row is None else x[boxes][row]
        noise = rng.integers(-12, 13, 4) if rng.random() < 0.7 else [0] * 4
        box = [v - 1 + int(n) for v, n in zip(box, noise, strict=True)]
        low, high = sorted([box[0], box[2]]), sorted([box[1], box[3]])
        entry[key].append([low[0], high[0], low[1], high[1]])
      same = row is not None and rng.random() < 0.7
      hoi = x["hoi"][row] if same else int(rng.choice(classes))
      entry["hoi"].append(hoi)
      # Few values, so that many are equal.
      entry["scores"].append(float(rng.integers(0, 20)) / 20)
    predicted.append(entry)
  rng.shuffle(predicted)
  return predicted


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rows", [1, 100])
def test_a_slow_implementation_gives_the_same(
  tmp_path, monkeypatch, seed, rows
):
  monkeypatch.setattr(hico_det_matching, "_ROWS", rows)
  true = json.loads(SAMPLE.read_text())
  predicted = _perturb(np.random.default_rng(seed), true)
  found = _score(tmp_path, true, predicted, "UV")
  expected = 100 * _slow(predicted, true)
  assert (expected[0] > 0).sum() > 15
  assert ((expected[0] > 0) & (expected[0] < 100)).sum() > 10
  assert (expected[1] >= expected[0]).all()
  assert (expected[1] > expected[0]).any()
  assert found["by_interaction"]["default"] == expected[0].tolist()
  assert found["by_interaction"]["known_object"] == expected[1].tolist()
  unseen = splits.load("UV", WORDS).unseen
  for part, of in ((found, expected[0]), (found["known_object"], expected[1])):
    means = of.mean(), of[WORDS.rare].mean(), of[~WORDS.rare].mean()
    means = (*means, of[~unseen].mean(), of[unseen].mean())
    got = [part[group] for group in hico_det_scores.NAMES]
    np.testing.assert_allclose(got[:-1], means, rtol=0, atol=1e-10)
    seen, new = got[3], got[4]
    assert got[5] == pytest.approx(2 * seen * new / (seen + new))
    # Full is made of the two in proportion to their numbers.
    assert got[0] == pytest.approx((84 * new + 516 * seen) / 600, abs=1e-10)


def test_a_summary_that_breaks_the_identity_is_an_error(monkeypatch):
  """As when a split's two halves are not each other's complement."""

  class Torn(splits.ZeroShot):
    seen = np.ones(600, bool)

  split = splits.load("UV", WORDS)
  precisions = np.where(split.unseen, 0.2, 0.4)
  hico_det_scores.summary(precisions, WORDS, split)
  with pytest.raises(AssertionError):
    hico_det_scores.summary(precisions, WORDS, Torn("x", split.unseen, ""))


def _as_predictions(true):
  rng = np.random.default_rng(0)
  return [
    _predict(
      x["file_name"],
      *zip(
        x["boxes_h"],
        x["boxes_o"],
        x["hoi"],
        rng.random(len(x["hoi"])).tolist(),
        strict=True,
      ),
    )
    for x in true
  ]


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data/hico_det")
def test_the_truth_itself_gets_all_of_it_on_the_real_test_set(capsys, tmp_path):
  annotations_path = SHARED / "test2015_annotations.json"
  predicted = _as_predictions(json.loads(annotations_path.read_text()))
  path = tmp_path / "predicted.json"
  path.write_text(json.dumps(predicted))
  out = tmp_path / "by.json"
  arguments = [f"--predictions={path}", f"--annotations={annotations_path}"]
  arguments += ["--split=UV", f"--by-interaction={out}"]
  assert hico_det.main(arguments) == 0
  found = json.loads(capsys.readouterr().out.splitlines()[-1])
  for part in (found, found["known_object"]):
    assert all(part[group] == 100.0 for group in hico_det_scores.NAMES)
  assert (found["images"], found["without_pairs"]) == (9658, 0)
  # So it is in every other split.
  rows = json.loads(out.read_text())
  assert [row["default"] for row in rows] == [100.0] * 600
  assert [row["known_object"] for row in rows] == [100.0] * 600


def test_all_annotation_forms_score_the_same(tmp_path, capsys):
  """The sample as UPT publishes it, and as a list."""
  true = json.loads(SAMPLE.read_text())
  predicted = _perturb(np.random.default_rng(5), true)
  instances = {
    "annotation": [
      {key: x[key] for key in ("boxes_h", "boxes_o", "hoi")} for x in true
    ],
    "filenames": [x["file_name"] for x in true],
  }
  paths = _write(tmp_path, instances, predicted)
  said = []
  for path in (SAMPLE, paths[0]):
    arguments = [f"--predictions={paths[1]}", f"--annotations={path}"]
    assert hico_det.main([*arguments, "--split=UO"]) == 0
    said.append(capsys.readouterr().out)
  assert said[0] == said[1]


def test_the_command(tmp_path, capsys):
  true = [_image("a", (HUMAN, OBJECT, RIDE)), _image("b")]
  predicted = [_predict("a", (HUMAN, OBJECT, "ride bicycle", 1))]
  paths = _write(tmp_path, true, predicted)
  out = tmp_path / "by.json"
  arguments = [f"--annotations={paths[0]}", f"--predictions={paths[1]}"]
  arguments += ["--detector=oracle", f"--by-interaction={out}"]
  assert hico_det.main(arguments) == 0
  said = capsys.readouterr()
  last = json.loads(said.out.splitlines()[-1])
  assert last["detector"] == "oracle"
  assert last["full"] == pytest.approx(100 / 600)
  assert (last["unseen"], last["hm"]) == (None, None)
  assert set(last["known_object"]) == set(hico_det_scores.NAMES)
  assert "detector: oracle; split full" in said.out
  assert "1 of 2 annotated images have no entry" in said.err
  assert "1 images have no pair; detections there count as wrong" in said.err
  assert "599 interactions have no annotated pair" in said.err
  rows = json.loads(out.read_text())
  assert rows[RIDE]["interaction"] == "ride bicycle"
  assert (rows[RIDE]["default"], rows[RIDE]["pairs"]) == (100, 1)


GOOD = (HUMAN, OBJECT, RIDE, 1.0)


@pytest.mark.parametrize(
  ("entry", "words"),
  [
    (_predict("z", GOOD), "image z is not in the annotations"),
    (
      _predict("a", ([9, 1, 5, 5], OBJECT, RIDE, 1)),
      "human_boxes 0 .* negative",
    ),
    (
      _predict("a", (HUMAN, [1, 9, 5, 5], RIDE, 1)),
      "object_boxes 0 .* negative",
    ),
    (_predict("a", GOOD, (*GOOD[:3], float("nan"))), "score 1 is nan"),
    (_predict("a", (*GOOD[:3], float("inf"))), "score 0 is inf"),
    (_predict("a", (*GOOD[:3], "high")), "score 0 is 'high'"),
    (_predict("a", (*GOOD[:3], True)), "score 0 is True"),
    (_predict("a", (HUMAN, OBJECT, 600, 1)), "hoi 0 is 600, .* no interaction"),
    (_predict("a", (HUMAN, OBJECT, -1, 1)), "hoi 0 is -1"),
    (_predict("a", (HUMAN, OBJECT, 1.5, 1)), "hoi 0 is 1.5"),
    (_predict("a", (HUMAN, OBJECT, "fly dog", 1)), "called 'fly dog'"),
    (
      _predict("a", GOOD, (HUMAN, OBJECT, "ride dog", 1)),
      "hoi 1 is 'ride dog'",
    ),
    (_predict("a", GOOD) | {"scores": []}, "1 human_boxes, .* 0 scores"),
    (_predict("a", GOOD) | {"hoi": None}, "no list 'hoi'"),
    (
      _predict("a", GOOD) | {"human_boxes": [[1, 2, 3]]},
      "human_boxes 0 is .1, 2",
    ),
    (
      _predict("a", GOOD, GOOD) | {"human_boxes": [[1, 2, 3, 4], [1, 2, 3]]},
      "human_boxes 1 is .1, 2, 3.\n",
    ),
    (_predict("a", GOOD) | {"file_name": None}, "entry 1 has no 'file_name'"),
  ],
)
def test_predictions_that_cannot_be_used_are_refused(
  tmp_path, capsys, entry, words
):
  true = [_image(name, (HUMAN, OBJECT, RIDE)) for name in "ab"]
  paths = _write(tmp_path, true, [_predict("b", GOOD), entry])
  arguments = [f"--annotations={paths[0]}", f"--predictions={paths[1]}"]
  assert hico_det.main(arguments) == 2
  said = capsys.readouterr()
  problem, remedy = said.err.rstrip().split("\n")
  assert problem.startswith("error: ")
  assert "predicted.json" in problem
  assert not said.out
  with pytest.raises(InputError, match=words):
    truth = hico_det_files.read_truth(paths[0], WORDS)
    list(hico_det_files.read_predictions(paths[1], truth, WORDS))
  assert remedy.startswith("  Remedy: ")


def test_files_that_cannot_be_used_are_refused(tmp_path, capsys):
  true = [_image("a", (HUMAN, OBJECT, RIDE))]
  predicted = [_predict("a", GOOD)]
  paths = _write(tmp_path, true, predicted * 2)
  arguments = [f"--annotations={paths[0]}", f"--predictions={paths[1]}"]
  assert hico_det.main(arguments) == 2
  assert "image a is there twice" in capsys.readouterr().err
  text = json.dumps(predicted)
  paths[1].write_text(text[:-20])
  assert hico_det.main(arguments) == 2
  assert "is cut off or is not JSON" in capsys.readouterr().err
  paths[1].write_text(text)
  assert hico_det.main([*arguments, "--split=UU"]) == 2
  assert "no split 'UU'" in capsys.readouterr().err
  assert hico_det.main([*arguments, "--predictions=none.json"]) == 2
  assert "none.json is missing" in capsys.readouterr().err
  missing = str(tmp_path / "no" / "file.json")
  (tmp_path / "no").write_text("in the way")
  assert hico_det.main([*arguments, f"--by-interaction={missing}"]) == 2
  assert "cannot write" in capsys.readouterr().err


def test_memory_does_not_grow_with_the_boxes():
  """After matching, a detection is its image, class, score and a bit."""
  pool = hico_det_matching.Pool(
    hico_det_files.make_truth(annotations.read(SAMPLE, WORDS), WORDS)
  )
  rows = hico_det_matching._ROWS
  zeros = np.zeros(rows, np.int32)
  found = hico_det_matching.Detections(
    zeros, np.zeros((rows, 8)), zeros, np.zeros(rows)
  )
  pool.add(found)
  (kept,) = pool._matched
  assert not pool._waiting
  assert sum(x.nbytes for x in kept) <= 18 * rows
