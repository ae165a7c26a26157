"""Pairs of boxes, the splits that training sees, the drawn world."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from input_pipeline import schema
from input_pipeline.hico_det import pair_columns, vocabulary
from input_pipeline.hico_det.detectors import detections
from input_pipeline.hico_det.detectors.detections import ImageDetections
from input_pipeline.hico_det.pair_columns import Selection
from input_pipeline.hico_det.records import Record
from input_pipeline.io.errors import InputError
from input_pipeline.io.findings import Place
from input_pipeline.small_world.interactions import captions, scenes
from input_pipeline.small_world.interactions import world as world_lib
from input_pipeline.small_world.interactions.config import PairWorldConfig
from input_pipeline.small_world.interactions.folder import write_folder
from input_pipeline.small_world.situations.captions import CaptionConfig
from mipd_jax.rationales.interactions import InteractionRationales
from tests.fixtures import pair_world_fixture
from tests.fixtures.pair_world_fixture import SLOTS, WORLD

WORDS = vocabulary.load()
PERSON, BICYCLE, DOG = (
  WORDS.objects.index(x) for x in ("person", "bicycle", "dog")
)
RIDE, PET = (
  int(WORDS.interactions([x], "")[0]) for x in ("ride bicycle", "pet dog")
)
A, B, BIKE, PUP = (
  [0, 0, 9, 19],
  [30, 0, 39, 19],
  [0, 10, 19, 29],
  [40, 10, 49, 19],
)


def record(labels) -> Record:
  """Two persons, a bicycle, a dog; labels of (person, object, number)."""
  pairs = sorted({(a, b) for a, b, _ in labels})
  return Record(
    place=Place(pathlib.Path("a.json"), pathlib.Path("image.jpg")),
    height=30,
    width=60,
    boxes=np.array([A, B, BIKE, PUP], np.float32),
    objects=np.array([PERSON, PERSON, BICYCLE, DOG], np.int32),
    pairs=np.array(pairs, np.int32).reshape(-1, 2),
    labels=np.array(
      [(pairs.index((a, b)), n) for a, b, n in labels], np.int32
    ).reshape(-1, 2),
  )


RECORD = record([(0, 2, RIDE), (1, 3, PET)])
FOUND = ImageDetections.of(
  np.array([A, B, BIKE, PUP], np.float32),
  np.array([PERSON, PERSON, BICYCLE, DOG], np.int32),
  np.array([0.9, 0.8, 0.7, 0.1], np.float32),
)


def test_every_person_goes_with_every_other_box():
  pairs = pair_columns.pair_up(FOUND, PERSON, Selection(5, 5, 0.2))
  found = [
    (box[:4].tolist(), box[4:].tolist(), int(kind))
    for box, kind in zip(pairs.boxes, pairs.objects, strict=True)
  ]
  assert found == [  # by the product of scores
    (A, B, PERSON),
    (B, A, PERSON),
    (A, BIKE, BICYCLE),
    (B, BIKE, BICYCLE),
  ]
  np.testing.assert_allclose(pairs.scores[2], [0.9, 0.7])
  one = pair_columns.pair_up(FOUND, PERSON, Selection(1, 1, 0.0))
  assert one.objects.tolist() == [BICYCLE]


def test_labels_follow_boxes_and_object():
  pairs = pair_columns.pair_up(FOUND, PERSON, Selection(5, 5, 0.0))
  labels = dict(
    zip(
      [(tuple(b[:4]), tuple(b[4:])) for b in pairs.boxes.astype(int).tolist()],
      pair_columns.labels_of(pairs, RECORD),
      strict=True,
    )
  )
  assert labels[tuple(A), tuple(BIKE)] == (RIDE,)
  assert labels[tuple(B), tuple(PUP)] == (PET,)
  assert sum(map(bool, labels.values())) == 2
  # Half of the person's box is enough, less is not; nor another object.
  half, less = [0, 0, 9, 9], [0, 0, 9, 8]
  for person, kind, expected in (
    (half, BICYCLE, (RIDE,)),
    (less, BICYCLE, ()),
    (half, DOG, ()),
  ):
    pair = pair_columns.Pairs(
      np.array([[*person, *BIKE]], float),
      np.array([kind], np.int32),
      np.ones((1, 2), np.float32),
    )
    assert pair_columns.labels_of(pair, RECORD) == [expected]


def test_labelled_pairs_keep_their_slots():
  pairs = pair_columns.pair_up(FOUND, PERSON, Selection(5, 5, 0.0))
  for slots in (1, 2, 4, 50):
    some, labels = pair_columns.training_pairs(RECORD, pairs, pairs, slots)
    assert len(some.objects) == min(slots, 2 * len(pairs.objects))
    assert [bool(x) for x in labels[:4]] == [True] * min(slots, 4)
  again = pair_columns.training_pairs(RECORD, pairs, pairs, 6)[0]
  first = pair_columns.training_pairs(RECORD, pairs, pairs, 6)[0]
  np.testing.assert_array_equal(first.boxes, again.boxes)


def test_columns_go_to_the_canvas_and_back():
  pairs = pair_columns.pair_up(FOUND, PERSON, Selection(5, 5, 0.0))
  labels = pair_columns.labels_of(pairs, RECORD)
  found = pair_columns.columns([RECORD], [pairs], [labels], slots=4)
  assert schema.validate(found, schema.PAIR_ANNOTATIONS)["P"] == 8
  count = len(pairs.objects)
  assert found[schema.PAIR_MASK][0].sum() == count == 6
  back = pair_columns.to_pixels(
    found[schema.IMAGE_SIZE][0], found[schema.PAIR_BOXES][0, :count]
  )
  np.testing.assert_allclose(back, pairs.boxes, atol=1e-4)
  # The dog's right edge is a pixel after its last, of a canvas of 60.
  x = found[schema.PAIR_BOXES][0, :count][pairs.objects == DOG][0, 4:]
  np.testing.assert_allclose(x, [45 / 60, 30 / 60, 10 / 60, 10 / 60], atol=1e-6)
  assert pair_columns.labelled(found, len(WORDS))[[RIDE, PET]].tolist() == [
    1,
    1,
  ]


def test_interactions_are_called_as_their_prompts():
  from mipd_jax.teachers import labels

  words = vocabulary.as_vocabulary(WORDS)
  assert [g[0] for g in labels.verb_prompts(words)] == list(WORDS.texts)
  nouns = [g[0] for g in labels.noun_prompts(words)]
  # HICO-DET's list says "a umbrella".
  differ = set(nouns) - set(WORDS.object_texts)
  assert differ == {"a photo of an umbrella"}
  assert len(words.fingerprint) == 64


def test_splits_share_no_image_and_train_no_unseen_label(dataset):
  names = {s: set(dataset.split(s).names) for s in ("train", "dev", "test")}
  assert not names["train"] & names["dev"] and names["dev"]
  unseen = dataset.zero_shot.unseen
  test_labels = np.concatenate(
    [r.labels[:, 1] for r in dataset.split("test").records]
  )
  assert unseen[test_labels].any()
  for split in ("train", "dev"):
    columns = dataset.split(split).annotations()
    numbers = columns[schema.PAIR_LABELS]
    assert not unseen[numbers[numbers >= 0]].any()
    schema.validate(columns, schema.PAIR_ANNOTATIONS)
  train = dataset.split("train").annotations()
  assert train[schema.PAIR_MASK].shape[1] == SLOTS
  assert (train[schema.PAIR_LABELS] >= 0).any(axis=(1, 2)).all()
  assert (train[schema.PAIR_LABELS][..., 0] < 0)[train[schema.PAIR_MASK]].any()


def test_what_changes_pairs_changes_the_fingerprint(dataset, folder):
  prints = {dataset.fingerprint}
  for split, changes in (
    ("UO", {}),
    ("UV", {"slots": 5}),
    ("UV", {"dropping": "label"}),
    ("UV", {"test_detections": ""}),
  ):
    prints.add(pair_world_fixture.pairs(folder, split, **changes).fingerprint)
  assert len(prints) == 5
  assert dataset.fingerprint == pair_world_fixture.pairs(folder).fingerprint


def test_the_detector_is_named(dataset, folder):
  assert dataset.detector("test").startswith("imagined detector")
  oracle = pair_world_fixture.pairs(folder, test_detections="")
  assert oracle.detector("test") == detections.ORACLE
  assert (oracle.split("test").annotations()[schema.PAIR_DETECTION] <= 1).all()


def test_bad_detections_are_refused(folder, tmp_path):
  """Unknown images, negative boxes, scores that are none: named."""
  path = folder / "detections/test.json"
  good = json.loads(path.read_text())

  def named(change):
    content = json.loads(json.dumps(good))
    change(content)
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps(content))
    found = pair_world_fixture.pairs(folder, test_detections=str(wrong))
    with pytest.raises(InputError) as error:
      found.split("test")
    return str(error.value)

  def with_boxes(content):
    return next(row for row in content[1:] if row["boxes"])

  name = with_boxes(good)["file_name"]
  said = named(lambda c: c[1].update(file_name="elsewhere.jpg"))
  assert "elsewhere.jpg" in said
  said = named(lambda c: with_boxes(c)["boxes"].__setitem__(0, [9, 0, 1, 5]))
  assert name in said
  said = named(lambda c: with_boxes(c)["scores"].__setitem__(0, float("nan")))
  assert name in said
  said = named(lambda c: with_boxes(c)["labels"].__setitem__(0, "unicorn"))
  assert name in said and "unicorn" in said
  with pytest.raises(InputError, match="absent"):
    _ = pair_world_fixture.pairs(
      folder, test_detections=str(tmp_path / "absent.json")
    ).fingerprint


def test_a_share_that_leaves_no_dev_image(folder):
  with pytest.raises(InputError, match="dev_share"):
    pair_world_fixture.pairs(folder, dev_share=0.0).split("dev")


def test_worlds_are_their_config(tmp_path):
  config = dataclasses.replace(WORLD, train_images=3, test_images=2)

  def drawn(name, config):
    folder = write_folder(tmp_path / name, config)
    return {
      str(p.relative_to(folder)): p.read_bytes()
      for p in sorted(folder.rglob("*"))
      if p.is_file()
    }

  first, again = drawn("a", config), drawn("b", config)
  other = drawn("c", dataclasses.replace(config, seed=1))
  assert first == again
  assert set(first) == set(other) and first != other
  with pytest.raises(InputError, match="exists"):
    write_folder(tmp_path / "a", config)


def test_a_pair_has_the_verbs_that_its_code_fits():
  world = world_lib.draw_world(PairWorldConfig())
  rng = np.random.default_rng(0)
  several = 0
  for _ in range(60):
    for pair in scenes.draw_scene(world, rng).pairs:
      fitting = {
        number
        for number, (verb, thing) in enumerate(world.interactions)
        if thing == pair.thing and world.actions[verb].fits(pair.code)
      }
      assert set(pair.labels) == fitting
      several += len(fitting) > 1
  assert several


def test_splits_of_a_world_leave_what_they_say():
  world = world_lib.draw_world(PairWorldConfig())
  every = set(range(len(world.interactions)))
  for name, part in (("UV", 0), ("UO", 1), ("UC", None)):
    unseen = set(world.unseen[name])
    gone = [world.interactions[i] for i in unseen]
    left = [world.interactions[i] for i in every - unseen]
    assert gone and left
    if part is None:  # each verb and object stays
      assert {v for v, _ in gone} <= {v for v, _ in left}
      assert {t for _, t in gone} <= {t for _, t in left}
    else:
      assert not {p[part] for p in gone} & {p[part] for p in left}


def test_texts_tell_interactions_apart_and_have_only_known_words():
  world = world_lib.draw_world(PairWorldConfig())
  names = [x.name for x in world.verbs]
  assert len(set(names)) == len(names)
  known = set(captions.all_words(world))
  rng = np.random.default_rng(1)
  _, scenes = captions.draw_pool(world, 20, 32)
  told = [captions.caption(s, CaptionConfig(), rng) for s in scenes]
  for text in [*names, *told]:
    assert set(text.split()) <= known, set(text.split()) - known
  assert set(captions.content_words(world)) <= known


def test_rationales_name_seen_interactions_only(dataset):
  split = dataset.split("train")
  source = InteractionRationales(dataset.words)
  texts = source.write(split, dataset.vocabulary)
  assert texts == source.write(split, dataset.vocabulary)
  words, unseen = dataset.words, dataset.zero_shot.unseen
  gone = [
    words.texts[i].removeprefix("a photo of ") for i in np.flatnonzero(unseen)
  ]
  for frame, four, item in zip(
    source.frames(split), texts, split.records, strict=True
  ):
    labels = item.labels[:, 1]
    told = {words.texts[i].removeprefix("a photo of ") for i in labels}
    assert set(frame.true.sentence.split(", ")) <= told
    assert not set(frame.wrong.sentence.split(", ")) & told
    assert all(four) and four[0] != four[1] and four[2] != four[3]
    assert not any(text in one for one in four for text in gone)
