"""Both public annotation forms become one, and what is wrong is named."""

import json

import numpy as np
import pytest

from input_pipeline.hico_det import check, folder, records
from input_pipeline.hico_det.sources import annotations
from input_pipeline.io.errors import InputError
from tests.fixtures import hico_fixture
from tests.fixtures.hico_fixture import SHARED, WORDS

# The first image of HICO-DET's train2015 as both forms publish it, in part.
FIRST = "HICO_train2015_00000001.jpg"
FIRST_QPIC = {
  "file_name": FIRST,
  "img_id": 1,
  "annotations": [
    {"bbox": [207, 32, 426, 299], "category_id": 1},
    {"bbox": [58, 97, 571, 404], "category_id": 4},
  ],
  "hoi_annotation": [
    {"subject_id": 0, "object_id": 1, "category_id": 73, "hoi_category_id": 153}
  ],
}
FIRST_UPT = {
  "annotation": [
    {
      "boxes_h": [[208.0, 33.0, 427.0, 300.0]],
      "boxes_o": [[59.0, 98.0, 572.0, 405.0]],
      "hoi": [152],
      "object": [3],
      "verb": [72],
    }
  ],
  "filenames": [FIRST],
  "size": [[640, 480]],
  "empty": [],
}
# Image 17 of test2015: the same numbers in both, so test_hico.json is from 1.
TEST_NAME = "HICO_test2015_00000017.jpg"
TEST_QPIC = {
  "file_name": TEST_NAME,
  "annotations": [
    {"bbox": [2, 2, 639, 475], "category_id": 1},
    {"bbox": [392, 128, 633, 340], "category_id": 40},
  ],
  "hoi_annotation": [{"subject_id": 0, "object_id": 1, "category_id": 37}],
}
TEST_LIST = {
  "file_name": TEST_NAME,
  "width": 640,
  "height": 480,
  "boxes_h": [[2.0, 2.0, 639.0, 475.0]],
  "boxes_o": [[392.0, 128.0, 633.0, 340.0]],
  "hoi": [232],
}


def _put(directory, name, content):
  path = directory / name
  path.write_text(json.dumps(content))
  return path


def _same(left, right):
  assert left.name == right.name
  for field in ("human_boxes", "object_boxes", "interactions", "visible"):
    a, b = getattr(left, field), getattr(right, field)
    np.testing.assert_array_equal(a, b, err_msg=field)


def test_training_files_differ_by_a_pixel(tmp_path):
  """trainval_hico.json counts from 0, instances_train2015.json from 1."""
  left = _put(tmp_path, "trainval_hico.json", [FIRST_QPIC])
  right = _put(tmp_path, "instances_train2015.json", FIRST_UPT)
  (left,), (right,) = (annotations.read(p, WORDS) for p in (left, right))
  _same(left, right)
  assert left.human_boxes.tolist() == [[207, 32, 426, 299]]
  assert WORDS.names[left.interactions[0]] == "race motorcycle"
  assert (left.size, right.size) == (None, (480, 640))


def test_test_files_do_not_differ(tmp_path):
  """test_hico.json counts from 1, like the file it was made from."""
  left = _put(tmp_path, "test_hico.json", [TEST_QPIC])
  right = _put(tmp_path, "test2015_annotations.json", [TEST_LIST])
  (left,), (right,) = (annotations.read(p, WORDS) for p in (left, right))
  _same(left, right)
  assert left.human_boxes.tolist() == [[1, 1, 638, 474]]


def test_other_names_have_to_tell_their_first_pixel(tmp_path):
  path = _put(tmp_path, "mine.json", [TEST_QPIC])
  with pytest.raises(InputError, match=r"from 0 .* or from 1"):
    annotations.read(path, WORDS)
  for base in (0, 1):
    (found,) = annotations.read(path, WORDS, base=base)
    assert found.human_boxes[0, 0] == 2 - base


def test_objects_numbered_by_name_are_the_same(tmp_path):
  """Releases of UPT's file number objects as COCO does, or by name."""
  coco = hico_fixture.upt("train")
  names = hico_fixture.upt("train", objects="name")
  assert coco["annotation"] != names["annotation"]
  left = annotations.read(_put(tmp_path, "a.json", coco), WORDS)
  right = annotations.read(_put(tmp_path, "b.json", names), WORDS)
  for a, b in zip(left, right, strict=True):
    _same(a, b)


def test_interactions_mean_what_the_file_says(tmp_path):
  """The same labels where the file numbers the interactions backwards."""
  content = hico_fixture.upt("train")
  plain = annotations.read(_put(tmp_path, "a.json", content), WORDS)
  last = len(WORDS) - 1
  content["correspondence"] = [
    [last - hoi, object_, verb]
    for hoi, object_, verb in content["correspondence"]
  ]
  for entry in content["annotation"]:
    entry["hoi"] = [last - hoi for hoi in entry["hoi"]]
  turned = annotations.read(_put(tmp_path, "b.json", content), WORDS)
  for a, b in zip(plain, turned, strict=True):
    _same(a, b)


def _records(directory, split):
  layout = folder.find(directory)
  return folder.read_records(layout, split, WORDS)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
  return {
    form: hico_fixture.write(tmp_path_factory.mktemp(form), form)
    for form in folder.FORMS
  }


@pytest.mark.parametrize("split", ["train", "test"])
def test_both_forms_give_the_same_records(folders, split):
  left, right = (_records(folders[form], split) for form in folder.FORMS)
  assert len(left) == len(hico_fixture.IMAGES[split])
  for a, b in zip(left, right, strict=True):
    assert (a.name, a.height, a.width) == (b.name, b.height, b.width)
    for field in ("boxes", "objects", "pairs", "labels"):
      x, y = getattr(a, field), getattr(b, field)
      assert x.dtype == y.dtype
      np.testing.assert_array_equal(x, y, err_msg=f"{a.name} {field}")


def test_records_are_what_was_annotated(folders):
  for split, images in hico_fixture.IMAGES.items():
    for record in _records(folders["upt"], split):
      found = []
      for pair, interaction in record.labels:
        human, object_ = record.pairs[pair]
        assert record.objects[human] == WORDS.person
        assert record.objects[object_] == WORDS.object_of[interaction]
        found.append(
          (
            record.boxes[human].tolist(),
            record.boxes[object_].tolist(),
            WORDS.names[interaction],
          )
        )
      assert found == images[record.name]
  first = _records(folders["upt"], "train")[0]
  # Two labels of one pair of two boxes.
  assert first.pairs.tolist() == [[0, 1]]
  assert first.labels[:, 0].tolist() == [0, 0]
  assert first.boxes.shape == (2, 4)


def test_a_box_of_another_object_stays_apart():
  """One rectangle that is a person in one pair and a dog in the other."""
  box = hico_fixture.RIDER
  place = records.Place(*[hico_fixture.SHARED / "x"] * 2)
  hois = [hico_fixture.number(x) for x in ("hug person", "walk dog")]
  labels = records.ImageLabels(
    place,
    (48, 64),
    np.array([box, box], float),
    np.array([box, box], float),
    np.array(hois, np.int32),
    np.array([True, True]),
    None,
  )
  found = records.merge(labels, (48, 64), WORDS.object_of, WORDS.person)
  dog = WORDS.objects.index("dog")
  assert found.objects.tolist() == [WORDS.person, dog]
  assert found.pairs.tolist() == [[0, 0], [0, 1]]


def test_boxes_are_cut_to_the_image_and_invisible_pairs_left_out(tmp_path):
  entry = TEST_LIST | {"width": 638, "invis": [False]}
  (item,) = annotations.read(_put(tmp_path, "a.json", [entry]), WORDS)
  record = folder.to_record(item, WORDS)
  assert record.boxes[0].tolist() == [1, 1, 637, 474]
  (item,) = annotations.read(
    _put(tmp_path, "a.json", [entry | {"invis": [True]}]), WORDS
  )
  record = folder.to_record(item, WORDS)
  assert (record.boxes.shape, record.labels.shape) == ((0, 4), (0, 2))


BOX = [[1.0, 1.0, 5.0, 5.0]]


@pytest.mark.parametrize(
  ("change", "words"),
  [
    ({"boxes_h": [[9.0, 1.0, 5.0, 5.0]]}, "boxes_h 0 .* negative size"),
    ({"boxes_o": [[1.0, 1.0, float("nan"), 5.0]]}, "boxes_o 0 .*nan.* finite"),
    ({"boxes_h": [[1.0, 1.0, 5.0]]}, "boxes_h 0 is .* not 4 finite numbers"),
    ({"boxes_h": [[1, 1, 5, "x"]]}, "boxes_h 0 is .* not 4 finite numbers"),
    ({"boxes_h": [[0.0, 1.0, 5.0, 5.0]]}, "count pixels from 1"),
    ({"boxes_h": [[1.0, 1.0, 900.0, 5.0]]}, "outside the image of 640 x 480"),
    ({"hoi": [600]}, "hoi 0 is 600, which does not exist"),
    ({"hoi": ["ride"]}, "no interaction is called 'ride'"),
    ({"hoi": [True]}, "hoi 0 is True"),
    ({"hoi": [232, 232]}, "1 boxes_h, 1 boxes_o, 2 hoi"),
    ({"hoi": None}, "no list 'hoi'"),
    ({"verb": [3]}, "verb 0 is 3, but hoi 232 is 'hold skis'|but hoi 232"),
    ({"invis": ["no"]}, "'invis'"),
    ({"width": "wide"}, "the size is \\['wide', 480\\]"),
    ({"file_name": "a/b.jpg"}, "'file_name' is 'a/b.jpg'"),
  ],
)
def test_wrong_entries_are_refused_by_name(tmp_path, change, words):
  path = _put(tmp_path, "some.json", [TEST_LIST | change])
  with pytest.raises(InputError, match=words) as error:
    annotations.read(path, WORDS)
  assert "some.json" in str(error.value)
  assert "Remedy" in str(error.value)
  if "file_name" not in change:
    assert TEST_NAME in str(error.value)


def _label(**change):
  label = FIRST_QPIC["hoi_annotation"][0] | change
  return {"hoi_annotation": [label]}


def _box(**change):
  boxes = FIRST_QPIC["annotations"]
  return {"annotations": [boxes[0] | change, boxes[1]]}


@pytest.mark.parametrize(
  ("change", "words"),
  [
    (_label(category_id=118), "verb 118, which does not exist"),
    (_label(category_id=1), "'adjust motorcycle', which is no interaction"),
    (_label(hoi_category_id=152), "hoi_category_id 152, but .* is 153"),
    (_label(object_id=2), "object_id 2, there are 2 boxes"),
    (_label(object_id=-1), "object_id -1"),
    (_label(subject_id=1), "motorcycle of box 1 as its subject"),
    (_box(category_id=12), "category_id 12, which does not exist"),
    (_box(bbox=[10, 10, 5, 20]), "box 0 is .* negative size"),
    ({"annotations": None}, "no list 'annotations'"),
    ({"hoi_annotation": None}, "no list 'hoi_annotation'"),
  ],
)
def test_wrong_entries_of_the_other_form(tmp_path, change, words):
  path = _put(tmp_path, "trainval_hico.json", [FIRST_QPIC, FIRST_QPIC | change])
  with pytest.raises(InputError, match=words):
    annotations.read(path, WORDS)


@pytest.mark.parametrize(
  ("change", "words"),
  [
    ({"filenames": []}, "1 and 0 and 1 entries"),
    ({"objects": ["person"]}, "has not all of 'verbs', 'objects'"),
    (
      {"verbs": ["fly high"], "objects": ["person"], "correspondence": []},
      "'verbs' has 'fly high', which do not exist",
    ),
    (
      {"verbs": ["fly"], "objects": ["zebra"], "correspondence": [[0, 0, 0]]},
      "'fly zebra', which is no interaction",
    ),
  ],
)
def test_wrong_files_of_instances(tmp_path, change, words):
  path = _put(tmp_path, "instances_train2015.json", FIRST_UPT | change)
  with pytest.raises(InputError, match=words):
    annotations.read(path, WORDS)


@pytest.mark.parametrize(
  ("text", "words"),
  [
    ("[]", "list without entries, which is none of the forms"),
    ('{"a": 1}', "holds a dict, which is none of the forms"),
    ('[{"file_name": "a.jpg", "boxes_h"', "cut off or is not JSON"),
    (json.dumps([TEST_LIST, TEST_LIST]), "00000017.jpg twice"),
  ],
)
def test_wrong_files_are_refused(tmp_path, text, words):
  path = tmp_path / "test.json"
  path.write_text(text)
  with pytest.raises(InputError, match=words):
    annotations.read(path, WORDS)


def test_folders_have_to_be_whole_and_of_one_form(tmp_path, folders):
  with pytest.raises(
    InputError, match=r"trainval_hico.json, test_hico.json, i"
  ):
    folder.find(tmp_path)
  both = hico_fixture.write(tmp_path / "both", "qpic")
  for split, name in hico_fixture.UPT.items():
    (both / name).write_text(json.dumps(hico_fixture.upt(split)))
  with pytest.raises(InputError, match="two forms, qpic and upt"):
    folder.find(both)
  assert folder.find(both, "upt").annotations["test"] == (
    both / "instances_test2015.json"
  )
  layouts = [folder.find(path) for path in folders.values()]
  assert layouts[0].fingerprint() != layouts[1].fingerprint()
  assert layouts[0].fingerprint() == folder.find(folders["qpic"]).fingerprint()


@pytest.mark.parametrize("form", folder.FORMS)
def test_check_passes_a_sound_folder(folders, form, tmp_path, capsys):
  out = tmp_path / "report.json"
  assert check.main([str(folders[form]), f"--report={out}"]) == 0
  said = capsys.readouterr().out
  assert "train  4 images, 4 with labels, 7 labels of 7 interactions" in said
  assert "test   3 images, 2 with labels" in said
  assert "UV     84 unseen, 516 seen interactions; 2 and 5 training" in said
  assert "images: all whole" in said
  content = json.loads(out.read_text())
  assert content["counts"]["train"]["labels"] == 7
  assert content["images"]["test"]["images"] == 3
  assert not content["problems"]


def test_check_tells_all_that_is_wrong(tmp_path, capsys):
  directory = hico_fixture.write(tmp_path / "hico", "qpic")
  train = hico_fixture.qpic("train")
  train[0]["annotations"][0]["bbox"] = [9, 9, 3, 20]
  train[1]["hoi_annotation"][0]["category_id"] = 200
  # Nothing but the image tells that this box is outside.
  train[2]["annotations"][0]["bbox"] = [9, 9, 300, 20]
  test = hico_fixture.qpic("test")
  test[0]["file_name"] = train[3]["file_name"]
  images = directory / "images"
  (images / "train2015" / train[3]["file_name"]).write_bytes(b"no image")
  where = directory / "annotations"
  (where / "trainval_hico.json").write_text(json.dumps(train))
  (where / "test_hico.json").write_text(json.dumps(test))
  assert check.main([str(directory)]) == 1
  said = capsys.readouterr().out
  for words in (
    "box 0 is [9, 9, 3, 20], of negative size",
    "verb 200, which does not exist",
    "outside the image of 64 x 48 pixels",
    "is in the splits train and test",
    "test: image HICO_train2015_00000004.jpg is missing",
    "HICO_train2015_00000004.jpg: cannot be decoded",
    "note: 1 images without an entry: test: HICO_test2015_00000001.jpg",
  ):
    assert words in said, said
  assert "6 problems" in said


def test_check_doubts_a_file_without_a_box_at_the_edge(tmp_path, capsys):
  directory = hico_fixture.write(tmp_path / "hico", "qpic")
  entry = hico_fixture.qpic("train")[0]
  for box in entry["annotations"]:
    box["bbox"] = [5, 5, 30, 30]
  entry["hoi_annotation"] *= 600
  path = directory / "annotations" / "trainval_hico.json"
  path.write_text(json.dumps([entry]))
  assert check.main([str(directory), "--records-only"]) == 0
  said = capsys.readouterr().out
  assert "doubt about the first pixel" in said
  assert "labels given twice: 1198 of them" in said


@pytest.mark.parametrize("form", ["qpic", "upt"])
@pytest.mark.parametrize("share", [0.4, 1.0])
def test_check_doubts_boxes_of_a_smaller_image(tmp_path, capsys, form, share):
  """Annotations of no kind leave the far sides of all images bare."""
  directory = hico_fixture.write(tmp_path / "hico", form)
  path = next((directory / "annotations").glob("*train*"))
  content = json.loads(path.read_text())

  def smaller(boxes):
    return [[max(1, share * x) for x in box] for box in boxes]

  for entry in content if form == "qpic" else content["annotation"]:
    if form == "qpic":
      for box in entry["annotations"]:
        box["bbox"] = smaller([box["bbox"]])[0]
      entry["hoi_annotation"] *= 60
    else:
      for key in ("boxes_h", "boxes_o"):
        entry[key] = 60 * smaller(entry[key])
      for key in ("hoi", "verb", "object"):
        entry[key] *= 60
  path.write_text(json.dumps(content))
  assert check.main([str(directory)]) == 0
  said = capsys.readouterr().out
  assert ("reaches the last quarter" in said) == (share < 1), said


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data/hico_det")
def test_real_test_annotations():
  found = annotations.read(SHARED / "test2015_annotations.json", WORDS)
  assert len(found) == 9658
  assert sum(not len(item.interactions) for item in found) == 112
  assert sum(len(item.interactions) for item in found) == 33405
  corners = annotations.corners(found)
  # Counted from 0, so that some boxes begin at the first pixel.
  assert corners.min(axis=0)[:2].tolist() == [0, 0]
  seen = np.unique(np.concatenate([item.interactions for item in found]))
  assert len(seen) == 600
