"""Boxes, nouns, names and splits of another kind are refused early.

`--check` reports them, and a build refuses them before it reads an image.
"""

import json
import pathlib

import pytest

from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig import __main__ as command
from input_pipeline.ov_swig import check, layout
from input_pipeline.ov_swig import folder as folder_lib
from tests.fixtures import swig_fixture

IMAGE = "jumping_train_0.jpg"


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
  return swig_fixture.write(tmp_path / "swig", per_verb=2)


def _records(folder, split="train"):
  return swig_fixture.load(folder / "SWiG_jsons" / f"{split}.json")


def _write(folder, records, split="train"):
  swig_fixture.dump(folder / "SWiG_jsons" / f"{split}.json", records)


def _boxes(change, split="train"):
  """Changes every box: change(box, height, width)."""

  def spoil(folder):
    records = _records(folder, split)
    for entry in records.values():
      for role, box in entry["bb"].items():
        if box[0] != -1:
          size = entry["height"], entry["width"]
          entry["bb"][role] = change(box, *size)
    _write(folder, records, split)

  return spoil


def _shares(box, height, width):
  return [box[0] / width, box[1] / height, box[2] / width, box[3] / height]


def _xywh(box, _height, _width):
  return [box[0], box[1], box[2] - box[0], box[3] - box[1]]


def _nouns(change, split="train"):
  def spoil(folder):
    records = _records(folder, split)
    for entry in records.values():
      for frame in entry["frames"]:
        for role, noun in frame.items():
          frame[role] = change(noun) if noun else noun
    _write(folder, records, split)

  return spoil


def _word(noun):
  return swig_fixture.NOUNS[noun][0]


def _sizes_from_images(spoil):
  """Without height and width in the records, too."""

  def without(folder):
    spoil(folder)
    records = _records(folder)
    for entry in records.values():
      del entry["height"], entry["width"]
    _write(folder, records)

  return without


SPOILT = {
  "shares": (_boxes(_shares), "train.json", "lie within 0..1"),
  "shares of dev": (_boxes(_shares, "dev"), "dev.json", "lie within 0..1"),
  "whole image in shares": (
    _boxes(lambda *_: [0, 0, 1, 1], "test"),
    "test.json",
    "lie within 0..1",
  ),
  "centre and size in shares": (
    _boxes(lambda *_: [0.9, 0.5, 0.2, 0.3]),
    "train.json",
    "lie within 0..1",
  ),
  "thousandths": (
    _boxes(lambda box, h, w: [round(1000 * x) for x in _shares(box, h, w)]),
    "train.json",
    "or are thousandths",
  ),
  "thousandths, size from images": (
    _sizes_from_images(
      _boxes(lambda box, h, w: [round(1000 * x) for x in _shares(box, h, w)])
    ),
    "train.json",
    "or are thousandths",
  ),
  "larger images": (
    _boxes(lambda box, *_: [100 * x for x in box], "dev"),
    "dev.json",
    "images of another size",
  ),
  "flipped": (
    _boxes(lambda box, *_: [*box[2:], *box[:2]]),
    "train.json",
    "the wrong way round",
  ),
  "x y width height": (
    _boxes(_xywh),
    "train.json",
    "all fit their images as x y width height",
  ),
  "texts": (
    _boxes(lambda box, *_: [str(x) for x in box], "dev"),
    "dev.json",
    "28 of 28 boxes are not four numbers",
  ),
  "one for each annotator": (
    _boxes(lambda box, *_: [box] * 3),
    "train.json",
    "28 of 28 boxes are not four numbers",
  ),
  "keys": (
    _boxes(lambda box, *_: dict(zip("xywh", box, strict=True))),
    "train.json",
    "28 of 28 boxes are not four numbers",
  ),
  "points": (
    _boxes(lambda box, *_: [*box[:2], *box[:2]], "test"),
    "test.json",
    "28 of 28 boxes are empty",
  ),
  "rows first": (
    _boxes(lambda _, h, w: [h - 9, w - 9, h, w] if h != w else [0, 0, 9, 9]),
    "train.json",
    "with x and y exchanged",
  ),
  "capitals of nouns": (_nouns(str.upper), "train.json", "in capitals"),
  "capitals of nouns of test": (
    _nouns(str.upper, "test"),
    "test.json",
    "in capitals",
  ),
  "words for nouns": (
    _nouns(_word, "dev"),
    "dev.json",
    "are words, not names",
  ),
  "other nouns": (
    _nouns(lambda noun: f"x{noun}"),
    "train.json",
    "has no such noun",
  ),
  "unlisted nouns": (
    _nouns(lambda _: swig_fixture.UNLISTED),
    "train.json",
    "but not in train_classes.csv",
  ),
}


@pytest.mark.parametrize("name", SPOILT)
@pytest.mark.parametrize("skip_broken", [False, True])
def test_a_file_of_another_kind_is_refused(
  folder, monkeypatch, name, skip_broken
):
  spoil, file, says = SPOILT[name]
  spoil(folder)

  def never(*_):
    raise AssertionError("images are read")

  monkeypatch.setattr(folder_lib, "take_out", never)
  with pytest.raises(InputError, match=says) as error:
    folder_lib.read_folder(folder, skip_broken=skip_broken)
  assert file in error.value.problem and error.value.remedy


@pytest.mark.parametrize("name", SPOILT)
def test_a_file_of_another_kind_is_a_problem(folder, capsys, name):
  spoil, file, says = SPOILT[name]
  spoil(folder)
  assert command.main(["--check", str(folder), "--records-only"]) == 1
  problems = capsys.readouterr().out.split("problem: ")[1:]
  assert any(file in one and says in one for one in problems)


def test_derived_classes_that_differ_by_capitals(tmp_path, capsys):
  """Without train_classes.csv no class is left, since no name is known."""
  folder = swig_fixture.write(tmp_path / "swig", index_files=False)
  _nouns(str.upper)(folder)
  assert command.main(["--check", str(folder), "--records-only"]) == 1
  out = capsys.readouterr().out
  assert "100.0% of nouns out of the vocabulary" in out
  assert "is there as 'n" in out


def test_a_few_nouns_that_differ_by_capitals_are_noted(folder, caplog, capsys):
  records = _records(folder)
  for frame in records[IMAGE]["frames"]:
    frame["agent"] = "N10287213"
  _write(folder, records)
  assert command.main(["--check", str(folder), "--records-only"]) == 0
  assert "N10287213 for n10287213" in capsys.readouterr().out
  folder_lib.read_folder(folder)
  assert "'N10287213' (a class is 'n10287213')" in caplog.text


def test_boxes_of_one_quarter_are_noted(folder, caplog, capsys):
  """x y width height that could be corners cannot be noticed."""
  _boxes(lambda *_: [2, 2, 9, 9])(folder)
  assert command.main(["--check", str(folder), "--records-only"]) == 0
  assert "train.json: every box has its centre" in capsys.readouterr().out
  folder_lib.read_folder(folder)
  assert "every box has its centre" in caplog.text


def test_boxes_of_whole_images_are_in_no_quarter(folder, capsys):
  for split in ("train", "dev", "test"):
    _boxes(lambda _, h, w: [0, 0, w, h], split)(folder)
  assert command.main(["--check", str(folder), "--records-only"]) == 0
  assert "every box has its centre" not in capsys.readouterr().out


@pytest.mark.parametrize("none", [[0, 0, 0, 0], [], [-1], ["-1"] * 4, -1, ""])
def test_other_words_for_no_box_are_dropped_where_asked(folder, none):
  """Each is a fault of its record, not of the file as a whole."""
  records = _records(folder)
  for entry in records.values():
    entry["bb"] = dict.fromkeys(entry["bb"], none)
  _write(folder, records)
  with pytest.raises(InputError, match=IMAGE):
    folder_lib.read_folder(folder)
  found = folder_lib.read_folder(folder, skip_broken=True).splits["train"]
  assert all((record.boxes == -1).all() for record in found)


@pytest.mark.parametrize(
  ("field", "change", "said"),
  [
    ("frames", lambda _: [{}], "in which every noun is blank: train"),
    ("bb", lambda bb: dict.fromkeys(bb), "without a box, nothing is"),
  ],
)
def test_splits_without_nouns_or_boxes_are_noted(
  folder, capsys, field, change, said
):
  records = _records(folder)
  for entry in records.values():
    entry[field] = change(entry[field])
  assert said not in _checked(folder, capsys)
  _write(folder, records)
  assert said in _checked(folder, capsys)


def _checked(folder, capsys) -> str:
  assert command.main(["--check", str(folder), "--records-only"]) == 0
  return capsys.readouterr().out


@pytest.mark.parametrize("name", [IMAGE[:-4], IMAGE[:-4] + ".png"])
def test_an_image_of_another_ending_is_named(folder, capsys, name):
  records = _records(folder)
  records[name] = records.pop(IMAGE)
  _write(folder, records)
  assert command.main(["--check", str(folder), "--records-only"]) == 1
  said = f"image {name} is missing; {IMAGE!r} is there"
  assert said in capsys.readouterr().out


def test_one_box_in_shares_among_pixels_is_refused(folder):
  records = _records(folder)
  records[IMAGE]["bb"]["agent"] = [0.1, 0.2, 0.8, 1]
  _write(folder, records)
  with pytest.raises(InputError, match="a share of the image") as error:
    folder_lib.read_folder(folder)
  assert IMAGE in error.value.problem and "'agent'" in error.value.problem


@pytest.mark.parametrize(
  ("box", "is_there"),
  [
    ([-1, -1, -1, -1], False),
    ([-1, 5, 10, 20], False),
    ([-1.0, -1, 30, 30], False),
    (None, False),
    ([0, 5, 10, 20], True),
    ([-0.5, 5, 10, 20], True),
    ([-2, 5, 10, 20], True),
  ],
)
def test_a_box_whose_first_number_is_minus_one_is_none(folder, box, is_there):
  records = _records(folder)
  records[IMAGE]["bb"]["agent"] = box
  _write(folder, records)
  (record,) = (
    r for r in folder_lib.read_folder(folder).splits["train"] if r.name == IMAGE
  )
  assert (record.boxes[0] != -1).any() == is_there
  notes = check.check_records(folder)[0].notes
  partial = box is not None and not is_there and box[1:] != [-1] * 3
  assert ("boxes whose first number is -1, taken as none" in notes) == partial


@pytest.mark.parametrize(
  "box",
  [
    [5, 5, float("inf"), 9],
    [5, float("nan"), 9, 9],
    [5, 5, 10**400, 9],
    [5, 5, True, 9],
    [5, 5, "9", 9],
    [5, 5, 9],
    {"x": 5},
    "5 5 9 9",
    [[5, 5], [9, 9]],
    [8, 5, 8, 9],
    [9, 5, 2, 9],
    [5, 5, 5.0000000001, 9],
    [9000, 5, 9001, 9],
  ],
)
def test_what_can_be_no_box_is_named_or_dropped_and_counted(folder, box):
  records = _records(folder)
  records[IMAGE]["bb"]["agent"] = box
  _write(folder, records)
  with pytest.raises(InputError, match=f"{IMAGE}, role 'agent': ") as error:
    folder_lib.read_folder(folder)
  assert len(error.value.problem) < 400
  content = folder_lib.read_folder(folder, skip_broken=True)
  (wrong,) = content.wrong_boxes
  assert wrong.lost and wrong.image == IMAGE and wrong.role == "agent"


def test_blank_is_no_noun_and_padding_is_none_either(folder):
  records = _records(folder)
  records[IMAGE]["frames"][0] |= {"agent": "blank", "obstacle": "Pad"}
  _write(folder, records)
  content = folder_lib.read_folder(folder)
  (record,) = (r for r in content.splits["train"] if r.name == IMAGE)
  nouns = content.vocabulary.nouns
  assert nouns[record.nouns[0, 0]] == "blank"
  assert nouns[record.nouns[1, 0]] == "oov"


def _keep(split, keep):
  def spoil(folder):
    records = _records(folder, split)
    kept = {n: r for n, r in records.items() if keep(n, r)}
    _write(folder, kept, split)

  return spoil


@pytest.mark.parametrize(
  ("spoil", "says"),
  [
    (_keep("train", lambda *_: False), "has images of 0 verbs that are not"),
    (_keep("dev", lambda *_: False), "split 'dev' has no images"),
    (_keep("test", lambda *_: False), "split 'test' has no images"),
    (
      _keep("train", lambda _, r: r["verb"] in ("eating", "jumping")),
      "has images of 1 verbs that are not unseen",
    ),
    (
      _keep("train", lambda _, r: r["verb"] == "eating"),
      "has images of 0 verbs that are not unseen",
    ),
    (
      _keep("dev", lambda _, r: r["verb"] == "eating"),
      "has no image of a seen or rare verb",
    ),
  ],
)
def test_splits_that_cannot_do_their_part(
  folder, tmp_path, monkeypatch, capsys, spoil, says
):
  spoil(folder)
  assert command.main(["--check", str(folder), "--records-only"]) == 1
  assert says in capsys.readouterr().out
  arguments = ["--build", str(folder), "--data-dir", str(tmp_path / "data")]
  assert command.main(arguments) == 1
  assert says in capsys.readouterr().err
  assert not list((tmp_path / "data").rglob("*array_record*"))


def _cut_off(path):
  path.write_text(path.read_text()[:-30])


def _capitals(path):
  records = swig_fixture.load(path)
  for entry in records.values():
    entry["verb"] = entry["verb"].capitalize()
  swig_fixture.dump(path, records)


def _no_records(path):
  records = dict.fromkeys(swig_fixture.load(path))
  swig_fixture.dump(path, records)


def _key_twice(path):
  records = swig_fixture.load(path)
  text = json.dumps(records)
  first, second, *_ = records
  path.write_text(text.replace(second, first))


UNREADABLE = {
  "cut off": (_cut_off, "is cut off", 1),
  "capitals": (_capitals, "write it 'jumping'", 12),
  "null": (_no_records, "its record is None, not an object", 12),
  "a list": (lambda p: p.write_text("[]"), "not an object by image name", 1),
  "key twice": (_key_twice, "twice in one object", 1),
  "UTF-16": (lambda p: p.write_text("{}", "utf-16"), "save it as UTF-8", 1),
  "deep": (lambda p: p.write_text("[" * 9**5), "nested too deeply", 1),
  "digits": (lambda p: p.write_text("1" * 5000), "4300 digits", 1),
}


@pytest.mark.parametrize("split", layout.SPLITS)
@pytest.mark.parametrize("name", UNREADABLE)
def test_a_split_without_a_readable_record(tmp_path, capsys, split, name):
  """The faults are reported, and those of the other splits with them."""
  spoil, says, number = UNREADABLE[name]
  folder = swig_fixture.write(tmp_path / "swig", per_verb=2, index_files=False)
  other = {"train": "dev", "dev": "test", "test": "train"}[split]
  records = _records(folder, other)
  del records[f"jumping_{other}_0.jpg"]["frames"]
  _write(folder, records, other)
  spoil(folder / "SWiG_jsons" / f"{split}.json")
  assert command.main(["--check", str(folder), "--records-only"]) == 1
  out = capsys.readouterr().out
  assert f"{split}.json" in out and says in out
  assert f"jumping_{other}_0.jpg: 'frames' is not" in out
  assert f"{number + 1} problems, see above" in out


def test_a_folder_of_broken_images(folder, capsys):
  for path in (folder / "images_512").iterdir():
    path.write_bytes(b"")
  assert command.main(["--check", str(folder)]) == 1
  assert "36 problems, see above" in capsys.readouterr().out


@pytest.mark.parametrize("verbs", [1, 2])
def test_too_few_verbs_to_draw_groups_from(tmp_path, capsys, verbs):
  folder = swig_fixture.write(tmp_path / "swig", ov_splits=False)
  jsons = folder / "SWiG_jsons"
  for name in ("verb_indices.txt", "role_indices.txt"):
    (jsons / name).unlink()
  names = list(swig_fixture.FRAMES)[:verbs]
  space = swig_fixture.space()
  space["verbs"] = {verb: space["verbs"][verb] for verb in names}
  swig_fixture.dump(jsons / "imsitu_space.json", space)
  for split in layout.SPLITS:
    _keep(split, lambda _, r: r["verb"] in names)(folder)
  assert command.main(["--check", str(folder), "--records-only"]) == 1
  out = capsys.readouterr().out
  assert f"cannot draw 1 rare and 1 unseen verbs of {verbs}" in out


@pytest.mark.parametrize(
  "name", ["../other.jpg", "sub/jumping.jpg", "/etc/hostname", "..", "a\\b.jpg"]
)
def test_image_names_are_names_of_files(folder, tmp_path, capsys, name):
  """A path would read files from elsewhere, or another image's."""
  records = _records(folder)
  whole = (folder / "images_512" / IMAGE).read_bytes()
  (folder / "other.jpg").write_bytes(whole)
  (folder / "images_512" / "sub").mkdir()
  (folder / "images_512" / "sub" / "jumping.jpg").write_bytes(whole)
  _write(folder, records | {name: records[IMAGE]})
  for skip_broken in (False, True):
    with pytest.raises(InputError, match="is not the name of a file") as error:
      folder_lib.read_folder(folder, skip_broken=skip_broken)
    assert repr(name) in error.value.problem
  assert command.main(["--check", str(folder), "--records-only"]) == 1
  assert "1 problem, see above" in capsys.readouterr().out


@pytest.mark.parametrize(
  ("recorded", "there"),
  [
    ("Jumping_train_0.JPG", IMAGE),
    ("cafe\u0301.jpg", "café.jpg"),
    ("café.jpg", "cafe\u0301.jpg"),
  ],
)
def test_files_that_differ_in_their_way_of_writing(
  folder, capsys, recorded, there
):
  records = _records(folder)
  records[recorded] = records.pop(IMAGE)
  _write(folder, records)
  images = folder / "images_512"
  (images / IMAGE).rename(images / there)
  with pytest.raises(InputError) as error:
    folder_lib.read_folder(folder)
  assert recorded in error.value.problem
  assert f"{there!r} is there" in error.value.problem
  command.main(["--check", str(folder), "--records-only"])
  assert f"{there!r} is there" in capsys.readouterr().out


def test_links_count_as_the_files_they_lead_to(folder, tmp_path):
  images = folder / "images_512"
  whole = folder_lib.fingerprint(folder)
  (images / IMAGE).rename(tmp_path / IMAGE)
  (images / IMAGE).symlink_to(tmp_path / IMAGE)
  assert folder_lib.fingerprint(folder) == whole
  folder_lib.read_folder(folder)
  (images / IMAGE).unlink()
  (images / IMAGE).symlink_to(IMAGE)  # to itself
  with pytest.raises(InputError, match=f"lacks 1 of 12 .*{IMAGE}"):
    folder_lib.read_folder(folder)
