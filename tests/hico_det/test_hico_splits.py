"""HICO-DET's interactions and zero-shot splits, and training without some."""

import dataclasses
import json

import numpy as np
import pytest

from input_pipeline.hico_det import folder, split_files, splits, vocabulary
from input_pipeline.io.errors import InputError
from tests.fixtures import hico_fixture
from tests.fixtures.hico_fixture import SHARED, WORDS

OBJECTS = [
  "dog",
  "elephant",
  "zebra",
  "frisbee",
  "skis",
  "baseball_bat",
  "skateboard",
  "tennis_racket",
  "pizza",
  "refrigerator",
  "clock",
  "toothbrush",
]
VERBS = [
  "block",
  "dribble",
  "feed",
  "herd",
  "hose",
  "inspect",
  "install",
  "move",
  "park",
  "ride",
  "sail",
  "scratch",
  "sign",
  "squeeze",
  "stab",
  "stop_at",
  "swing",
  "tag",
  "toast",
  "wear",
]
COUNTS = {
  "RF-UC": 120,
  "NF-UC": 120,
  "UO": 100,
  "UV": 84,
  **{f"UC{i}": 120 for i in range(5)},
  "UA": 100,
}


def test_counts_are_those_of_hico_det():
  assert (len(WORDS), len(WORDS.verbs), len(WORDS.objects)) == (600, 117, 80)
  assert WORDS.rare.sum() == 138
  assert WORDS.no_interaction.sum() == 80
  assert len(set(WORDS.object_of[WORDS.no_interaction])) == 80
  assert list(WORDS.verbs) == sorted(WORDS.verbs)
  assert WORDS.verbs[57] == "no_interaction"
  assert WORDS.category_ids[WORDS.person] == 1


def test_texts():
  assert WORDS.texts[0] == "a photo of a person boarding an airplane"
  assert WORDS.texts[-1] == "a photo of a person and a zebra"
  sit = hico_fixture.number("sit on bench")
  assert WORDS.texts[sit] == "a photo of a person sitting on a bench"
  assert WORDS.object_texts[4] == "a photo of an airplane"
  # Any pair has a text, an interaction or not.
  fly, zebra = WORDS.verbs.index("fly"), WORDS.objects.index("zebra")
  assert WORDS.table[fly, zebra] == -1
  assert WORDS.text(fly, zebra) == "a photo of a person flying a zebra"


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data/hico_det")
def test_classes_and_splits_are_the_protocols():
  def read(name):
    return json.loads((SHARED / name).read_text())

  rows = read("hoi_600.json")
  assert list(WORDS.texts) == [row["text"] for row in rows]
  assert WORDS.verb_of.tolist() == [row["verb_id"] for row in rows]
  assert WORDS.object_of.tolist() == [row["object_id"] for row in rows]
  assert (
    np.flatnonzero(WORDS.rare).tolist() == read("rare_nonrare.json")["rare"]
  )
  assert list(WORDS.verbs) == read("verbs_117.json")
  lists = read("zero_shot_splits.json")
  keys = {
    "RF-UC": "rare_first",
    "NF-UC": "non_rare_first",
    "UO": "unseen_object",
    "UV": "unseen_verb",
    "UA": "eoid_unseen_action",
    **{f"UC{i}": f"uc{i}" for i in range(5)},
  }
  assert set(keys) == set(COUNTS)
  for name, key in keys.items():
    unseen = np.flatnonzero(splits.load(name, WORDS).unseen)
    assert unseen.tolist() == sorted(lists[key]["unseen"]), name


def test_splits_have_the_published_counts():
  assert splits.names() == ("full", *COUNTS)
  for name, number in COUNTS.items():
    split = splits.load(name, WORDS)
    assert split.unseen.sum() == number, name
    assert split.seen.sum() == 600 - number, name
  assert not splits.load("full", WORDS).unseen.any()


def test_splits_are_made_as_their_names_say():
  def load(name):
    return splits.load(name, WORDS)

  assert not (load("RF-UC").unseen & ~WORDS.rare).any()
  assert not (load("NF-UC").unseen & WORDS.rare).any()
  objects = [WORDS.objects[i] in OBJECTS for i in WORDS.object_of]
  assert (load("UO").unseen == objects).all()
  verbs = [WORDS.verbs[i] in VERBS for i in WORDS.verb_of]
  assert (load("UV").unseen == verbs).all()


def test_which_splits_are_of_known_parts():
  """In RF-UC and NF-UC each verb and object is trained; in UC0 to 4 not."""
  lost = {}
  for name in COUNTS:
    seen = splits.load(name, WORDS).seen
    lost[name] = (
      117 - len(set(WORDS.verb_of[seen])),
      80 - len(set(WORDS.object_of[seen])),
    )
  assert lost["RF-UC"] == lost["NF-UC"] == (0, 0)
  # UO takes 12 objects, UV 20 verbs out of training, as they say.
  assert lost["UO"][1] == 12
  assert lost["UV"] == (20, 0)
  assert all(9 <= lost[f"UC{i}"][0] <= 10 for i in range(5))


def test_own_splits(tmp_path):
  path = tmp_path / "splits.json"
  path.write_text(
    json.dumps({"source": "me", "splits": {"A": {"unseen": [1]}}})
  )
  assert splits.names(tmp_path) == ("full", "A")
  assert splits.load("A", WORDS, tmp_path).unseen.tolist().index(True) == 1


@pytest.mark.parametrize(
  ("entry", "words"),
  [
    ({"unseen": [600]}, "600"),
    ({"unseen": [1, 1]}, "twice"),
    ({"unseen": []}, "no list 'unseen'"),
    ({"unseen": list(range(600))}, "no interaction seen"),
    ({"unseen": [1], "sha256": splits.digest([2])}, "does not fit its sha256"),
    (None, "no list 'unseen'"),
  ],
)
def test_wrong_lists_are_refused(tmp_path, entry, words):
  path = tmp_path / "splits.json"
  path.write_text(json.dumps({"splits": {"A": entry}}))
  with pytest.raises(InputError, match=words):
    splits.load("A", WORDS, path)


def test_unknown_names_are_refused(tmp_path):
  with pytest.raises(InputError, match="choose one of full, RF-UC, NF-UC"):
    splits.load("UV2", WORDS)
  with pytest.raises(InputError, match="'fly zebra', 'eat bench'"):
    WORDS.interactions(["ride_bicycle", "fly zebra", "eat bench"], "list.txt")


@pytest.mark.parametrize(
  ("key", "value", "words"),
  [
    ("verbs", [["ride", "riding"], ["ride", "riding"]], "verb 'ride' twice"),
    ("objects", [["horse", "a", 19]], "no object 'person'"),
    ("interactions", [[0, 2]], "interaction 0, of 1 verbs and 2 objects"),
    ("interactions", [[0, 1], [0, 1]], "an interaction twice"),
    ("interactions", [[0]], "as entry 0"),
    ("rare", [5], "no list 'rare'"),
  ],
)
def test_wrong_classes_are_refused(tmp_path, key, value, words):
  content = {
    "verbs": [["ride", "riding"]],
    "objects": [["person", "a", 1], ["horse", "a", 19]],
    "interactions": [[0, 1]],
    "rare": [],
  }
  path = tmp_path / "classes.json"
  path.write_text(json.dumps(content))
  assert vocabulary.load(tmp_path).texts == (
    "a photo of a person riding a horse",
  )
  path.write_text(json.dumps(content | {key: value}))
  with pytest.raises(InputError, match=words):
    vocabulary.load(tmp_path)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
  directory = hico_fixture.write(tmp_path_factory.mktemp("hico"), "qpic")
  layout = folder.find(directory)
  return folder.read_records(layout, "train", WORDS)


def _names(record):
  return {WORDS.names[i] for i in record.labels[:, 1]}


def test_dropping_by_pair_and_by_label_differ(records):
  """A pair "ride" (unseen) and "sit on" (seen): gone, or half of it left."""
  split = splits.load("UV", WORDS)
  assert splits.without_unseen(records[0], split, "pair") is None
  left = splits.without_unseen(records[0], split, "label")
  assert _names(left) == {"sit on bicycle"}
  assert left.pairs.tolist() == [[0, 1]]


def test_boxes_of_dropped_pairs_go_as_well(records):
  split = splits.load("UO", WORDS)
  for dropping in splits.DROPPING:
    left = splits.without_unseen(records[1], split, dropping)
    assert _names(left) == {"push bicycle"}
    names = [WORDS.objects[i] for i in left.objects]
    assert names == ["person", "bicycle"]
    human, object_ = left.boxes[left.pairs[0]].tolist()
    assert human == hico_fixture.RIDER
    assert object_ == hico_fixture.BICYCLE
    assert left.labels.shape == (1, 2)
    assert left.labels[0, 0] == 0
    assert splits.without_unseen(records[3], split, dropping) is None


def test_a_record_without_unseen_labels_stays(records):
  split = splits.load("UV", WORDS)
  assert splits.without_unseen(records[2], split, "pair") is records[2]
  with pytest.raises(InputError, match="'image'"):
    splits.without_unseen(records[2], split, "image")


def test_split_files_tell_what_is_left(tmp_path, capsys):
  directory = hico_fixture.write(tmp_path / "hico", "qpic")
  found = {}
  for dropping in splits.DROPPING:
    out = tmp_path / f"{dropping}.json"
    arguments = [str(directory), "--split=UV", f"--dropping={dropping}"]
    assert split_files.main([*arguments, f"--out={out}"]) == 0
    found[dropping] = json.loads(out.read_text())
    assert "84 unseen" in capsys.readouterr().out
  by_pair, by_label = (found[d]["training"] for d in splits.DROPPING)
  assert (by_pair["images"], by_pair["labels"]) == (3, 4)
  assert (by_label["images"], by_label["labels"]) == (4, 5)
  assert by_pair["sha256_of_labels"] != by_label["sha256_of_labels"]
  assert found["pair"]["sha256"] == splits.load("UV", WORDS).sha256
  # The hash is of the labels, not of their order.
  layout = folder.find(directory)
  kept = split_files.training(
    folder.read_records(layout, "train", WORDS)[::-1],
    splits.load("UV", WORDS),
    "label",
  )
  kept = [dataclasses.replace(r, labels=r.labels[::-1]) for r in kept]
  assert any(len(record.labels) > 1 for record in kept)
  assert split_files.labels_digest(kept) == by_label["sha256_of_labels"]
  out = tmp_path / "none.json"
  assert split_files.main([str(directory), "--split=X", f"--out={out}"]) == 2
  assert "no split 'X'" in capsys.readouterr().err
  assert not out.exists()
