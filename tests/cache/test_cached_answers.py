"""Answers about instances in a cache: about the right ones, and its plan."""

import json

import jax
import numpy as np
import pytest

from input_pipeline import schema
from input_pipeline.io.errors import InputError
from mipd_jax.devices import sharding
from mipd_jax.tasks import instances
from mipd_jax.tasks.instances import PairInstances, RoleInstances
from mipd_jax.teachers import precompute, showing
from mipd_jax.teachers.answers import NONE, Showing
from mipd_jax.teachers.image_teachers import ZeroShotTeacher
from tests.cache import test_precompute as base
from tests.fixtures import pair_world_fixture
from tests.fixtures.pair_world_fixture import dataset as pair_dataset  # noqa: F401
from tests.fixtures.pair_world_fixture import folder  # noqa: F401

CROP = Showing("crop", margin=0.2, top_k=3)


def _build(dataset, out, how=CROP, source=None, **changes):
  return precompute.build_cache(
    dataset,
    base.student(),
    ZeroShotTeacher(base.teacher()),
    out,
    base.config(showing=how, **changes),
    sharding.make_mesh(devices=jax.devices()[:1]),
    instances=source or RoleInstances(dataset),
  )


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
  return base.prepare(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def cache(dataset, tmp_path_factory):
  return _build(dataset, tmp_path_factory.mktemp("made") / "cache")


def test_answers_are_about_each_boxed_role(cache, dataset):
  """Each against a teacher that is asked about this box alone."""
  split = dataset.split("train")
  found = cache.split("train", ("answers",)).read(np.arange(len(split)))
  assert set(schema.ANSWER_KEYS) <= set(found)
  columns, words = split.annotations(), dataset.vocabulary
  teacher = ZeroShotTeacher(base.teacher())
  side = teacher.image_size
  pixels = split.letterboxed(
    np.arange(len(split)), showing.canvas_side("crop", side)
  )
  show = showing.shower("crop", side, CROP.margin)
  candidates = instances.role_candidates(columns, words)
  asked = 0
  for image, slot in np.ndindex(*columns[schema.ROLES].shape):
    classes = found[schema.ANSWER_CLASSES][image, slot]
    if not columns[schema.BOX_MASK][image, slot]:
      assert (classes == -1).all()
      assert found[schema.ANSWER_LOG_REST][image, slot] == NONE
      continue
    asked += 1
    allowed = np.flatnonzero(candidates[columns[schema.ROLES][image, slot]])
    given = columns[schema.NOUNS][image, slot]
    proper = [n for n in given if words.nouns[n][0] == "n"]
    assert set(proper) <= set(allowed)
    glosses = [words.noun_glosses[noun] for noun in allowed]
    names = [instances.wording.noun_name(some) for some in glosses]
    centre, half = np.split(columns[schema.BOXES][image, slot], 2)
    corners = np.concatenate([centre - half / 2, centre + half / 2])
    corners = np.clip(corners, 0, 1)[None].astype(np.float32)
    seen = teacher.see(teacher.params, show(pixels[image][None], corners))
    scores = teacher.answer_scores(
      teacher.params, seen, (), teacher.candidates(names)
    )
    share = np.asarray(jax.nn.softmax(scores[0, : len(names)]))
    best = np.argsort(-share)[: CROP.top_k]
    np.testing.assert_array_equal(classes[: len(best)], allowed[best])
    kept = np.exp(found[schema.ANSWER_LOG_SHARES][image, slot])[: len(best)]
    # A pixel may round the other way in a batch of another size.
    np.testing.assert_allclose(kept, share[best], rtol=2e-2)
  assert asked > 10


@pytest.mark.parametrize(
  ("how", "question", "told"),
  [
    (Showing("blur", 0.2, 3), "", "instance_show"),
    (Showing("crop", 0.3, 3), "", "margin=0.2"),
    (CROP, "Question: who is the {kind}? Answer:", "instance_questions"),
    (None, "", "other splits"),
  ],
)
def test_other_answers_are_another_cache(cache, dataset, how, question, told):
  with pytest.raises(InputError, match=told):
    _build(dataset, cache.folder, how, RoleInstances(dataset, question))


def test_a_dual_encoder_has_no_tokens_to_ask(dataset, tmp_path):
  with pytest.raises(InputError, match="is a dual encoder"):
    _build(dataset, tmp_path / "cache", Showing("tokens"))
  assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("question", ["what is {role}?", "{", "{0}"])
def test_a_question_that_cannot_be_filled(dataset, question):
  with pytest.raises(InputError, match=r"teacher\.instances\.question"):
    RoleInstances(dataset, question)


def test_what_cannot_be_asked_is_counted(dataset, caplog):
  """A box without area, and a role that no noun fills in training."""
  source = RoleInstances(dataset)
  split = dataset.split("train")
  columns = {k: v.copy() for k, v in split.annotations().items()}
  image, slot = np.argwhere(columns[schema.BOX_MASK])[0]
  columns[schema.BOXES][image, slot, 2:] = 0
  kinds = list(source.kinds)
  role = columns[schema.ROLES][tuple(np.argwhere(columns[schema.BOX_MASK])[-1])]
  kinds[role] = instances.Kind(kinds[role].question, np.array([], int), ())
  object.__setattr__(source, "kinds", tuple(kinds))

  class _Split:
    name, names = "train", split.names

    def annotations(self):
      return columns

  with caplog.at_level("WARNING"):
    found = source.of(_Split())
  assert found.kind[image, slot] == -1
  assert not (found.kind == role).any()
  assert "1 boxes without area" in caplog.text
  assert "instances without candidates in training" in caplog.text


def test_pairs_are_asked_about_as_one_box(pair_dataset):  # noqa: F811
  source = PairInstances(pair_dataset, pair_world_fixture.SLOTS, "a {object}?")
  split = pair_dataset.split("train")
  found, columns = source.of(split), split.annotations()
  mask = columns[schema.PAIR_MASK]
  assert found.kind.shape == (len(split), source.slots)
  has = np.isin(columns[schema.PAIR_OBJECT], pair_dataset.words.object_of)
  np.testing.assert_array_equal(found.kind >= 0, mask & has)
  for image, slot in np.argwhere(mask & has):
    pair = columns[schema.PAIR_BOXES][image, slot].reshape(2, 4)
    low = (pair[:, :2] - pair[:, 2:] / 2).min(axis=0)
    high = (pair[:, :2] + pair[:, 2:] / 2).max(axis=0)
    corners = np.clip([*low, *high], 0, 1)
    np.testing.assert_allclose(found.boxes[image, slot], corners, atol=1e-6)
    kind = source.kinds[found.kind[image, slot]]
    labels = columns[schema.PAIR_LABELS][image, slot]
    assert set(labels[labels >= 0]) <= set(kind.classes)
    name = pair_dataset.words.objects[columns[schema.PAIR_OBJECT][image, slot]]
    assert kind.question == f"a {name.replace('_', ' ')}?"


def test_sentences_are_about_their_instance(dataset, tmp_path):
  """The part holds each sentence's embedding, and says which there are."""
  source = RoleInstances(dataset)
  made = _build(dataset, tmp_path / "cache", None, source, sentences=True)
  split = dataset.split("train")
  found = made.split("train", ("instance_text",)).read(np.arange(len(split)))
  texts = [
    tuple(json.loads(line)[kind] for kind in schema.RATIONALES)
    for line in made.lines("train/rationales.jsonl")
  ]
  told = source.sentences(split, texts)
  text, mask = base.student(), found[schema.INSTANCE_TEXT_MASK]
  assert mask.sum() > 20
  for image, slot, kind in np.ndindex(*mask.shape):
    sentence = told[image][slot][kind]
    assert mask[image, slot, kind] == bool(sentence)
    row = found[schema.INSTANCE_TEXT][image, slot, kind].astype(np.float32)
    if not sentence:
      assert not row.any()
      continue
    role = dataset.vocabulary.roles[
      split.annotations()[schema.ROLES][image, slot]
    ]
    # The first record's texts are published ones, without roles.
    assert sentence.startswith(f"{role}:") or texts[image] == base.PUBLISHED
    expected = text.text_embedding(text.params, *text.tokenize([sentence], 40))
    expected = np.asarray(expected[0]) / np.linalg.norm(expected[0])
    np.testing.assert_allclose(row, expected, atol=0.01)
