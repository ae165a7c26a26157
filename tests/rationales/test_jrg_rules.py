"""The rules of JRG: good and bad texts, leaks, stems, prompts."""

import dataclasses

import pytest

from input_pipeline import schema
from mipd_jax.rationales import prompts, templates, wording
from mipd_jax.rationales.judging import tidy
from tests.fakes import jrg_fakes

FRAME = jrg_fakes.frame()
RULES = jrg_fakes.checks()
GOOD = {
  "glimpse_pos": (
    "A dog is jumping over a fence in a park.",
    "The dogs jumped the fence at the park, moving off the ground.",
    "A domestic dog jumps.",
    "One adult male jumps over the fencing.",  # the third annotator's noun
  ),
  "glimpse_neg": (f"A dog and a fence; it is {FRAME.wrong.verb} at a park.",),
  "gaze_pos": (
    "On the left is a dog, a furry animal. At the bottom right there is a "
    "small fence of wood. All of it in a green park.",
    "agent: a man, left. obstacle: fencing. place: a commons",
  ),
  "gaze_neg": (
    "There is "
    + " and ".join(f"a {one.noun}" for one in FRAME.wrong_instances),
  ),
}
BAD = [
  ("glimpse_pos", "", "empty"),
  ("glimpse_pos", "jumping dog", "empty"),
  ("glimpse_pos", "A dog is running at a park.", "verb not named"),
  ("glimpse_pos", "Someone is jumping over a fence.", "agent not named"),
  ("glimpse_pos", "A dog jumps. " + "very good " * 60, "too long"),
  ("glimpse_pos", "dog jumps on and on " * 4, "loop"),
  ("glimpse_pos", "The dog jumps far. The dog jumps far.", "loop"),
  ("glimpse_pos", "Task: the dog is jumping far", "echo"),
  (
    "glimpse_pos",
    "Say in one or two sentences what is going on: a dog jumps",
    "echo",
  ),
  ("glimpse_pos", "A dog jumps, it is not sleeping.", "unseen verb"),
  ("glimpse_pos", "A dog jumps over one who sleeps.", "unseen verb"),
  ("glimpse_pos", "A dog jumps over one who slept.", "unseen verb"),
  ("glimpse_pos", "A dog jumps over ｓｌｅｅｐｉｎｇ men.", "unseen verb"),
  ("glimpse_pos", "A dog jumps, sl\u00adeeping men.", "unseen verb"),
  ("glimpse_pos", "A dog jumps, not sl\u0435\u0435ping.", "unseen verb"),
  ("glimpse_neg", "A dog is jumping over a fence.", "true verb named"),
  (
    "glimpse_neg",
    f"A dog is {FRAME.wrong.verb}; it jumped before.",
    "true verb named",
  ),
  ("glimpse_neg", "A dog and a fence at a park.", "verb not named"),
  ("gaze_pos", "A dog at the left and a park around.", "noun not named"),
  ("gaze_pos", "doggedly, a fence, a park", "noun not named"),
  ("gaze_pos", "A dog, a fence, a park, a man sleeping.", "unseen verb"),
  ("gaze_neg", "A dog, a fence, a park, all green.", "no contradiction"),
  ("gaze_neg", "Something else and nothing more here.", "no contradiction"),
]


@pytest.mark.parametrize(
  ("kind", "text"), [(k, text) for k, texts in GOOD.items() for text in texts]
)
def test_good_texts(kind, text):
  assert RULES.check(kind, text, FRAME) == []


@pytest.mark.parametrize(("kind", "text", "code"), BAD)
def test_bad_texts(kind, text, code):
  faults = RULES.check(kind, text, FRAME)
  assert code in [fault.code for fault in faults]
  assert all(fault.detail.startswith("it ") for fault in faults)


def test_templates_pass_and_do_not_pass_for_each_other():
  texts = dict(zip(schema.RATIONALES, templates.texts(FRAME), strict=True))
  for kind, text in texts.items():
    assert RULES.check(kind, text, FRAME) == []
  for kind, other in (
    ("glimpse_pos", "glimpse_neg"),
    ("glimpse_neg", "glimpse_pos"),
    ("gaze_pos", "gaze_neg"),
    ("gaze_neg", "gaze_pos"),
  ):
    assert RULES.check(kind, texts[other], FRAME), kind


def test_a_noun_that_sounds_like_a_verb_is_neither_named_verb_nor_leak():
  fence = dataclasses.replace(FRAME.instances[1], nouns=("fence", "sleeper"))
  frame = dataclasses.replace(
    FRAME, instances=(FRAME.instances[0], fence, FRAME.instances[2])
  )
  text = "A dog jumps over the sleeper."
  assert RULES.check("glimpse_pos", text, frame) == []
  jump = dataclasses.replace(FRAME.instances[1], nouns=("jump",))
  frame = dataclasses.replace(
    FRAME, instances=(FRAME.instances[0], jump, FRAME.instances[2])
  )
  wrong = f"A dog is {frame.wrong.verb} at a jump."
  assert RULES.check("glimpse_neg", wrong, frame) == []
  codes = [f.code for f in RULES.check("glimpse_pos", "A dog at a jump", frame)]
  assert codes == ["verb not named"]


def test_definitions_with_an_unseen_verb_are_left_out():
  first = dataclasses.replace(FRAME.instances[0], looks="animal often sleeping")
  frame = dataclasses.replace(
    FRAME,
    true=dataclasses.replace(FRAME.true, meaning="not sleeping"),
    instances=(first, *FRAME.instances[1:]),
  )
  clean = RULES.without_leaks(frame)
  assert clean.true.meaning == "" and clean.instances[0].looks == ""
  assert clean.instances[1] == FRAME.instances[1]
  assert not any("sleeping" in text for text in templates.texts(clean))


@pytest.mark.parametrize(
  "forms",
  [
    "jumping jumps jumped jump",
    "riding rides rode ride",
    "carrying carries carried carry",
    "running ran runs run",
    "kissing kisses kiss",
    "dogs dog",
    "children child",
    "boxes box",
    "axes axe",
    "puppies puppy",
  ],
)
def test_forms_share_a_stem(forms):
  assert len({wording.stem(form) for form in forms.split()}) == 1


def test_other_words_share_none():
  words = [
    "king",
    "bus",
    "grass",
    "ring",
    "dressing",
    "drawing",
    "washing",
    "jumping",
    "being",
  ]
  assert len({wording.stem(word) for word in words}) == len(words)


@pytest.mark.parametrize("style", prompts.STYLES.values())
@pytest.mark.parametrize("kind", schema.RATIONALES)
def test_prompts_are_filled(style, kind):
  text = style.write(kind, FRAME, 40, ("old text", "it is old"))
  question = style.ask(kind, FRAME, "Some text")
  for prompt in (text, question):
    assert "{" not in prompt and "}" not in prompt
  assert "Some text" in question
  assert "sleeping" not in text
  if style.name == "full":
    assert "old text" in text and "it is old" in text and "40 words" in text
    assert "jumping" in text


def test_prompts_tell_what_is_needed():
  ask = prompts.FULL.write
  assert "dog, fence, park" in ask("gaze_pos", FRAME, 40)
  assert "small bottom right" in ask("gaze_pos", FRAME, 40)
  assert "man" in ask("gaze_pos", FRAME, 40)  # another annotator's
  assert FRAME.wrong.verb in ask("glimpse_neg", FRAME, 40)
  for one in FRAME.wrong_instances:
    assert one.noun in ask("gaze_neg", FRAME, 40)


def test_tidy():
  assert tidy('Answer: "A dog\n jumps."\n\nNext: more') == "A dog jumps."


@pytest.mark.parametrize(
  ("text", "phrase", "there"),
  [
    ("el niño salta", "niño", True),
    ("el nin\u0303o salta", "niño", True),
    ("el niñote salta", "niño", False),
    ("男孩在操场跳绳", "男孩", True),
    ("男孩在操场跳绳", "女孩", False),
    ("소년이 공원에서", "공원", True),
    ("лошади бегут", "лошади", True),
    ("लड़की और लड़का", "लड़की", True),
    ("लड़की और लड़का", "लड़", False),
    ("A dog's 2 bones", "dogs", True),
  ],
)
def test_words_of_any_script(text, phrase, there):
  assert wording.contains(wording.stems(text), phrase) == there
