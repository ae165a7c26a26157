import pathlib

import numpy as np
import pytest

from input_pipeline import schema, vocabulary
from input_pipeline.errors import InputError
from mipd_jax.rationales import templates, wording
from tests import fakes

WORDS = fakes.vocabulary()
NO_BOX = [-1.0] * 4
SHARED = pathlib.Path(__file__).parents[2] / "shared/data/swig"
GLIMPSE_POS, GLIMPSE_NEG, GAZE_POS, GAZE_NEG = range(4)


def writer(**changes) -> templates.RationaleWriter:
  values = {"allowed_verbs": (0, 1, 2, 4), **changes}
  return templates.RationaleWriter(WORDS, **values)


# A dog (n1) at the left jumps over a fence (n4) at a park (n5, no box).
NOUNS = np.array([[1, 1, 2], [0, 4, 4], [5, 0, 8], [8, 8, 8]])
BOXES = np.array([[0.2, 0.5, 0.3, 0.4], [0.7, 0.9, 0.1, 0.1], NO_BOX, NO_BOX])
JUMPING = WORDS.verb_index["jumping"]


def test_texts_follow_the_frame():
  texts = writer().write("a.jpg", JUMPING, NOUNS, BOXES)
  assert texts[GLIMPSE_POS] == (
    "jumping: a dog jumps over a fence at a park. move off the ground"
  )
  assert texts[GAZE_POS] == (
    "agent: a dog, furry animal, left. "
    "obstacle: a fence, barrier of wood, small bottom right. "
    "place: a park, green place"
  )


def test_negatives_name_another_verb_and_nouns_nobody_gave():
  for i in range(40):
    texts = writer().write(f"{i}.jpg", JUMPING, NOUNS, BOXES)
    verb = texts[GLIMPSE_NEG].split(":")[0]
    assert verb in ("chasing", "feeding", "throwing")
    assert "dog" in texts[GLIMPSE_NEG]  # the shared roles keep their nouns
    for gloss in ("dog", "man", "fence", "park"):
      assert f" {gloss}" not in texts[GAZE_NEG]
    assert ", right." in texts[GAZE_NEG]
    assert "bottom left" in texts[GAZE_NEG]
    assert texts[GAZE_NEG].count("agent: ") == 1


def test_negative_verb_shares_roles_and_is_never_unseen(monkeypatch):
  monkeypatch.setattr(templates, "_PLAUSIBLE_VERBS", 1)
  nouns = np.array([[1] * 3, [3] * 3, [5] * 3])
  texts = writer().write("a.jpg", WORDS.verb_index["chasing"], nouns, BOXES)
  assert texts[GLIMPSE_NEG].startswith("feeding: a dog feeds a ball at a park")
  texts = writer(allowed_verbs=(0, 3, 4)).write("a.jpg", 3, nouns, BOXES)
  assert not texts[GLIMPSE_NEG].startswith(("sleeping", "feeding"))


def test_same_seed_and_name_same_texts():
  def texts(name, seed):
    return writer(seed=seed).write(name, JUMPING, NOUNS, BOXES)

  assert texts("a.jpg", 0) == texts("a.jpg", 0)
  names = [f"{i}.jpg" for i in range(20)]
  assert len({texts(name, 0)[GLIMPSE_NEG] for name in names}) > 1
  assert any(texts(name, 0) != texts(name, 1) for name in names)


def test_blank_roles_are_skipped():
  nouns = np.array([[1, 1, 1], [0, 0, 0], [7, 0, 7]])
  texts = writer().write("a.jpg", JUMPING, nouns, BOXES)
  assert texts[GAZE_POS] == "agent: a dog, furry animal, left"
  assert "over something at somewhere" in texts[GLIMPSE_POS]
  for text in texts:
    assert "nothing" not in text and "padding" not in text
    assert "something else" not in text


def test_all_blank_gives_a_scene_and_an_empty_gaze():
  nouns = np.zeros((3, 3), int)
  texts = writer().write("a.jpg", JUMPING, nouns, BOXES)
  assert texts[GLIMPSE_POS].startswith("jumping: someone jumps over")
  assert texts[GAZE_POS] == texts[GAZE_NEG] == ""


def test_verb_without_abstract():
  texts = writer().write("a.jpg", 4, np.array([[2] * 3, [6] * 3]), BOXES)
  assert texts[GLIMPSE_POS] == (
    "throwing: a man as agent, an apple as item. send through the air"
  )


def test_wrong_nouns_come_from_the_role_s_pool():
  annotations = {
    schema.ROLES: np.array([[0, 2, 3], [0, 1, -1]]),
    schema.NOUNS: np.array(
      [[[1] * 3, [4] * 3, [5] * 3], [[2, 0, 7], [3] * 3, [8] * 3]]
    ),
  }
  pools = templates.noun_pools(WORDS, annotations)
  assert [pools[role].tolist() for role in range(4)] == [[1, 2], [3], [4], [5]]
  nouns = np.array([[1] * 3, [3] * 3, [5] * 3])
  for i in range(20):
    texts = writer(noun_pools=pools).write(f"{i}.jpg", 0, nouns, BOXES)
    assert texts[GAZE_NEG].startswith("agent: a man")


def test_one_allowed_verb_is_refused():
  with pytest.raises(InputError, match="may name 1 verbs"):
    writer(allowed_verbs=(2, 2))


@pytest.mark.parametrize(
  ("box", "words"),
  [
    ([0.5, 0.5, 0.9, 0.9], "large middle"),
    ([0.1, 0.1, 0.3, 0.3], "top left"),
    ([1.0, 0.5, 0.1, 0.1], "small right"),
    (NO_BOX, ""),
  ],
)
def test_position(box, words):
  assert wording.position(np.array(box)) == words


def test_short_definition():
  text = 'a member (of a club) that  barks; "the dog barked"'
  assert wording.short(text) == "a member that barks"
  assert wording.short(text, 2) == "a member"


@pytest.mark.skipif(not SHARED.is_dir(), reason="no SWiG vocabulary here")
def test_every_verb_of_swig_gets_texts_without_placeholders():
  words = vocabulary.load(SHARED)
  write = templates.RationaleWriter(words, allowed_verbs=range(504)).write
  dog, park = words.noun_index["n02084071"], words.noun_index["n03891251"]
  nouns = np.full((6, 3), dog)
  nouns[2:] = park
  boxes = np.full((6, 4), 0.5)
  for verb, name in enumerate(words.verbs):
    texts = write(name, verb, nouns, boxes)
    assert texts[GLIMPSE_POS].startswith(f"{name}:")
    assert not texts[GLIMPSE_NEG].startswith(f"{name}:")
    capitals = [w for w in " ".join(texts[:2]).split() if w.isupper()]
    assert not [w for w in capitals if len(w) > 2 and w.lower() in words.roles]
    roles = words.frame_roles(verb)
    assert all(f"{role}: a" in texts[GAZE_POS] for role in roles)
    assert not any("n0" in text for text in texts)
