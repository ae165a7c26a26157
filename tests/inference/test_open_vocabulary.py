"""Words given at call time: checks, texts, and how they are ranked."""

import dataclasses
import io
import logging

import jax
import numpy as np
import pytest

from input_pipeline import schema
from input_pipeline.geometry import letterbox_image
from input_pipeline.io.errors import InputError
from mipd_jax.inference import (
  Predictor,
  Words,
  programs,
  word_lists,
  words_file,
)
from mipd_jax.inference.texts import Texts
from mipd_jax.inference.words import DEFAULT_ROLES
from mipd_jax.models import outputs as out
from mipd_jax.teachers import labels
from tests.fakes import fakes
from tests.fixtures import predict_fixture

KNOWN = fakes.vocabulary()
IMAGES = [predict_fixture.photograph(i) for i in range(3)]


@pytest.fixture
def predictor():
  return predict_fixture.predictor()


def _cut(words, verb: int):
  """A vocabulary that has never heard of one verb."""
  return dataclasses.replace(
    words,
    **{
      name: getattr(words, name)[:verb] + getattr(words, name)[verb + 1 :]
      for name in ("verbs", "frames", "verb_definitions", "verb_abstracts")
    },
  )


def test_an_unseen_verb_is_ranked_and_filled_as_the_evaluation_would(
  predictor,
):
  """The same parameters, once with "jumping" in the vocabulary, once not."""
  whole = predict_fixture.opened()
  less = _cut(KNOWN, 2)
  banks = whole.banks | {"verb_text": np.delete(whole.banks["verb_text"], 2, 0)}
  model = whole.model.clone(
    sizes=dataclasses.replace(whole.model.sizes, num_verbs=4)
  )
  cut = dataclasses.replace(whole, words=less, banks=banks, model=model)
  mesh = predict_fixture.mesh()
  expected = predictor.predict(IMAGES, top_k=9, given="jumping")
  verbs = dict.fromkeys(less.verbs) | {
    "jumping": {
      "roles": ["agent", "obstacle", "place"],
      "definition": KNOWN.verb_definitions[2],
      "abstract": KNOWN.verb_abstracts[2],
    }
  }
  other = Predictor(cut, mesh, 4)
  found = other.predict(IMAGES, verbs, top_k=9, given="jumping")
  for mine, theirs in zip(found, expected, strict=True):
    assert [v.verb for v in mine.verbs] == [v.verb for v in theirs.verbs]
    for a, b in zip(mine.verbs, theirs.verbs, strict=True):
      assert a.probability == pytest.approx(b.probability, rel=1e-4)
    assert mine.sentence == theirs.sentence
    for a, b in zip(mine.roles, theirs.roles, strict=True):
      assert [n.noun for n in a.nouns] == [n.noun for n in b.nouns]
      assert (a.box is None) == (b.box is None)
      if a.box:
        np.testing.assert_allclose(a.box, b.box, atol=1e-3)
  # It does matter what the verb is called.
  assert "jumping" not in [v.verb for v in other.predict(IMAGES[0]).verbs]


def _lexicon(predictor, *words):
  return predictor._lexicons.make(Words.of(*words))


def test_rows_of_known_words_are_those_of_training(predictor):
  banks = predictor._lexicons._banks
  found = _lexicon(predictor, ["Throwing", "chasing"], ["ball", "DOG", "n5"])
  np.testing.assert_array_equal(found.verb_text[:2], banks["verb_text"][[4, 0]])
  assert found.verb_mask.tolist() == [True] * 2 + [False] * 6
  assert [frame.roles for frame in found.frames] == [
    ("agent", "item"),
    ("agent", "item", "place"),
  ]
  arrays = found.nouns.arrays
  np.testing.assert_array_equal(
    arrays["text"][:3], banks["noun_text"][[3, 1, 5]]
  )
  assert arrays["column"][:3].tolist() == [3, 1, 5]
  assert found.nouns.classes == ("n3", "n1", "n5")
  assert found.nouns.rule == programs.AS_EVALUATED


def test_rows_of_new_words_are_made_as_those_of_training(predictor):
  """The same words as a vocabulary's would have; less the kept centres."""
  banks, clip = predictor._lexicons._banks, predict_fixture.clip()
  found = _lexicon(
    predictor,
    {"juggling": {"roles": {"agent": "", "clubs": "what flies"}}},
    {"apricot": "a small fruit", "dog": ""},
  )

  def rows(prompts):
    return labels.text_bank(clip, [prompts], predict_fixture.mesh())

  verb = rows(["a photo of juggling"])
  np.testing.assert_allclose(found.verb_text[:1], verb, atol=1e-6)
  role = rows(["the clubs of an activity", "clubs: what flies"])
  role = labels.center(role, banks["role_center"])
  assert found.frames[0].rows == (0, 4)
  np.testing.assert_allclose(found.banks["role_text"][4:5], role, atol=1e-6)
  np.testing.assert_array_equal(
    found.banks["role_text"][:4], banks["role_text"]
  )
  noun = rows(["a photo of an apricot", "apricot: a small fruit"])
  noun = labels.center(noun, banks["noun_center"])
  np.testing.assert_allclose(found.nouns.arrays["text"][:1], noun, atol=1e-6)
  assert found.nouns.classes == (None, "n1")
  assert found.nouns.rule == programs.BY_TEXT


def test_a_known_word_with_another_meaning_is_a_new_word(predictor):
  found = _lexicon(
    predictor,
    {"jumping": {"definition": "start a car with another's battery"}},
    {"ball": "a formal dance", "dog": KNOWN.noun_definitions[1]},
  )
  own = predictor._lexicons._banks
  assert np.abs(found.verb_text[0] - own["verb_text"][2]).max() > 0.01
  assert found.nouns.classes == (None, "n1")
  assert found.frames[0].roles == ("agent", "obstacle", "place")


def test_lists_of_known_nouns_keep_the_evaluation_s_order(predictor):
  whole = predictor.predict(IMAGES, top_k=9)
  some = predictor.predict(IMAGES, nouns=["fence", "man", "n6"], top_k=9)
  for a, b in zip(whole, some, strict=True):
    for mine, part in zip(a.roles, b.roles, strict=True):
      kept = [n for n in mine.nouns if n.class_id in ("n2", "n4", "n6")]
      assert [n.class_id for n in part.nouns] == [n.class_id for n in kept]
      total = sum(n.probability for n in kept)
      for x, y in zip(part.nouns, kept, strict=True):
        assert x.probability == pytest.approx(y.probability / total, rel=1e-4)


@pytest.mark.parametrize("preset", ["mipd", "reference"])
def test_a_list_with_a_new_noun_is_ranked_by_text_alone(preset):
  """Known and new alike by the cosine of role and word; boxes are as ever."""
  predictor = predict_fixture.predictor(preset)
  opened = predict_fixture.opened(preset)
  names = ["man", "apricot", "ball", "fence", "zebra"]
  found = predictor.predict(IMAGES, nouns=names, top_k=9, given="feeding")
  own = predictor.predict(IMAGES, top_k=9, given="feeding")
  text = predictor._lexicons.make(Words.of(nouns=names)).nouns.arrays["text"]
  roles = _role_embeddings(opened, KNOWN.verb_index["feeding"])
  lengths = np.linalg.norm(roles, axis=-1, keepdims=True)
  cosines = roles / np.maximum(lengths, 1e-9) @ text[:5].T
  for i, result in enumerate(found):
    assert [r.box for r in result.roles] == [r.box for r in own[i].roles]
    for slot, role in enumerate(result.roles):
      order = np.argsort(-cosines[i, slot])
      assert [n.noun for n in role.nouns] == [names[k] for k in order]
      shares = [n.probability for n in role.nouns]
      assert sum(shares) == pytest.approx(1, rel=1e-5)
      # One temperature for all: log-odds are linear in the cosine.
      logs, steps = np.diff(np.log(shares)), np.diff(cosines[i, slot][order])
      np.testing.assert_allclose(logs / steps, logs[0] / steps[0], rtol=2e-3)


def _role_embeddings(opened, verb: int) -> np.ndarray:
  """[images, R, E] of the model itself, for one verb."""
  side = predict_fixture.SIDE
  pixels = np.stack([letterbox_image(image, side) for image in IMAGES])
  roles = np.tile(KNOWN.frame_array[verb], (len(IMAGES), 1))
  params = opened.encoder.params

  def run(params, pixels):
    tokens = opened.encoder.image_tokens(params, pixels).astype("bfloat16")
    batch = {
      schema.STUDENT_TOKENS: tokens,
      schema.VERB: np.full(len(IMAGES), verb),
      schema.ROLES: roles,
      schema.ROLE_MASK: roles >= 0,
    }
    found = opened.model.apply(
      {"params": opened.params}, batch, opened.banks, method="predict"
    )
    return found[out.ROLE_EMBEDDING]

  return np.asarray(jax.jit(run)(params, pixels))


def test_default_roles_and_frames(predictor):
  found = _lexicon(
    predictor,
    ["juggling", "jumping", "resting"],
    None,
    {"resting": [], "Jumping": ["agent", "place", "wings"]},
  )
  assert [frame.roles for frame in found.frames] == [
    DEFAULT_ROLES,
    ("agent", "place", "wings"),
    (),
  ]
  result = predictor.predict(IMAGES[0], {"resting": []})
  assert result.roles == () and result.sentence == "someone is resting"
  own = _lexicon(predictor, None, None, {"chasing": ["agent"]})
  assert own.frames[0].roles == ("agent",)
  assert own.frames[1].roles == ("agent", "item", "place")
  six = [f"role {i}" for i in range(6)]
  assert len(predictor.predict(IMAGES[0], {"juggling": six}).roles) == 6


def test_a_frame_of_nine_roles_is_refused():
  roles = [f"role{i}" for i in range(9)]
  for given in ({"verbs": {"flying": roles}}, {"frames": {"flying": roles}}):
    with pytest.raises(InputError, match="'flying' has 9 roles") as error:
      Words.of(**given)
    assert "6 roles at most" in error.value.remedy


def test_a_student_with_learnt_queries_says_what_it_cannot_be_asked():
  predictor = predict_fixture.predictor("reference")
  found = predictor.predict(IMAGES, ["throwing", "feeding"], given="throwing")
  whole = predictor.predict(IMAGES, given="throwing")
  assert [r.roles for r in found] == [r.roles for r in whole]
  for verbs in (["flying"], {"jumping": ["agent", "wings"]}):
    with pytest.raises(InputError, match=r"no role query for '(fly|wing)") as e:
      predictor.predict(IMAGES, verbs)
    assert "role_queries=text" in e.value.remedy


@pytest.mark.parametrize(
  ("given", "said"),
  [
    ({"verbs": []}, "list of verbs is empty"),
    ({"nouns": ()}, "list of nouns is empty"),
    ({"verbs": "jumping"}, "'jumping' is a str, not a list"),
    ({"nouns": ["dog", "Dog"]}, "'Dog' is in the list twice"),
    ({"nouns": ["café", "cafe\u0301"]}, "'café' is in the list twice"),
    ({"verbs": {"flying": ["agent", "Agent"]}}, "'Agent' is in the list twice"),
    ({"verbs": ["flying", " "]}, "'' is no word"),
    ({"nouns": ["--"]}, "'--' is no word"),
    ({"nouns": ["a\x00b"]}, "is no word"),
    ({"nouns": ["long " * 100]}, "is no word"),
    ({"nouns": [3]}, "3 is no text"),
    ({"verbs": {"flying": {"role": []}}}, "has a field 'role'"),
    ({"nouns": {"dog": 3}}, "definition of 'dog' is 3"),
    ({"frames": ["agent"]}, "give the roles by verb"),
  ],
)
def test_wrong_words_are_named(given, said):
  with pytest.raises(InputError, match=said):
    Words.of(**given)


def test_unicode_words(predictor):
  names = ["Fußball", "足球", "⚽", "мяч", "dog"]
  found = predictor.predict(IMAGES[0], ["прыгать", "saut à ski"], names)
  assert found.verb in ("прыгать", "saut à ski")
  assert {n.noun for n in found.roles[0].nouns} == set(names)


def _archives(*contents):
  for arrays in contents:
    stored = io.BytesIO()
    np.savez(stored, **arrays)
    yield stored.getvalue()


def test_words_are_embedded_once_and_kept_on_disk(tmp_path):
  loads = []

  def load():
    loads.append(1)
    return predict_fixture.clip()

  mesh = predict_fixture.mesh()
  texts = Texts(load, "r1", mesh, tmp_path)
  first = texts.bank([["a photo of rain"], ["a photo of snow", "snow: cold"]])
  again = texts.bank([["a photo of snow", "snow: cold"]])
  np.testing.assert_array_equal(again[0], first[1])
  other = Texts(load, "r1", mesh, tmp_path)  # another process
  np.testing.assert_array_equal(other.bank([["a photo of rain"]])[0], first[0])
  assert len(loads) == 1
  Texts(load, "r2", mesh, tmp_path).bank([["a photo of rain"]])
  assert len(loads) == 2, "another text encoder's rows were taken"
  path = tmp_path / "words.npz"
  whole = path.read_bytes()
  keys, width = np.load(path)["keys"], first.shape[1]
  for content in (
    *(b"", b"cut off", whole[: len(whole) // 2], whole[:-30], b"x" + whole),
    *_archives(
      {"keys": keys},
      {"keys": keys, "rows": np.zeros((len(keys), width), np.float32)},
      {"keys": keys, "rows": np.ones((len(keys), width))},
      {"keys": keys, "rows": np.full((1, width), np.nan, np.float32)},
      {"keys": np.array([{}], object), "rows": first[:1]},
      {"keys": keys[0], "rows": first[:1]},
    ),
  ):
    path.write_bytes(content)
    row = Texts(load, "r1", mesh, tmp_path).bank([["a photo of rain"]])
    np.testing.assert_allclose(row[0], first[0], atol=1e-6)
  folder = tmp_path / "file"
  folder.write_text("")  # no folder: nothing can be kept there
  row = Texts(load, "r1", mesh, folder).bank([["a photo of rain"]])
  np.testing.assert_allclose(row[0], first[0], atol=1e-6)


def test_ten_thousand_nouns(predictor, capfd):
  names = [f"thing number {i}" for i in range(10_000)]
  found = predictor.predict(IMAGES, nouns=names, top_k=4)
  for role in found[0].roles:
    assert len(role.nouns) == 4 and role.nouns[0].noun in set(names)
  assert "10000/10000 words" in capfd.readouterr().err


def test_words_that_the_encoder_cannot_tell_apart_are_told(predictor, caplog):
  with caplog.at_level(logging.WARNING, logger="absl"):
    _lexicon(predictor, None, ["dog", "saw", "a saw", "man"])
  assert not caplog.records
  texts = predictor._lexicons._texts
  same = np.tile(texts.bank([["a photo of a lynx"]]), (4, 1))
  with caplog.at_level(logging.WARNING, logger="absl"):
    word_lists.lexicon.warn_of_alike(
      same, ["lynx", "oryx", "ibex", "kudu"], "nouns"
    )
  assert "Of the nouns, 'lynx' and 'oryx' have one embedding" in caplog.text
  assert "3 in all" in caplog.text


def _write(tmp_path, text):
  path = tmp_path / "words.yaml"
  path.write_text(text, encoding="utf-8")
  return path


def test_a_file_of_words(tmp_path):
  text = """
verbs:
  juggling:
    roles: {agent: who throws, item:}
    definition: keep things in the air
    abstract: an AGENT juggles an ITEM
  jumping: null
  napping: [agent]
nouns: [man, "no", no, 12, null, Fußball, می\u200cدود, 🏃\u200d♂️]
"""
  with pytest.raises(InputError, match=r"line 9: .*'no' stands in line 9"):
    words_file.read(_write(tmp_path, text))
  found = words_file.read(_write(tmp_path, text.replace('"no", ', "")))
  assert [verb.name for verb in found.verbs] == [
    *("juggling", "jumping", "napping")
  ]
  first, second, third = found.verbs
  assert [role.name for role in first.roles] == ["agent", "item"]
  assert first.roles[0].definition == "who throws"
  assert first.abstract == "an AGENT juggles an ITEM"
  assert second.roles is None and len(third.roles) == 1
  names = [noun.name for noun in found.nouns]
  assert names[:5] == ["man", "no", "12", "null", "Fußball"]
  assert names[5:] == ["می\u200cدود", "🏃\u200d♂️"]  # joiners are of words
  only = words_file.read(_write(tmp_path, "nouns:\n  seal: an animal\n"))
  assert only.verbs is None and only.nouns[0].definition == "an animal"


@pytest.mark.parametrize(
  ("text", "said"),
  [
    ("", "neither 'verbs' nor 'nouns'"),
    ("- dog\n", "neither 'verbs' nor 'nouns'"),
    ("nouns: [a1]\nverb: [b1]\n", "line 2: 'verb' is no part"),
    ("nouns:\n", "'nouns' is empty"),
    ("nouns: []\n", "'nouns' is empty"),
    ("nouns: dog\n", "'nouns' is 'dog', not a list"),
    (
      "nouns:\n- dog\n- cat\n- Dog\n",
      "line 4: the word 'Dog' stands in line 2",
    ),
    ("verbs:\n  a:\n  b:\n  a:\n", "line 4: 'a' stands in line 2"),
    ("nouns:\n- dog\n- [cat]\n", "line 3: .* is no text"),
    ("nouns:\n- dog\n- '!'\n", "line 3: the noun '!' is no word"),
    ('nouns: ["a\\u200b1"]\n', "line 1: the noun .* is no word"),
    ('nouns: ["a1\\u200d"]\n', "line 1: the noun .* is no word"),
    ("verbs:\n  fly:\n    role: [a]\n", "line 2: .*a field 'role'"),
    ("verbs:\n  fly: [a, b, c, d, e, f, g]\n", "line 2: .*has 7 roles"),
    ("nouns: [dog\n", "it is no YAML"),
    ("nouns:\n\t- dog\n", "line 2: it is no YAML"),
    (
      "nouns:\n- &a [x, x]\n- &b [*a, *a]\n- [*b, *b]\n",
      r"line 3: the alias \*a is not read",
    ),
    ("nouns: &a\n- *a\n", r"line 2: the alias \*a"),
    ("nouns:\n- !!python/object:os.system x\n", "line 2: the tag .*os.system"),
    ("nouns:\n- !!binary aGk=\n", "line 2: the tag .*binary"),
    ("nouns: !!set {dog, cat}\n", "line 1: the tag .*set"),
    ("nouns:\n- !x dog\n", "line 2: the tag '!x'"),
    ("verbs:\n  a: &a [b1]\n  c1:\n    <<: *a\n", "line 4: the merge key"),
    ("nouns: " + "[" * 5000, "line 1: it goes too deep"),
    ("verbs: " + "{a: " * 5000, "line 1: it goes too deep"),
    ("nouns:\n- dog\n---\nnouns:\n- cat\n", "it is no YAML"),
    ('nouns: ["\\UFFFFFFFF"]\n', "it is no YAML"),
    ('nouns:\n- "\\uD800x"\n', "line 2: .*is no word"),
    ('verbs:\n  a1: {definition: "x\\0"}\n', "line 2: .*control characters"),
    ("nouns:\n- 1.5\n- '1.5'\n", "line 3: .*'1.5' stands in line 2"),
    ("nouns:\n- dog\x01\n", "it is no YAML"),
    ("nouns: [a1]\n#" + "x" * 5_000_000, "more than 4194304 bytes"),
  ],
)
def test_a_wrong_file_of_words_is_told_by_its_line(tmp_path, text, said):
  path = _write(tmp_path, text)
  with pytest.raises(InputError, match=said) as error:
    words_file.read(path)
  assert str(path) in error.value.problem


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_scalars_stay_the_texts_that_were_written(tmp_path, mark, end):
  given = "yes no on off true 1.5 0x1F 2024-01-01 .nan null 1_000 12:30:45"
  lines = ["nouns:", *(f"- {name}" for name in given.split()), ""]
  path = tmp_path / "words.yaml"
  path.write_bytes(mark + end.join(lines).encode())
  found = [noun.name for noun in words_file.read(path).nouns]
  assert found == given.split()


def test_a_file_that_cannot_be_read(tmp_path):
  with pytest.raises(InputError, match=r"absent.yaml: No such file"):
    words_file.read(tmp_path / "absent.yaml")
  (tmp_path / "latin.yaml").write_bytes("nouns: [Füße]".encode("latin-1"))
  with pytest.raises(InputError, match=r"latin.yaml: it is not UTF-8"):
    words_file.read(tmp_path / "latin.yaml")
  with pytest.raises(InputError, match="Is a directory"):
    words_file.read(tmp_path)
  with pytest.raises(InputError, match="more than 4194304 bytes"):
    words_file.read("/dev/zero")
