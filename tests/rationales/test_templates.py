import pathlib

import numpy as np
import pytest

from input_pipeline import schema
from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig import vocabulary
from mipd_jax.inference.results import sentence
from mipd_jax.rationales import templates, wording
from tests.fakes import fakes

WORDS = fakes.vocabulary()
NO_BOX = [-1.0] * 4
SHARED = pathlib.Path(__file__).parents[3] / "shared/data/swig"
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


# Frame with nouns, abstract, the predictor's sentence, the rationale's.
NAMES = [
  (
    {"agent": "man", "body_part": "nose"},
    "an AGENT touches a BODY_PART",
    "the man touches the nose",
    "a man touches a nose",
  ),
  (
    {"agent": "man", "body part": "nose"},
    "an AGENT touches a BODY PART, BODYPART, BODY-PART or BODY_PART",
    "the man touches the nose, the nose, the nose or the nose",
    "a man touches a nose, a nose, a nose or a nose",
  ),
  (
    {"agent": "man", "bodypart": "nose"},
    "an AGENT touches a BODY-PART",
    "the man touches the nose",
    "a man touches a nose",
  ),
  (
    {"agent": "man", "co-agent": "woman"},
    "an AGENT dances with a CO-AGENT",
    "the man dances with the woman",
    "a man dances with a woman",
  ),
  (  # no role of this frame, and no place for a part of it
    {"agent": "man"},
    "an AGENT dances with a CO-AGENT on SUB_AGENTS",
    "the man dances with a co-agent on sub agents",
    "a man dances with a co-agent on sub agents",
  ),
  (
    {"agent": "man", "to": "park", "o": "ball"},
    "the AGENT goes to the TO with O, AGENTTO and TOO",
    "the man goes to the park with the ball, agentto and too",
    "a man goes to a park with a ball, agentto and too",
  ),
  (
    {"agent": "man", "coagent": "boy", "bodypart": "head"},
    "the AGENT shaves the COAGENT'sBODYPART",
    "the man shaves the boy's head",
    "a man shaves a boy's head",
  ),
  (
    {"agent": "man", "coagent": "boy", "bodypart": "head"},
    "an AGENT shaves a COAGENT's(when different than the AGENT)BODYPART",
    "the man shaves the boy's head",
    "a man shaves a boy's(when different than a man) head",
  ),
  (
    {"agent": "bird", "agentpart": "wing", "part": "leg"},
    "The AGENT's AGENTPARTs, its AGENT PART, a PART",
    "the bird's wing, its bird the leg, the leg",
    "a bird's wing, its bird a leg, a leg",
  ),
  (
    {"agent": "man", "parachute": "sheet"},
    "the AGENT PARACHUTEd using PARACHUTEs",
    "the man parachuted using the sheet",
    "a man parachuted using a sheet",
  ),
  (
    {"item": "ball", "item1": "cup", "item2": "box"},
    "ITEM1 and ITEM2 beside an ITEM and ITEM3",
    "the cup and the box beside the ball and item3",
    "a cup and a box beside a ball and item3",
  ),
  (
    {"agent": "man", "victim": "boy"},
    "AGENT/VICTIM or (AGENT-VICTIM)",
    "the man/the boy or",
    "a man/a boy or (a man-a boy)",
  ),
  (
    {"agente": "niño", "obstáculo": "valla"},
    "AGENTE salta OBSTÁCULO, OBSTACULO",
    "the niño salta the valla, the valla",
    "a niño salta a valla, a valla",
  ),
  (  # accents apart in the name, and apart in the abstract
    {"agente": "niño", "obsta\u0301culo": "valla"},
    "AGENTE salta OBSTÁCULO, OBSTA\u0301CULO",
    "the niño salta the valla, the valla",
    "a niño salta a valla, a valla",
  ),
  (
    {"агент": "boy", "часть_тела": "hand", "к": "park"},
    "АГЕНТ идёт К, ЧАСТЬ ТЕЛА, КТО",
    "the boy идёт the park, the hand, кто",
    "a boy идёт a park, a hand, кто",
  ),
  (
    {"agent": "man", "item": "car"},
    "the AGENT hits an ITEM, different from Agent, by Items and Itemize",
    "the man hits the car, different from the man, by the car and Itemize",
    "a man hits a car, different from a man, by a car and Itemize",
  ),
  ({"işçi": "man"}, "İŞÇİ çalışır", "the man çalışır", "a man çalışır"),
  ({"straße": "road"}, "STRASSE", "the road", "a road"),
  (
    {"täter": "man", "œuvre": "book"},
    "TAETER, TÄTER OEUVRE",
    "the man, the man the book",
    "a man, a man a book",
  ),
  (  # hyphens of word processors, wide letters, what cannot be seen
    {"agent": "man", "co-agent": "boy", "place": "park"},
    "an AG\u00adENT hugs CO\u2011AGENT, CO\u2013AGENT at ＰＬＡＣＥ",
    "the man hugs the boy, the boy at the park",
    "a man hugs a boy, a boy at a park",
  ),
  (
    {"agent(s)": "man", "goal.item": "cup"},
    "AGENT(S) hit a GOAL.ITEM, GOAL ITEM",
    "the man hit the cup, the cup",
    "a man hit a cup, a cup",
  ),
  (
    {"主体a": "男孩", "主体B": "女孩"},
    "主体a和主体B跳舞",
    "男孩和女孩跳舞",
    "男孩和女孩跳舞",
  ),
  (  # Georgian has capitals, but texts don't
    {"აგენტი": "კაცი"},
    "აგენტი დარბის",
    "კაცი დარბის",
    "კაცი დარბის",
  ),
  (
    {"agent": "something else"},
    "an AGENT runs",
    "something else runs",
    "a something else runs",
  ),
  ({"όχημα": "car"}, "ΟΧΗΜΑ, ΌΧΗΜΑ", "the car, the car", "a car, a car"),
  (
    {"主体": "男孩", "地点": "操场"},
    "主体在地点跳绳",
    "男孩在操场跳绳",
    "男孩在操场跳绳",
  ),
  (
    {"agent": "boy", "place": "park"},
    "AGENT在PLACE跳绳",
    "the boy在the park跳绳",
    "a boy在a park跳绳",
  ),
  (
    {"주체": "소년", "장소": "공원"},
    "주체가 장소에서 뛴다",
    "소년가 공원에서 뛴다",
    "소년가 공원에서 뛴다",
  ),
  (  # the second word only begins like the role
    {"कर्ता": "लड़का"},
    "कर्ता और कर्तापन",
    "लड़का और कर्तापन",
    "लड़का और कर्तापन",
  ),
]


@pytest.mark.parametrize(("nouns", "abstract", "predicted", "told"), NAMES)
def test_role_names_of_any_script(nouns, abstract, predicted, told):
  assert sentence("x", nouns, abstract) == predicted
  assert wording.sentence(tuple(nouns), nouns, abstract) == told


@pytest.mark.parametrize(
  ("verb", "nouns", "abstract", "predicted", "told"),
  [
    (
      "跳绳",
      {"主体": "boy", "绳": "rope"},
      "",
      "the boy is 跳绳 with the rope",
      "a boy as 主体, a rope as 绳",
    ),
    (
      "going",
      {"agent": "man", "to": "park"},
      "someone GOES there",  # names no role
      "the man is going with the park",
      "a man as agent, a park as to",
    ),
    ("x", {}, "something FALLS", "someone is x", "something falls"),
  ],
)
def test_abstracts_without_roles(verb, nouns, abstract, predicted, told):
  assert sentence(verb, nouns, abstract) == predicted
  assert wording.sentence(tuple(nouns), nouns, abstract) == told


@pytest.mark.skipif(not SHARED.is_dir(), reason="no SWiG vocabulary here")
def test_no_placeholder_survives_in_a_filled_frame_of_swig():
  words = vocabulary.load(SHARED)
  for verb, abstract in enumerate(words.verb_abstracts):
    roles = words.frame_roles(verb)
    nouns = {role: f"noun{i}" for i, role in enumerate(roles)}
    for text in (
      sentence(words.verbs[verb], nouns, abstract),
      wording.sentence(roles, nouns, abstract),
    ):
      assert text == text.lower() or text[0] == "T", text
      assert not any(f"{role.upper()}" in text for role in roles)
      assert "the the" not in text and "a a " not in text


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
