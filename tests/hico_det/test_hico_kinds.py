"""Boxes, numbers and files of other kinds: read right or named, never scored.

The annotated boxes of `hico_fixture` written as tools write them.
"""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from input_pipeline.hico_det import check, splits, vocabulary
from input_pipeline.hico_det.sources import annotations, upt
from input_pipeline.io.errors import InputError
from mipd_jax.metrics import hico_det
from tests.fixtures import hico_fixture
from tests.fixtures.hico_fixture import (
  BOXES,
  HEIGHT,
  IMAGES,
  IN_1000,
  SHARES,
  WIDTH,
  WORDS,
  number,
  scaled,
)


def predictions(write=lambda box: box, hoi=number, score=0.5):
  return [
    {
      "file_name": name,
      "human_boxes": [write(human) for human, _, _ in labels],
      "object_boxes": [write(object_) for _, object_, _ in labels],
      "hoi": [hoi(interaction) for *_, interaction in labels],
      "scores": [score] * len(labels),
    }
    for name, labels in IMAGES["test"].items()
  ]


def plain_list(base=1, hoi=number):
  return [
    {
      "file_name": x["file_name"],
      "width": WIDTH,
      "height": HEIGHT,
      "boxes_h": [hico_fixture.shifted(b, base) for b in x["human_boxes"]],
      "boxes_o": [hico_fixture.shifted(b, base) for b in x["object_boxes"]],
      "hoi": x["hoi"],
    }
    for x in predictions(hoi=hoi)
  ]


def scored(tmp_path, capsys, true, predicted, *flags):
  """(exit code, full AP or None, the output)."""
  paths = []
  for name, content in (("true", true), ("predicted", predicted)):
    paths.append(tmp_path / f"{name}.json")
    text = content if isinstance(content, str) else json.dumps(content)
    paths[-1].write_text(text, "utf-8")
  code = hico_det.main(
    [f"--annotations={paths[0]}", f"--predictions={paths[1]}", *flags]
  )
  said = capsys.readouterr()
  assert "Traceback" not in said.err
  found = json.loads(said.out.splitlines()[-1])["full"] if said.out else None
  return code, found, said.err


ALL_RIGHT = pytest.approx(300 / 600)  # three interactions at 100


@pytest.mark.parametrize(("write", "words"), BOXES)
def test_predicted_boxes_of_another_kind(tmp_path, capsys, write, words):
  code, full, said = scored(
    tmp_path, capsys, plain_list(), predictions(write), "--box-base=1"
  )
  if words is None:
    assert (code, full) == (0, ALL_RIGHT)
    return
  assert (code, full) == (2, None)
  assert any(part in said for part in words.split("|")), said


def test_without_sizes_shares_and_a_total_miss_are_told(tmp_path, capsys):
  """QPIC's file has no sizes: thousandths look like other boxes."""
  for write, expected, words in (
    (scaled(SHARES), 2, "lie within 0 and 1"),
    (scaled(IN_1000), 0, "none of 6 annotated boxes is overlapped"),
  ):
    code, _, said = scored(
      tmp_path,
      capsys,
      hico_fixture.qpic("test"),
      predictions(write),
      "--box-base=1",
    )
    assert code == expected
    assert words in said


def test_a_list_says_what_it_counts_from(tmp_path, capsys):
  """Small boxes lose their overlap by one pixel."""
  human, object_ = [10, 10, 14, 13], [20, 20, 22, 22]
  true = [
    {"file_name": "a", "boxes_h": [human], "boxes_o": [object_], "hoi": [5]}
  ]
  predicted = [
    {"file_name": "a", "human_boxes": [human], "object_boxes": [object_]}
    | {"hoi": [5], "scores": [0.9]}
  ]
  code, full, said = scored(tmp_path, capsys, true, predicted)
  assert (code, full) == (2, None)
  assert "counted from 1" in said and "--box-base=0" in said
  for base, expected in ((0, 100 / 600), (1, None)):
    flag = f"--box-base={base}"
    code, full, _ = scored(tmp_path, capsys, true, predicted, flag)
    assert full == pytest.approx(expected) if expected else code == 2
  # Large boxes do not show it, so it is said what they are taken for.
  code, full, said = scored(tmp_path, capsys, plain_list(), predictions())
  assert (code, full) == (0, ALL_RIGHT)
  assert "taken to count pixels from 1; say --box-base=0" in said
  _, _, said = scored(
    tmp_path, capsys, plain_list(), predictions(), "--box-base=1"
  )
  assert "box-base" not in said


@pytest.mark.parametrize("seed", range(20))
def test_poor_boxes_are_scored_as_they_are(tmp_path, capsys, seed):
  """Nothing is refused for being wrong."""
  rng = np.random.default_rng(seed)

  def moved(box):
    low = np.array(box[:2]) + rng.integers(-9, 10, 2)
    high = np.array(box[2:]) + rng.integers(-9, 10, 2)
    return [*np.minimum(low, high).tolist(), *np.maximum(low, high).tolist()]

  code, full, _ = scored(tmp_path, capsys, plain_list(), predictions(moved))
  assert code == 0 and full is not None


def test_interactions_by_name_in_both_files(tmp_path, capsys):
  named = plain_list(hoi=str)
  for item in named:
    item["image_hoi"] = [*item["hoi"], "feed dog"]
    item["object"] = [x.rsplit(" ", 1)[1] for x in item["hoi"]]
  code, full, _ = scored(tmp_path, capsys, named, predictions(hoi=str))
  assert (code, full) == (0, ALL_RIGHT)
  named[0]["object"][0] = "dog"
  code, _, said = scored(tmp_path, capsys, named, predictions())
  assert code == 2 and "object 0 is dog, but hoi ride bicycle" in said
  named[0]["hoi"][1] = "fly dog"
  code, _, said = scored(tmp_path, capsys, named, predictions())
  assert code == 2 and "no interaction is called 'fly dog'" in said


def test_interactions_that_count_from_one(tmp_path, capsys):
  names = [f"{i}.jpg" for i in range(6)]
  true = [plain_list()[0] | {"file_name": name} for name in names]
  for shift, words in (
    (1, "-1, in 12: the predictions count interactions from 1"),
    (-1, "+1, in 12: the annotations count interactions from 1"),
  ):
    one = predictions(hoi=lambda name, by=shift: number(name) + by)[0]
    predicted = [one | {"file_name": name} for name in names]
    code, _, said = scored(tmp_path, capsys, true, predicted)
    assert code == 2
    assert words in said


def test_logits_as_scores_are_told(tmp_path, capsys):
  code, full, said = scored(
    tmp_path, capsys, plain_list(), predictions(score=-3.5)
  )
  assert (code, full) == (0, ALL_RIGHT)
  assert "scores go from -3.5 to -3.5, so they are no probabilities" in said


ONE = predictions()[0]


@pytest.mark.parametrize(
  ("content", "words"),
  [
    (
      [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 1}],
      "COCO's form of detections",
    ),
    (
      [
        {
          "file_name": ONE["file_name"],
          "predictions": [],
          "hoi_prediction": [],
        }
      ],
      "PPDM's and QPIC's form of predictions",
    ),
    ([{"boxes": [], "labels": [], "scores": []}], "object detector's output"),
    (
      [{"boxes": [], "pairing": [], "labels": [], "scores": []}],
      "UPT's and PViC's output",
    ),
    ([{"pred_logits": [], "pred_boxes": []}], "before post-processing"),
    (plain_list(), "a list of annotations"),
    ({"images": [], "annotations": []}, "holds no list of entries"),
    ("\ufeff" + json.dumps(predictions()), None),
    ("MATLAB 5.0 MAT-file, Platform", "is a MATLAB file, not JSON"),
    ("PK\x03\x04....", "is a zip archive"),
    ("[" + json.dumps(ONE)[:-1] + ', "hoi": [1]}]', "the key 'hoi' twice"),
    ('[{"file_name": ' + "[" * 100000, "nested too deeply|cut off"),
    ('[{"hoi": [' + "1" * 5000 + "]}]", "whole number of more than"),
    ([ONE | {"scores": [0.5, 10**400]}], "score 1 is 1000"),
    ([ONE | {"scores": [0.5, True]}], "score 1 is True"),
    ([ONE | {"object_boxes": [[0, 0, 9, 9], [0, 0, 1.5, True]]}], "boxes 1 is"),
    ([ONE | {"human_boxes": [[0, 0, 1, 10**400]] * 2}], "human_boxes 0 is"),
    ([ONE | {"hoi": {"a": 1}}], "no list 'hoi'"),
    ([ONE | {"hoi": [10**400, 1]}], "hoi 0 is 1000"),
    ([ONE, ONE], "is there twice"),
    ([ONE | {"file_name": ["a"]}], "no 'file_name'"),
    ([ONE | {"file_name": "other.jpg"}], "not in the annotations"),
    (
      [ONE | {"file_name": f"images\\{ONE['file_name'][:-3]}png"}],
      f"not in the annotations; {ONE['file_name']} is",
    ),
    (json.dumps(ONE) + "\n" + json.dumps(ONE), "JSON lines, or an object?"),
    ("", "it is empty"),
    ("[\0{\0", "is UTF-16 text"),
    ('[{"file_name": "\\ud83d.jpg"}]', "half a character"),
  ],
)
def test_predictions_in_other_forms(tmp_path, capsys, content, words):
  code, full, said = scored(tmp_path, capsys, plain_list(), content)
  if words is None:
    assert (code, full) == (0, ALL_RIGHT)
    return
  assert (code, full) == (2, None)
  assert any(part in said for part in words.split("|")), said
  assert len(said) < 600


def test_the_command_as_typed(tmp_path):
  """In its own folder, with the docs' flags; once with a truncated file."""
  (tmp_path / "instances_test2015.json").write_text(
    json.dumps(hico_fixture.upt("test"))
  )
  path = tmp_path / "P.json"
  command = [
    *(sys.executable, "-m", "mipd_jax.metrics.hico_det", "--split=UV"),
    *("--predictions=P.json", "--annotations=instances_test2015.json"),
  ]
  root = pathlib.Path(__file__).resolve().parents[2]
  for text, expected in ((json.dumps(predictions()), 0), ("[{", 2)):
    path.write_text(text)
    run = subprocess.run(
      command,
      cwd=tmp_path,
      env=os.environ | {"PYTHONPATH": str(root)},
      capture_output=True,
      text=True,
    )
    assert run.returncode == expected, run.stderr
    assert "Traceback" not in run.stderr
    if expected == 0:
      assert json.loads(run.stdout.splitlines()[-1])["full"] == ALL_RIGHT
    else:
      assert run.stderr.startswith("error: P.json is cut off")


def test_output_is_asked_for_before_the_work(tmp_path, capsys):
  (tmp_path / "file").write_text("")
  for target in ("file/by.json", "."):
    flag = f"--by-interaction={tmp_path / target}"
    # The annotations are of no use either, but that comes later.
    code, _, said = scored(tmp_path, capsys, [], [], flag)
    assert code == 2 and "--by-interaction" in said


ENTRY = plain_list()[0]


@pytest.mark.parametrize(
  ("content", "words"),
  [
    ("\ufeff" + json.dumps(plain_list()), None),
    ({"images": [], "annotations": [], "categories": []}, "COCO's form"),
    (predictions(), "our form of predictions"),
    (json.dumps([ENTRY])[:-2] + ', "hoi": []}]', "the key 'hoi' twice"),
    ("[" * 100000, "nested too deeply"),
    ('[{"hoi": [' + "1" * 5000 + "]}]", "whole number of more than"),
    ([ENTRY, ENTRY], "has the image HICO_test2015_00000001.jpg twice"),
    ([ENTRY | {"boxes_h": [["1", "1", "5", "5"]] * 2}], "not 4 finite numbers"),
    ([ENTRY | {"boxes_h": [[True, 1, 5, 5]] * 2}], "not 4 finite numbers"),
    ([ENTRY | {"boxes_h": [[1, 1, 5, 10**400]] * 2}], "not 4 finite numbers"),
    ([ENTRY | {"boxes_h": [[[1, 1], [5, 5]]] * 2}], "not 4 finite numbers"),
    ([ENTRY | {"boxes_h": [[0.1, 0.1, 0.5, 0.5]] * 2}], "within 0 and 1"),
    ([ENTRY | {"boxes_o": [[100, 100, 700, 800]] * 2}], "outside the image"),
    ([ENTRY | {"hoi": [10**300, 1]}], "hoi 0 is 1000"),
    ([ENTRY | {"hoi": [1, "ride bicycle"]}], "hoi 1 is 'ride bicycle'"),
    ([3], "none of the forms"),
    ([ENTRY, 3], "entry 1"),
  ],
)
def test_annotations_of_another_kind(tmp_path, capsys, content, words):
  code, full, said = scored(tmp_path, capsys, content, predictions())
  if words is None:
    assert (code, full) == (0, ALL_RIGHT)
    return
  assert code == 2
  assert words in said, said
  assert len(said) < 700


def test_shares_in_the_form_that_counts_from_0(tmp_path):
  """A box at 0 is no sign there."""
  content = hico_fixture.qpic("train")
  for entry in content:
    for box in entry["annotations"]:
      box["bbox"] = scaled(SHARES)(box["bbox"])
  path = tmp_path / "trainval_hico.json"
  path.write_text(json.dumps(content))
  with pytest.raises(InputError, match="boxes lie within 0 and 1"):
    annotations.read(path, WORDS)


@pytest.mark.parametrize(
  ("change", "words"),
  [
    (lambda c: c["correspondence"].append(c["correspondence"][0]), "twice"),
    (
      lambda c: c["verbs"].__setitem__(1, c["verbs"][0]),
      "'verbs' has .* twice",
    ),
    (lambda c: c["correspondence"].__setitem__(0, [0, 10**300, 0]), "is .0, 1"),
    (lambda c: c["correspondence"].__setitem__(0, {"hoi": 0}), "'hoi': 0"),
  ],
)
def test_lists_of_names_that_contradict_themselves(change, words):
  content = hico_fixture.upt("test")
  change(content)
  with pytest.raises(InputError, match=words):
    upt.read(content, pathlib.Path("instances.json"), WORDS)


@pytest.mark.parametrize(
  ("key", "value", "words"),
  [
    ("interactions", [[0, 2**40]], "as interaction 0"),
    ("interactions", [[0, 0], [0, 0]], "interaction twice"),
    ("objects", [[str(i), "a", 2**40 + i] for i in range(80)], "'person'"),
    (
      "objects",
      [["person", "a", 2**40], *([str(i), "a", i] for i in range(79))],
      "COCO ids",
    ),
    ("rare", [10**300], "no list 'rare'"),
  ],
)
def test_classes_with_huge_numbers(tmp_path, key, value, words):
  content = json.loads(vocabulary.PACKAGED.read_text())
  path = tmp_path / "classes.json"
  path.write_text("\ufeff" + json.dumps(content), "utf-8")
  assert len(vocabulary.load(path)) == 600
  path.write_text(json.dumps(content | {key: value}))
  with pytest.raises(InputError, match=words):
    vocabulary.load(path)


def test_public_splits_are_of_hico_dets_interactions(tmp_path):
  content = json.loads(vocabulary.PACKAGED.read_text())
  content["interactions"] = content["interactions"][::-1]
  path = tmp_path / "classes.json"
  path.write_text(json.dumps(content))
  others = vocabulary.load(path)
  with pytest.raises(InputError, match="for HICO-DET's interactions"):
    splits.load("UV", others)
  assert not splits.load("full", others).unseen.any()


def test_splits_of_another_shape(tmp_path):
  path = tmp_path / "splits.json"
  for content in ([], {"splits": []}, {"splits": {"A": 3}}, 3):
    path.write_text(json.dumps(content))
    with pytest.raises(InputError):
      splits.load("A", WORDS, path)


# --check


@pytest.mark.parametrize("broken", ["test", "train", "both"])
def test_check_of_a_split_without_a_record(tmp_path, capsys, broken):
  directory = hico_fixture.write(tmp_path / "hico", "upt")
  for split in ("test", "train"):
    if broken in (split, "both"):
      path = directory / "annotations" / hico_fixture.UPT[split]
      content = hico_fixture.upt(split)
      for entry in content["annotation"]:
        entry["hoi"] = "none"
      path.write_text(json.dumps(content))
  out = tmp_path / "report.json"
  assert check.main([str(directory), f"--report={out}"]) == 1
  said = capsys.readouterr().out
  assert "has no list 'hoi'" in said and "no image that can be used" in said
  assert json.loads(out.read_text())["problems"]
  assert check.main([str(directory), f"--report={tmp_path}"]) == 2
  assert "--report names a file" in capsys.readouterr().err
