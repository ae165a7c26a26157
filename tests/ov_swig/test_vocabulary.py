"""The vocabulary: numbering, texts, and every way an input can disagree."""

import json
import pathlib
import re

import numpy as np
import pytest

from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig import vocabulary
from input_pipeline.schema import MAX_ROLES
from mipd_jax.teachers import labels
from tests.fixtures import swig_fixture

SHARED = pathlib.Path(__file__).parents[3] / "shared" / "data" / "swig"


@pytest.fixture
def jsons(tmp_path):
  return swig_fixture.write(tmp_path / "swig") / "SWiG_jsons"


def test_index_files_fix_the_numbers(jsons):
  words = vocabulary.load(jsons.parent)
  assert words.verbs == tuple(swig_fixture.FRAMES)
  assert words.nouns[0] == "blank" and words.nouns[-2:] == ("oov", "Pad")
  for verb, roles in swig_fixture.FRAMES.items():
    assert words.frame_roles(words.verb_index[verb]) == roles
  assert words.frame_array.dtype == np.int32
  assert words.frame_array.shape == (len(words.verbs), MAX_ROLES)
  raining = words.verb_index["raining"]
  place = words.role_index["place"]
  assert words.frame_array[raining].tolist() == [place, -1, -1, -1, -1, -1]


def test_texts(jsons):
  words = vocabulary.load(jsons)
  assert words.verb_definitions[words.verb_index["raining"]] == ""
  assert words.verb_definitions[words.verb_index["eating"]] == "to be eating"
  assert words.role_definitions[words.role_index["tool"]] == "The tool of it"
  assert words.noun_glosses[words.noun_id("n02084071")] == ("dog",)
  assert words.noun_glosses[0] == ("nothing",)


def test_each_role_of_a_verb_has_its_own_definition_and_question(jsons):
  path = jsons / "imsitu_space.json"
  space = swig_fixture.load(path)
  roles = space["verbs"]["jumping"]["roles"]
  roles["obstacle"] = {"def": "What is leapt", "question": "over what?"}
  swig_fixture.dump(path, space)
  words = vocabulary.load(jsons)
  jumping = words.verb_index["jumping"]
  assert words.frame_roles(jumping) == ("agent", "obstacle", "place")
  assert words.frame_definitions[jumping] == (
    "The agent of it",
    "What is leapt",
    "The place of it",
  )
  assert words.frame_questions[jumping] == ("", "over what?", "")
  for verb, frame in enumerate(words.frames):
    assert len(words.frame_definitions[verb]) == len(frame)
    assert len(words.frame_questions[verb]) == len(frame)


def test_names_of_several_words(jsons):
  """Own data may have them; an index file has one name a line."""
  path = jsons / "imsitu_space.json"
  space = swig_fixture.load(path)
  space["verbs"]["playing tennis"] = space["verbs"].pop("eating")
  space["nouns"]["ice cream"] = {"gloss": ["ice cream"], "def": ""}
  swig_fixture.dump(path, space)
  names = (jsons / "verb_indices.txt").read_text()
  names = names.replace("eating", "playing tennis")
  (jsons / "verb_indices.txt").write_text(names)
  nouns = (jsons / "train_classes.csv").read_text()
  nouns = nouns.replace("n02084071,", "ice cream,")
  (jsons / "train_classes.csv").write_text(nouns)
  words = vocabulary.load(jsons)
  assert words.verbs[-1] == "playing tennis"
  assert words.noun_id("ice cream") == 3


def test_commonest_role_definition_wins(jsons):
  path = jsons / "imsitu_space.json"
  space = swig_fixture.load(path)
  space["verbs"]["jumping"]["roles"]["place"]["def"] = "A rare text"
  swig_fixture.dump(path, space)
  words = vocabulary.load(jsons)
  assert words.role_definitions[words.role_index["place"]] == "The place of it"


def test_noun_ids(jsons):
  words = vocabulary.load(jsons)
  assert words.noun_id("") == 0
  assert words.noun_id(swig_fixture.UNLISTED) == words.noun_index["oov"]
  assert words.noun_id("n02084071") == words.nouns.index("n02084071")


def test_derived_without_index_files(tmp_path):
  folder = swig_fixture.write(tmp_path / "swig", index_files=False)
  words = vocabulary.load(folder)
  assert words.verbs == tuple(sorted(swig_fixture.FRAMES))
  assert list(words.roles) == sorted(set(words.roles))
  # All nouns of the fixture occur in its training frames.
  assert words.nouns == ("blank", *sorted(swig_fixture.NOUNS), "oov", "Pad")


def test_derived_nouns_are_those_of_training(tmp_path):
  folder = swig_fixture.write(tmp_path / "swig", index_files=False)
  path = folder / "SWiG_jsons" / "train.json"
  records = swig_fixture.load(path)
  for record in records.values():
    record["frames"] = [dict.fromkeys(record["bb"], "n02084071")] * 3
  swig_fixture.dump(path, records)
  assert vocabulary.load(folder).nouns == ("blank", "n02084071", "oov", "Pad")


def test_fingerprint_follows_names_and_texts(jsons):
  before = vocabulary.load(jsons).fingerprint
  assert vocabulary.load(jsons).fingerprint == before
  path = jsons / "imsitu_space.json"
  space = swig_fixture.load(path)
  space["nouns"]["n02084071"]["def"] = "another text"
  swig_fixture.dump(path, space)
  assert vocabulary.load(jsons).fingerprint != before


def _more_roles(jsons):
  space = swig_fixture.space()
  space["verbs"]["eating"]["order"] = list("abcdefg")
  swig_fixture.dump(jsons / "imsitu_space.json", space)


def _cut_off(jsons):
  path = jsons / "imsitu_space.json"
  path.write_text(path.read_text()[:-30])


def _repeated_verb(jsons):
  text = json.dumps(swig_fixture.space())
  text = text.replace('"eating": {', '"raining": {')
  (jsons / "imsitu_space.json").write_text(text)


def _extra_verb(jsons):
  with (jsons / "verb_indices.txt").open("a") as file:
    file.write("flying\n")


def _noun_gap(jsons):
  path = jsons / "train_classes.csv"
  path.write_text(path.read_text().replace("Pad,", "Pad,1"))


def _noun_order(jsons):
  (jsons / "train_classes.csv").write_text("oov,0\nblank,1\nPad,2\n")


def _unknown_noun(jsons):
  (jsons / "train_classes.csv").write_text("blank,0\nn1,1\noov,2\nPad,3\n")


def _gloss(*words):
  def damage(jsons):
    path = jsons / "imsitu_space.json"
    space = swig_fixture.load(path)
    space["nouns"]["n02084071"]["gloss"] = list(words)
    swig_fixture.dump(path, space)

  return damage


def _no_object(jsons):
  space = swig_fixture.space()
  space["verbs"]["eating"] = ["agent"]
  swig_fixture.dump(jsons / "imsitu_space.json", space)


def _other_letters(jsons):
  (jsons / "verb_indices.txt").write_bytes(b"jumping\n\xff\xfe\n")


def _space(change):
  def damage(jsons):
    space = swig_fixture.space()
    change(space["verbs"]["eating"], space["nouns"]["n02084071"], space)
    swig_fixture.dump(jsons / "imsitu_space.json", space)

  return damage


def _set(**fields):
  return _space(lambda verb, noun, space: verb.update(fields))


def _set_noun(**fields):
  return _space(lambda verb, noun, space: noun.update(fields))


def _rename(part, old, new):
  """Adds a second name."""

  def change(_verb, _noun, space):
    space[part][new] = space[part][old]

  return _space(change)


SHAPES = [
  (_set(order="agent"), ["verb 'eating': order is 'agent'", "a list"]),
  (_set(order=3), ["order is 3"]),
  (_set(order=["agent", 3]), ["order[1] is 3", "a text"]),
  (_set(order=["agent", ["food"]]), ["order[1] is ['food']"]),
  (_set(order={"agent": 1}), ["order is {'agent': 1}"]),
  (_set(order=[]), ["'eating' has 0 roles"]),
  (_set(order=["agent", "agent"]), ["'agent' and 'agent', which are one"]),
  (_set(order=["agent", "Agent"]), ["'agent' and 'Agent'", "in capitals"]),
  (_set(order=["agent", " "]), ["the name ' '", "give each a name"]),
  (_set(**{"def": ["eat"]}), ["def is ['eat']"]),
  (_set(abstract=1), ["abstract is 1"]),
  (_set(roles=["agent"]), ["roles is ['agent']"]),
  (_set(roles={"agent": "one"}), ["roles.agent is 'one'"]),
  (_set(roles={"agent": {"def": 5}}), ["role 'agent': def is 5"]),
  (_set_noun(gloss=5), ["noun 'n02084071': gloss is 5"]),
  (_set_noun(gloss={"dog": 1}), ["gloss is {'dog': 1}"]),
  (_set_noun(gloss=["dog", None]), ["gloss[1] is None"]),
  (_set_noun(**{"def": float("nan")}), ["def is nan"]),
  (_rename("verbs", "eating", "Eating"), ["'eating' and 'Eating'"]),
  (_rename("verbs", "eating", "ｅating"), ["'eating' and 'ｅating'"]),
  (_rename("verbs", "eating", ""), ["one of the verbs has the name ''"]),
  (lambda d: swig_fixture.dump(d / "imsitu_space.json", 5), ["lacks 'verbs'"]),
  (
    lambda d: (d / "imsitu_space.json").write_text('{"a":' * 10**5),
    ["nested too deeply"],
  ),
  (
    lambda d: (d / "imsitu_space.json").write_text("{}", "utf-16"),
    ["is UTF-16", "save it as UTF-8"],
  ),
  (
    lambda d: (d / "verb_indices.txt").write_text("jumping", "utf-16"),
    ["verb_indices.txt is UTF-16"],
  ),
  (
    lambda d: (d / "train_classes.csv").write_text("blank;0\noov;1\nPad;2"),
    ["train_classes.csv line 1: 'blank;0'", "noun,index"],
  ),
  (
    lambda d: (d / "train_classes.csv").write_text("noun,index\nblank,0\n"),
    ["train_classes.csv line 1: 'noun,index'"],
  ),
]


@pytest.mark.parametrize(("damage", "says"), SHAPES)
def test_wrong_shapes_are_named(jsons, damage, says):
  damage(jsons)
  with pytest.raises(InputError) as error:
    vocabulary.load(jsons)
  assert all(text in str(error.value) for text in says), error.value
  assert str(error.value).count("Remedy:") == 1


def test_nouns_may_differ_by_capitals(jsons):
  path = jsons / "imsitu_space.json"
  space = swig_fixture.load(path)
  space["nouns"] |= {"turkey": {"gloss": "bird"}, "Turkey": {"gloss": "land"}}
  swig_fixture.dump(path, space)
  vocabulary.load(jsons)
  space["nouns"] |= {"caf\u00e9": {"gloss": "a"}, "cafe\u0301": {"gloss": "b"}}
  swig_fixture.dump(path, space)
  with pytest.raises(
    InputError, match="only in capitals, spaces or the form of letters"
  ):
    vocabulary.load(jsons)


def test_files_of_windows_editors_are_read(jsons):
  """The mark of UTF-8, both ends of lines, quotation marks of spreadsheets."""
  before = vocabulary.load(jsons)
  for path in jsons.iterdir():
    text = path.read_text()
    if path.suffix == ".csv":
      rows = (line.rpartition(",") for line in text.splitlines())
      text = "\n".join(f'"{name}", {number}' for name, _, number in rows)
    path.write_bytes(text.replace("\n", "\r\n").encode("utf-8-sig"))
  assert vocabulary.load(jsons) == before


def test_special_classes_are_no_nouns_of_the_space(jsons):
  """Derived classes have blank, oov and Pad once, in their places."""
  (jsons / "train_classes.csv").unlink()
  before = vocabulary.load(jsons).nouns
  path = jsons / "imsitu_space.json"
  space = swig_fixture.load(path)
  for name in ("blank", "oov", "Pad"):
    space["nouns"][name] = {"gloss": [name]}
  swig_fixture.dump(path, space)
  assert vocabulary.load(jsons).nouns == before


@pytest.mark.parametrize(
  ("damage", "says"),
  [
    (_gloss(), ["imsitu_space.json", "'n02084071' has the words []"]),
    (_gloss("dog", " "), ["'n02084071'", "not an id"]),
    (_gloss("n02084071"), ["'n02084071'", "not an id"]),
    (_gloss("dog", "02084071-n"), ["'n02084071'", "not an id"]),
    (_no_object, ["'verbs' is not an object of objects", "'eating'"]),
    (_other_letters, ["verb_indices.txt is not UTF-8", "byte 8"]),
    (_more_roles, ["'eating' has 7 roles", "1 to 6"]),
    (_cut_off, ["imsitu_space.json is cut off", "line 1, column"]),
    (_repeated_verb, ["'raining' twice"]),
    (_extra_verb, ["verb_indices.txt disagrees", "flying"]),
    (_noun_gap, ["train_classes.csv line 9"]),
    (_noun_order, ["begins with ('oov',)", "'blank'"]),
    (_unknown_noun, ["1 nouns that imsitu_space.json lacks", "n1"]),
    (lambda d: (d / "imsitu_space.json").unlink(), ["is missing"]),
    (lambda d: swig_fixture.dump(d / "imsitu_space.json", []), ["'verbs'"]),
  ],
)
def test_bad_input_is_named(jsons, damage, says):
  damage(jsons)
  with pytest.raises(InputError) as error:
    vocabulary.load(jsons)
  assert all(text in str(error.value) for text in says), error.value


def _defined(words):
  return zip(words.roles, words.role_definitions, strict=True)


real_data = pytest.mark.skipif(
  not SHARED.exists(), reason="no ../shared/data/swig"
)


@real_data
def test_real_vocabulary():
  words = vocabulary.load(SHARED)
  assert len(words.verbs) == 504
  assert len(words.roles) == 190
  assert len(words.nouns) == 9929
  assert words.nouns[0] == "blank"
  assert words.noun_index["oov"] == 9927 and words.noun_index["Pad"] == 9928
  assert all(1 <= len(frame) <= MAX_ROLES for frame in words.frames)
  # The source has no definition of this one role.
  undefined = [r for r, d in _defined(words) if not d]
  assert undefined == ["dye"]
  assert all(words.noun_glosses)
  # Every role of every verb has a question of its own.
  assert all(all(questions) for questions in words.frame_questions)
  agent = words.frame_roles(words.verb_index["jumping"]).index("agent")
  questions = words.frame_questions[words.verb_index["jumping"]]
  assert questions[agent] == "who is doing the jump action?"


@real_data
def test_the_real_noun_bank_never_sees_an_id():
  words = vocabulary.load(SHARED)
  prompts = labels.noun_prompts(words)
  assert len(prompts) == 9929
  texts = [text for some in prompts for text in some]
  assert not [text for text in texts if re.search(r"\d{8}", text)]
  spoken = [name for names in words.noun_glosses for name in names]
  assert not [name for name in spoken if re.search(r"\d{8}", name)]


@real_data
def test_real_index_files_and_derived_ones(tmp_path):
  """Roles are numbered as derived; verbs and nouns are the same names.

  Derived names are sorted. The release numbers verbs as its frames list them
  and nouns by about falling frequency.
  """
  given = vocabulary.load(SHARED)
  space = swig_fixture.load(SHARED / "imsitu_space.json")
  swig_fixture.dump(tmp_path / "imsitu_space.json", space)
  support = swig_fixture.load(SHARED / "verb_role_noun_support_train.json")
  # A record for each noun of each verb's role: all that training has.
  records = {
    f"{verb}_{number}_{role}.jpg": {"verb": verb, "frames": [{role: noun}]}
    for verb, roles in support.items()
    for role, nouns in roles.items()
    for number, noun in enumerate(nouns)
  }
  swig_fixture.dump(tmp_path / "train.json", records)
  derived = vocabulary.load(tmp_path)
  assert derived.roles == given.roles
  assert derived.verbs == tuple(sorted(given.verbs))
  assert given.verbs == tuple(space["verbs"])
  assert derived.nouns[1:-2] == tuple(sorted(given.nouns[1:-2]))
  assert derived.nouns[0] == "blank" and derived.nouns[-2:] == ("oov", "Pad")
