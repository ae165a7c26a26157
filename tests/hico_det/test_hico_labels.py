"""Detections of other kinds: boxes not in pixels, numbers of other lists.

The annotated boxes of `hico_fixture` written as detectors write them.
"""

import json
import pathlib

import numpy as np
import pytest

from input_pipeline.hico_det import detection_import, folder
from input_pipeline.hico_det.detectors import (
  detections,
  hugging_face,
  label_numbers,
)
from input_pipeline.hico_det.sources import json_stream
from input_pipeline.io.errors import InputError
from tests.fixtures import hico_fixture
from tests.fixtures.hico_fixture import BOXES, IMAGES, WORDS, number


def upt_folder(tmp_path, write=lambda box: box, labels="coco91", score=0.9):
  """Detections as UPT's tools write them: right ones, edges, one numbering."""
  target = tmp_path / "found"
  target.mkdir()
  numbers = labels
  if isinstance(labels, str):
    order = label_numbers.order(labels, WORDS)
    numbers = {WORDS.objects[o]: n for n, o in order.items()}.__getitem__
  for name, rows in IMAGES["test"].items():
    boxes, kinds = [], []
    for human, object_, interaction in rows:
      kind = WORDS.objects[WORDS.object_of[number(interaction)]]
      boxes += [human, object_]
      kinds += ["person", kind]
    content = {
      "boxes": [write([*b[:2], b[2] + 1, b[3] + 1]) for b in boxes],
      "labels": [numbers(kind) for kind in kinds],
      "scores": [score] * len(boxes),
    }
    path = target / f"{pathlib.Path(name).stem}.json"
    path.write_text(json.dumps(content))
  return target


def imported(tmp_path, capsys, target, labels):
  """(exit code, objects of the first image, the output)."""
  directory = tmp_path / "hico"
  if not directory.exists():
    hico_fixture.write(directory, "upt")
  out = tmp_path / "out.json"
  arguments = [f"--folder={directory}", f"--upt={target}", f"--out={out}"]
  code = detection_import.main(
    [*arguments, f"--labels={labels}", "--detector=a detector"]
  )
  said = capsys.readouterr()
  assert "Traceback" not in said.err
  objects = None
  if out.exists():
    found = detections.read(out, WORDS, IMAGES["test"])
    item = found.images[next(iter(IMAGES["test"]))]
    objects = [WORDS.objects[i] for i in item.objects]
  return code, objects, said.err + said.out


RIGHT = ["person", "bicycle", "person", "dog"]


@pytest.mark.parametrize("true", label_numbers.ORDERS)
def test_numbers_of_another_list_are_named(tmp_path, capsys, true):
  target = upt_folder(tmp_path, labels=true)
  for labels in label_numbers.ORDERS:
    code, objects, said = imported(tmp_path, capsys, target, labels)
    if labels != true:
      assert (code, objects) == (2, None)
      told = f"the numbers fit {true}\n" in said
      assert told or f"the annotated boxes tell {true}\n" in said
    else:
      assert (code, objects) == (0, RIGHT)
      (tmp_path / "out.json").unlink()
  assert imported(tmp_path, capsys, target, "auto")[:2] == (0, RIGHT)


def test_labels_that_are_names(tmp_path, capsys):
  spelled = {"person": "Person", "dog": "dog"}
  target = upt_folder(tmp_path, labels=lambda x: spelled.get(x, x))
  assert imported(tmp_path, capsys, target, "coco91")[:2] == (0, RIGHT)
  path = next(target.glob("*1.json"))
  content = json.loads(path.read_text())
  for name, words in (
    ("Hund", "'Hund', which is no object"),
    ("bicycel", "did you mean 'bicycle'"),
  ):
    content["labels"][1] = name
    path.write_text(json.dumps(content))
    code, _, said = imported(tmp_path, capsys, target, "coco91")
    assert code == 2 and words in said


@pytest.mark.parametrize(("write", "words"), BOXES)
def test_imported_boxes_of_another_kind(tmp_path, capsys, write, words):
  target = upt_folder(tmp_path, write)
  code, objects, said = imported(tmp_path, capsys, target, "coco91")
  if words is None:
    assert (code, objects) == (0, RIGHT)
    return
  assert (code, objects) == (2, None)
  assert any(part in said for part in words.split("|")), said


def test_boxes_that_a_cut_leaves_empty_are_counted(tmp_path, capsys):
  target = upt_folder(tmp_path)
  path = next(target.glob("*1.json"))
  content = json.loads(path.read_text())
  content["boxes"][1] = [70.0, 3.0, 72.0, 20.0]
  path.write_text(json.dumps(content))
  code, objects, said = imported(tmp_path, capsys, target, "coco91")
  assert (code, objects) == (0, ["person", "person", "dog"])
  assert "1 boxes lay outside their image; left out" in said


def test_what_cannot_be_compared_is_said(tmp_path, capsys):
  target = upt_folder(tmp_path, lambda box: [0, 44, 3, 48])
  code, _, said = imported(tmp_path, capsys, target, "coco91")
  assert code == 0
  assert "the numbering of the objects could not be checked" in said


def test_scores_of_a_folder_are_probabilities(tmp_path, capsys):
  target = upt_folder(tmp_path, score=3.5)
  code, _, said = imported(tmp_path, capsys, target, "coco91")
  assert code == 2 and "give probabilities, not logits" in said


@pytest.mark.parametrize("true", label_numbers.ORDERS)
@pytest.mark.parametrize("wrong", label_numbers.ORDERS)
def test_a_file_that_was_imported_by_another_list(tmp_path, true, wrong):
  """What training reads: names or numbers that another list gave."""
  directory = hico_fixture.write(tmp_path / "hico", "upt")
  records = folder.read_records(folder.find(directory), "test", WORDS)
  oracle = detections.oracle(records)
  order = label_numbers.order(wrong, WORDS)
  numbers = {o: n for n, o in label_numbers.order(true, WORDS).items()}

  def mistaken(item):
    objects = [order.get(numbers[int(o)], 5) for o in item.objects]
    return detections.ImageDetections.of(item.boxes, objects, item.scores)

  found = detections.Detections(
    "x", {name: mistaken(item) for name, item in oracle.images.items()}
  )
  if true == wrong:
    assert detections.compare(found, records, WORDS, "test.json") == ()
    return
  if 0 in numbers.values() and 0 not in order:
    return  # such numbers do not exist there, so they are refused when read
  with pytest.raises(InputError, match=f"fit .*{true}, read as {wrong}"):
    detections.compare(found, records, WORDS, "test.json")


def test_a_file_without_a_person_is_told(tmp_path):
  directory = hico_fixture.write(tmp_path / "hico", "upt")
  records = folder.read_records(folder.find(directory), "test", WORDS)
  found = {}
  for name, item in detections.oracle(records).images.items():
    kept = item.objects != WORDS.person
    found[name] = detections.ImageDetections.of(
      item.boxes[kept], item.objects[kept], item.scores[kept]
    )
  (note,) = detections.compare(
    detections.Detections("x", found), records, WORDS, "test.json"
  )
  assert "none of 3 boxes is a 'person'" in note


def test_boxes_of_a_file_of_detections(tmp_path):
  directory = hico_fixture.write(tmp_path / "hico", "upt")
  records = folder.read_records(folder.find(directory), "test", WORDS)
  oracle = detections.oracle(records)
  for write, words in BOXES:
    found = detections.Detections(
      "x",
      {
        name: detections.ImageDetections.of(
          np.array([write(b) for b in item.boxes.tolist()]).reshape(-1, 4),
          item.objects,
          item.scores,
        )
        for name, item in oracle.images.items()
      },
    )
    if words is None:
      assert detections.compare(found, records, WORDS, "test.json") == ()
    elif not words.startswith(("as x y", "of negative")):  # refused by `read`
      with pytest.raises(InputError):
        detections.compare(found, records, WORDS, "test.json")


@pytest.mark.parametrize(
  ("first", "words"),
  [
    ({"boxes": [], "labels": [], "scores": []}, "object detector's output"),
    (
      {"image_id": 1, "bbox": [], "category_id": 1, "score": 1},
      "COCO's form of detections, x y w h",
    ),
  ],
)
def test_detections_in_other_forms(tmp_path, first, words):
  path = tmp_path / "test.json"
  path.write_text(json.dumps([first]))
  with pytest.raises(InputError, match=words):
    detections.read(path, WORDS, [])
  path.write_bytes(b"\x80\x04\x95")
  with pytest.raises(InputError, match="is a Python pickle"):
    list(json_stream.entries(path))


@pytest.mark.parametrize(
  ("change", "words"),
  [
    ({"boxes": [[0.1, 0.1, 0.5, 0.5], [0, 0, 1, 1]]}, "within 0 and 1"),
    ({"boxes": [[100, 100, 300, 300]] * 2}, "boxes lie outside their image"),
    ({"labels": [1, 77]}, "label 77 is not in id2label"),
    ({"boxes": None}, "has no 'boxes'"),
    ({"scores": [0.5, 4.5]}, "give probabilities, not logits"),
  ],
)
def test_hugging_face_output_of_another_kind(change, words):
  result = {"boxes": [[0, 0, 9, 9]] * 2, "labels": [1, 1], "scores": [0.5] * 2}
  result = {k: v for k, v in (result | change).items() if v is not None}
  with pytest.raises(InputError, match=words):
    hugging_face.from_hugging_face(
      [result],
      ["a.jpg"],
      [(48, 64)],
      WORDS,
      detector="d",
      id2label={1: "person"},
    )
