"""Files of others: one message for any fault; byte order marks are read."""

import gzip
import json

import pytest

from input_pipeline.io import json_files
from input_pipeline.io.errors import InputError

DAMAGED = {
  "cut off": ('{"a": [1, 2', "is cut off or is not JSON"),
  "empty": ("", "is cut off or is not JSON"),
  "key twice": ('{"a": 1, "a": 2}', "has the key 'a' twice"),
  "deep": ("[" * 100_000, "is nested too deeply"),
  "digits": ("1" * 5000, "has a whole number of more than 4300 digits"),
  "half a character": ('{"a": "\\ud83d"}', "has half a character"),
  "UTF-16": ('{"a": 1}'.encode("utf-16"), "is UTF-16 text, or no text"),
  "UTF-16 without a mark": ('{"a": 1}'.encode("utf-16-le"), "is UTF-16 text"),
  "compressed": (gzip.compress(b"{}"), "is compressed by gzip"),
  "not UTF-8": (b'{"a": "\xff"}', "is not UTF-8 text: byte 7"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_one_message_names_the_file(name, tmp_path):
  content, said = DAMAGED[name]
  path = tmp_path / "some.json"
  path.write_bytes(content if isinstance(content, bytes) else content.encode())
  with pytest.raises(InputError, match=f"some.json {said}"):
    json_files.read(path)


def test_files_that_are_not_there(tmp_path):
  with pytest.raises(InputError, match="is missing"):
    json_files.read(tmp_path / "none.json")
  with pytest.raises(InputError, match="is a folder"):
    json_files.read(tmp_path)


def test_the_mark_of_windows_editors_is_no_text(tmp_path):
  path = tmp_path / "some.json"
  path.write_bytes("\ufeff".encode() + json.dumps({"é": 1}).encode())
  assert json_files.read(path) == {"é": 1}


def test_whole_pairs_of_halves_are_text():
  assert json_files.parse('["\\ud83d\\ude00"]', "here") == ["😀"]


FORM = {
  "step": int,
  "loss": float,
  "names": [str],
  "files": {str: {"bytes": int}},
  "best": ({"value": float}, type(None)),
}
GOOD = {
  "step": 1,
  "loss": 2,
  "names": ["a"],
  "files": {"x": {"bytes": 3, "more": None}},
  "best": None,
  "other": [],
}


def test_what_fits_is_taken():
  json_files.check(GOOD, FORM, "file")
  json_files.check(GOOD | {"best": {"value": 0.5}}, FORM, "file")


WRONG = {
  "step": (True, "file: step is True, expected a whole number"),
  "loss": ("1", "file: loss is '1', expected a number"),
  "names": (["a", 1], r"file: names\[1\] is 1, expected a text"),
  "files": ({"x": {}}, "file: files.x.bytes is missing, expected a whole"),
  "best": ({"value": []}, r"file: best.value is \[\], expected a number"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_named(name):
  value, said = WRONG[name]
  with pytest.raises(InputError, match=said):
    json_files.check(GOOD | {name: value}, FORM, "file")


def test_a_missing_or_wholly_wrong_content_is_named():
  with pytest.raises(InputError, match="file is a list, expected an object"):
    json_files.check([0] * 100, FORM, "file")
  with pytest.raises(InputError, match="expected an object or null"):
    json_files.check(GOOD | {"best": 3}, FORM, "file")
