"""Detections: our form, UPT's folders, Hugging Face's output, the oracle."""

import json
import pathlib

import numpy as np
import pytest

from input_pipeline.hico_det import detection_import, folder, splits
from input_pipeline.hico_det.detectors import (
  detections,
  detector_boxes,
  hugging_face,
)
from input_pipeline.hico_det.sources import json_stream
from input_pipeline.io.errors import InputError
from tests.fixtures import hico_fixture
from tests.fixtures.hico_fixture import WORDS

NAME = "HICO_test2015_00000001.jpg"
ENTRY = {
  "file_name": NAME,
  "boxes": [[0, 0, 9, 9], [1.5, 2, 3, 4]],
  "labels": ["dining table", 0],
  "scores": [0.25, 0.75],
}
HEAD = {"detector": "a detector"}
PERSON, TABLE = WORDS.person, WORDS.objects.index("dining_table")


def _put(tmp_path, entries):
  path = tmp_path / "detections.json"
  path.write_text(json.dumps(entries))
  return path


def test_our_form_is_read_best_first_and_survives_writing(tmp_path):
  path = _put(tmp_path, [HEAD, ENTRY])
  found = detections.read(path, WORDS, [NAME])
  assert found.detector == "a detector"
  item = found.images[NAME]
  assert item.objects.tolist() == [PERSON, TABLE]
  assert item.scores.tolist() == [0.75, 0.25]
  assert item.boxes.tolist() == [[1.5, 2, 3, 4], [0, 0, 9, 9]]
  again = tmp_path / "again.json"
  detections.write(again, found, WORDS)
  back = detections.read(again, WORDS, [NAME]).images[NAME]
  for field in ("boxes", "objects", "scores"):
    a, b = getattr(item, field), getattr(back, field)
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
  ("entries", "words"),
  [
    ([ENTRY], "name of its detector"),
    ([HEAD], f"lacks 1 of 1 images: {NAME}"),
    ([HEAD, ENTRY, ENTRY], "there twice"),
    ([HEAD, ENTRY | {"file_name": "b.jpg"}], "image b.jpg is not in the data"),
    ([HEAD, ENTRY | {"file_name": 3}], "'file_name' is 3"),
    ([HEAD, ENTRY | {"boxes": [[0, 0, 9, 9]]}], "1 boxes, 2 labels, 2 scores"),
    ([HEAD, ENTRY | {"boxes": [[9, 0, 0, 9]] * 2}], "boxes 0 .* negative size"),
    ([HEAD, ENTRY | {"scores": [0.5, float("nan")]}], "scores 1 is nan"),
    ([HEAD, ENTRY | {"scores": [0.5, 3.0]}], "scores 1 is 3.0, not within"),
    (
      [HEAD, ENTRY | {"labels": ["person", "unicorn"]}],
      "labels 1 is 'unicorn'",
    ),
    ([HEAD, ENTRY | {"labels": [80, 0]}], "labels 0 is 80"),
    ([HEAD, ENTRY | {"labels": None}], "no list 'labels'"),
  ],
)
def test_wrong_files_are_refused(tmp_path, entries, words):
  path = _put(tmp_path, entries)
  with pytest.raises(InputError, match=words) as error:
    detections.read(path, WORDS, [NAME])
  assert path.name in str(error.value)


def test_cut_files_are_refused_wherever_they_are_cut(tmp_path):
  text = json.dumps([HEAD, ENTRY])
  path = tmp_path / "detections.json"
  for stop in range(len(text)):
    path.write_text(text[:stop])
    with pytest.raises(InputError, match=r"cut off|no list of entries"):
      list(json_stream.entries(path))
  path.write_text(text)
  assert list(json_stream.entries(path)) == [HEAD, ENTRY]


@pytest.mark.parametrize(
  ("text", "words"),
  [
    ("[1]", "an object is missing, after entry 0"),
    ("[{}, 1]", "an object is missing, after entry 1"),
    ("[{} {}]", "a comma or the end .* after entry 1"),
    ("[{},]", "an object is missing, after entry 1"),
    ("[{}] x", "something follows the list"),
    ("{}", "no list of entries"),
    ('[{"a": nope}]', "cut off or is not JSON"),
  ],
)
def test_what_is_no_list_of_objects_is_refused(tmp_path, text, words):
  path = tmp_path / "some.json"
  path.write_text(text)
  with pytest.raises(InputError, match=words):
    list(json_stream.entries(path))


def test_entries_longer_than_a_piece(tmp_path, monkeypatch):
  monkeypatch.setattr(json_stream, "_PIECE", 7)
  entries = [{"key": list(range(50)), "é": "ü" * n} for n in range(20)]
  path = tmp_path / "some.json"
  path.write_text(json.dumps(entries, ensure_ascii=False, indent=1), "utf-8")
  assert list(json_stream.entries(path)) == entries
  path.write_text(" [ ] \n")
  assert list(json_stream.entries(path)) == []
  with pytest.raises(InputError, match="is missing"):
    list(json_stream.entries(tmp_path / "none.json"))


def test_boxes_with_edges_become_boxes_of_pixels():
  boxes = np.array([[0, 0, 64, 48], [-3, 2, 10, 70], [5.2, 5, 5.6, 9]])
  found = detector_boxes.pixels(boxes, (48, 64))
  assert found[0].tolist() == [0, 0, 63, 47]
  assert found[1].tolist() == [0, 2, 9, 47]
  # Thinner than a pixel, so it is one.
  assert found[2].tolist() == [5.2, 5, 5.2, 8]


def test_upt_folders_by_each_numbering(tmp_path):
  """The same person and motorcycle, as three tools number them."""
  numbers = {"alphabetical": (49, 44), "coco80": (0, 3), "coco91": (1, 4)}
  for labels, (person, motorcycle) in numbers.items():
    directory = tmp_path / labels
    directory.mkdir()
    content = {
      "boxes": [[0.0, 0.0, 65.0, 48.0], [2.0, 3.0, 11.0, 21.0]],
      "labels": [motorcycle, person],
      "scores": [0.5, 0.9],
    }
    (directory / "a.json").write_text(json.dumps(content))
    found = detection_import.from_upt(
      directory, {"a.jpg": (48, 64)}, WORDS, labels=labels, detector="x"
    )
    item = found.images["a.jpg"]
    assert [WORDS.objects[i] for i in item.objects] == ["person", "motorcycle"]
    assert item.boxes.tolist() == [[2, 3, 10, 20], [0, 0, 63, 47]]
    with pytest.raises(InputError, match=r"lacks 1 of 1 files: b\.json"):
      detection_import.from_upt(
        directory, {"b.jpg": (48, 64)}, WORDS, labels=labels, detector="x"
      )
    (directory / "c.json").write_text("{}")
    with pytest.raises(InputError, match="1 files of no image"):
      detection_import.from_upt(
        directory, {"a.jpg": (48, 64)}, WORDS, labels=labels, detector="x"
      )


@pytest.mark.parametrize(
  ("change", "words"),
  [
    ({"labels": [80]}, "labels 0 is 80, which does not exist"),
    ({"boxes": [[5.0, 0.0, 1.0, 3.0]]}, "negative size"),
    ({"scores": [float("inf")]}, "scores 0 is inf"),
    ({"scores": []}, "1 boxes, 1 labels, 0 scores"),
  ],
)
def test_wrong_upt_files_are_refused(tmp_path, change, words):
  content = {"boxes": [[0.0, 0.0, 9.0, 9.0]], "labels": [0], "scores": [0.5]}
  (tmp_path / "a.json").write_text(json.dumps(content | change))
  with pytest.raises(InputError, match=words) as error:
    detection_import.from_upt(
      tmp_path, {"a.jpg": (48, 64)}, WORDS, labels="coco80", detector="x"
    )
  assert "a.json" in str(error.value)


class _Tensor:
  """As much of torch's tensors as post-processing returns."""

  def __init__(self, values):
    self._values = np.array(values)

  def detach(self):
    return self

  def cpu(self):
    return self

  def tolist(self):
    return self._values.tolist()


ID2LABEL = {
  0: "N/A",
  1: "person",
  62: "tvmonitor",
  67: "dining table",
  9: "gnu",
}


def _result(**change):
  return {
    "boxes": _Tensor([[0.0, 0, 10, 10], [-1, 2, 70, 60], [1, 1, 2, 2]]),
    "labels": _Tensor([62, 1, 9]),
    "scores": _Tensor([0.5, 0.75, 0.9]),
  } | change


def test_output_of_hugging_face_detectors():
  found = hugging_face.from_hugging_face(
    [_result()], ["a.jpg"], [(48, 64)], WORDS, detector="d", id2label=ID2LABEL
  )
  item = found.images["a.jpg"]
  assert [WORDS.objects[i] for i in item.objects] == ["person", "tv"]
  assert item.boxes.tolist() == [[0, 2, 63, 47], [0, 0, 9, 9]]
  assert found.left_out == 1
  text = ["a", "person", "bicycle"]
  found = hugging_face.from_hugging_face(
    [_result(text_labels=text)], ["a.jpg"], [(48, 64)], WORDS, detector="d"
  )
  item = found.images["a.jpg"]
  assert [WORDS.objects[i] for i in item.objects] == ["bicycle", "person"]


def test_hugging_face_output_that_cannot_be_used():
  def convert(results, sizes=((48, 64),), **change):
    return hugging_face.from_hugging_face(
      results, ["a.jpg"], sizes, WORDS, detector="d", **change
    )

  with pytest.raises(InputError, match="give id2label"):
    convert([_result(labels=[1, 2, 3])])
  with pytest.raises(InputError, match="knows no 'person'"):
    convert([_result()], id2label={1: "dog"})
  with pytest.raises(InputError, match="2 results, 1 names and 1 sizes"):
    convert([_result()] * 2, id2label=ID2LABEL)
  with pytest.raises(InputError, match="scores 0 is nan"):
    wrong = _Tensor([float("nan"), 1, 1])
    convert([_result(scores=wrong)], id2label=ID2LABEL)


def test_the_oracle_has_every_annotated_box_once(tmp_path, capsys):
  directory = hico_fixture.write(tmp_path / "hico", "upt")
  out = tmp_path / "oracle.json"
  arguments = [f"--folder={directory}", "--oracle", f"--out={out}"]
  assert detection_import.main(arguments) == 0
  assert "ground-truth boxes (oracle), 6 boxes in 3" in capsys.readouterr().out
  found = detections.read(out, WORDS, hico_fixture.IMAGES["test"])
  assert found.detector == detections.ORACLE
  for name, labels in hico_fixture.IMAGES["test"].items():
    item = found.images[name]
    boxes = {tuple(map(float, b)) for h, o, _ in labels for b in (h, o)}
    assert {tuple(box) for box in item.boxes.tolist()} == boxes
    assert (item.scores == 1).all()


def test_the_oracle_of_training_shows_no_unseen_object(tmp_path):
  directory = hico_fixture.write(tmp_path / "hico", "qpic")
  records = folder.read_records(folder.find(directory), "train", WORDS)
  split = splits.load("UO", WORDS)
  left = [splits.without_unseen(r, split, "label") for r in records]
  found = detections.oracle([r for r in left if r is not None])
  objects = {WORDS.objects[i] for x in found.images.values() for i in x.objects}
  assert objects == {"person", "bicycle"}


def test_the_import_command(tmp_path, capsys):
  directory = hico_fixture.write(tmp_path / "hico", "upt")
  upt = tmp_path / "test2015"
  upt.mkdir()
  for name in hico_fixture.IMAGES["test"]:
    content = {"boxes": [[1, 1, 9, 9]], "labels": [49], "scores": [0.5]}
    (upt / f"{pathlib.Path(name).stem}.json").write_text(json.dumps(content))
  out = tmp_path / "out.json"
  arguments = [f"--folder={directory}", f"--upt={upt}", f"--out={out}"]
  arguments += ["--labels=alphabetical", "--detector=DETR of UPT"]
  assert detection_import.main(arguments) == 0
  found = detections.read(out, WORDS, hico_fixture.IMAGES["test"])
  assert found.detector == "DETR of UPT"
  assert all(x.objects.tolist() == [PERSON] for x in found.images.values())
  capsys.readouterr()
  arguments[3] = "--labels=coco80"
  (upt / "HICO_test2015_00000002.json").write_text(
    json.dumps({"boxes": [[1, 1, 9, 9]], "labels": [90], "scores": [0.5]})
  )
  out.unlink()
  assert detection_import.main(arguments) == 2
  assert "labels 0 is 90" in capsys.readouterr().err
  assert not out.exists()
