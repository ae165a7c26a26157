"""Unseen verbs cannot leak: every test tries to, and fails.

Ways that are tried: training images, their nouns in the derived classes,
rationales of training images, dev images in the choice of a model, names in
the label banks.
"""

import numpy as np
import pytest

from input_pipeline import schema
from input_pipeline.ov_swig import builder, vocabulary
from input_pipeline.ov_swig import folder as folder_lib
from input_pipeline.ov_swig.records import RATIONALE_KEYS
from input_pipeline.ov_swig.splits import groups as groups_lib
from input_pipeline.ov_swig.splits import leaks
from mipd_jax.metrics import swig_scores
from mipd_jax.rationales import templates
from mipd_jax.teachers import labels
from tests.fixtures import swig_fixture

UNSEEN = "eating"
SECRET = "n07679356"  # a noun that only the unseen verb's images will have


def _write(folder, **options):
  """Only training images of `eating` have bread; all have rationales."""
  swig_fixture.write(folder, per_verb=2, **options)
  path = folder / "SWiG_jsons" / "train.json"
  records = swig_fixture.load(path)
  for name, entry in records.items():
    for frame in entry["frames"]:
      for role, noun in frame.items():
        if noun == SECRET:
          frame[role] = ""
        if entry["verb"] == UNSEEN:
          frame[role] = SECRET
    entry |= {key: f"{key} of {name}: a man" for key in RATIONALE_KEYS}
  swig_fixture.dump(path, records)
  return folder


def _say(folder, name, key, text):
  path = folder / "SWiG_jsons" / "train.json"
  records = swig_fixture.load(path)
  records[name][key] = text
  swig_fixture.dump(path, records)


@pytest.fixture
def folder(tmp_path):
  return _write(tmp_path / "swig")


def test_not_by_training_images(folder, tmp_path):
  dataset = builder.prepare(folder, tmp_path / "data")
  columns = dataset.split("train").annotations()
  eating = dataset.vocabulary.verb_index[UNSEEN]
  assert len(columns[schema.VERB]) == 10
  assert eating not in columns[schema.VERB]
  assert schema.GROUPS.index("unseen") not in columns[schema.GROUP]
  assert not any(UNSEEN in name for name in dataset.split("train").names)
  assert dataset.builder.info.metadata["left_out"] == 2


@pytest.mark.parametrize("key", RATIONALE_KEYS)
@pytest.mark.parametrize(
  "text", ["Eating: a man eats.", "a man, not eating.", "non-eating man"]
)
def test_not_by_rationales(folder, tmp_path, key, text):
  name = "jumping_train_0.jpg"
  _say(folder, name, key, text)
  dataset = builder.prepare(folder, tmp_path / "data")
  split = dataset.split("train")
  assert split.rationales(split.names.index(name)) is None
  # Those of all others stay.
  kept = [split.rationales(i) for i in range(len(split))]
  assert sum(texts is None for texts in kept) == 1
  assert dataset.builder.info.metadata["withheld"] == 1


def test_words_that_only_look_like_it_stay(folder):
  for word in ("beating", "eats", "eatings"):
    _say(folder, "jumping_train_0.jpg", RATIONALE_KEYS[0], f"a man {word}")
    assert folder_lib.read_folder(folder).withheld == 0


def test_rationales_as_given_only_by_asking(folder, tmp_path):
  _say(folder, "jumping_train_0.jpg", RATIONALE_KEYS[0], "eating bread")
  asked = builder.prepare(folder, tmp_path / "data", withhold=False)
  split = asked.split("train")
  index = split.names.index("jumping_train_0.jpg")
  assert split.rationales(index)[0] == "eating bread"
  # It is another dataset, so that neither is taken for the other.
  other = builder.prepare(folder, tmp_path / "data")
  assert other.name != asked.name
  assert other.split("train").rationales(index) is None


def test_not_by_our_own_rationales(folder, tmp_path):
  """Negatives name other verbs; never one that is unseen."""
  dataset = builder.prepare(folder, tmp_path / "data")
  split = dataset.split("train")
  columns = split.annotations()
  words = dataset.vocabulary
  finder = leaks.NameFinder(leaks.unseen_names(words, dataset.groups))
  for seed in range(8):
    writer = templates.RationaleWriter(
      words,
      allowed_verbs=np.unique(columns[schema.VERB]),
      noun_pools=templates.noun_pools(words, columns),
      seed=seed,
    )
    for row, name in enumerate(split.names):
      texts = writer.write(
        name,
        int(columns[schema.VERB][row]),
        columns[schema.NOUNS][row],
        columns[schema.BOXES][row],
      )
      assert [finder.find(text) for text in texts] == [[]] * 4


@pytest.mark.parametrize("ov_splits", [True, False])
def test_not_by_derived_noun_classes(tmp_path, ov_splits):
  """bread is a word of training only where an unseen verb's images are."""
  folder = _write(tmp_path / "swig", index_files=False, ov_splits=ov_splits)
  options = {} if ov_splits else {"num_unseen": 1, "num_rare": 1}
  seed = 0 if ov_splits else _seed_that_draws(folder, UNSEEN)
  content = folder_lib.read_folder(folder, seed=seed, **options)
  assert UNSEEN in leaks.unseen_names(content.vocabulary, content.groups)
  assert SECRET not in content.vocabulary.nouns
  assert vocabulary.load(folder).nouns == content.vocabulary.nouns
  assert "n02084071" in content.vocabulary.nouns


def _seed_that_draws(folder, verb):
  """A seed whose draw calls a verb unseen; nothing is written."""
  words = vocabulary.load(folder)
  from input_pipeline.ov_swig.splits import verb_draw

  for seed in range(100):
    lists = verb_draw.draw(
      words, [2] * len(words.verbs), num_rare=1, num_unseen=1, seed=seed
    )
    if lists["unseen"] == [verb]:
      return seed
  raise AssertionError("no such seed")


def test_not_by_dev_selection(folder, tmp_path):
  """A model that is perfect on unseen dev images gains nothing by it."""
  dataset = builder.prepare(folder, tmp_path / "data")
  columns = dataset.split("dev").annotations()
  verbs, groups = columns[schema.VERB], columns[schema.GROUP]
  unseen = groups == schema.GROUPS.index("unseen")
  assert unseen.any()
  np.testing.assert_array_equal(dataset.groups.may_select(verbs), ~unseen)
  names = np.array(dataset.split("dev").names)[~unseen].tolist()
  about = dataset.builder.info.metadata["images"]["dev_selection"]
  assert about == {
    "images": len(names),
    "sha256": groups_lib.names_digest(names),
  }

  def summary(of_unseen):
    numbers = dict.fromkeys(swig_scores.MEAN_ACC, 0.25) | {"images": 5}
    best = dict.fromkeys(swig_scores.MEAN_ACC, of_unseen) | {"images": 5}
    return {"seen": numbers, "rare": numbers, "unseen": best}

  assert swig_scores.selection_score(
    summary(0.0)
  ) == swig_scores.selection_score(summary(1.0))


def test_not_by_label_banks(folder):
  """An unseen verb's bank row is its own text; no other row has its name."""
  words = folder_lib.read_folder(folder).vocabulary
  eating = words.verb_index[UNSEEN]
  finder = leaks.NameFinder([UNSEEN])
  for number, prompts in enumerate(labels.verb_prompts(words)):
    named = any(finder.find(prompt) for prompt in prompts)
    assert named == (number == eating)
  for prompts in (labels.role_prompts(words), labels.noun_prompts(words)):
    assert not any(finder.find(text) for some in prompts for text in some)


@pytest.mark.parametrize(
  ("name", "text", "is_named"),
  [
    # Scripts without spaces: anywhere; beside other scripts as well.
    ("跳高", "球员在球场跳高", True),
    ("跳高", "跳过高墙", False),
    ("跑步", "他在跑\n步。", True),
    ("走る", "男の子が走る", True),
    ("スケート", "少年がｽｹｰﾄをする", True),
    ("กระโดด", "เด็กกระโดด", True),
    ("กิน", "เขากำลังกินข้าว", True),
    ("수영", "남자가 수영을 한다", True),
    ("eating", "他在eating东西", True),
    ("T字路", "XT字路", False),
    # Marks belong to words, before or in their letter.
    ("กิน", "กีน", False),
    ("ก", "กิน", False),
    ("खा", "वह खाना", False),
    ("दौड़ना", "लड़का दौड़ना चाहता", True),
    ("பேச", "பேசு", False),
    ("café", "un cafe\u0301", True),
    ("cafe\u0301", "UN CAFÉ", True),
    ("cafe", "un café", False),
    ("đi bộ", "Anh ấy đi b\u00f4\u0323.", True),
    ("đi bộ", "Anh ấy ĐI BO\u0302\u0323.", True),
    # Capitals of all languages, wide letters, what cannot be seen.
    ("içmek", "İÇMEK", True),
    ("ısırmak", "ISIRMAK", True),
    ("ISIRMAK", "ısırmak", True),
    ("straßenfegen", "STRASSENFEGEN", True),
    ("τρέχων", "ΤΡΈΧΩΝ", True),
    ("бег", "Бег!", True),
    ("бег", "бега", False),
    ("eating", "ｅａｔｉｎｇ ｂｒｅａｄ", True),
    ("eating", "eat\u00ading\ufeff", True),
    ("eating", "is\u200beating", True),
    ("أكل", "أَكَلَ الولد", True),
    ("high_jumping", "é high jumping", True),
    ("eating", "é beating", False),
    ("🏃", "he 🏃 now", True),
    # Letters of another alphabet that look the same; whole words of it don't.
    ("eating", "\u0435\u0430ting bread", True),
    ("есть", "хочет e\u0441ть", True),
    ("pot", "\u0440\u043e\u0442", False),
    ("\u0440\u043e\u0442", "é pot", False),
  ],
)
def test_names_in_other_scripts(name, text, is_named):
  assert leaks.NameFinder([name]).find(text) == [name] * is_named


def test_names_that_differ_in_their_way_of_writing_alone_are_both_found():
  finder = leaks.NameFinder(["Eating", "eating"])
  assert finder.find("ｅating") == ["Eating", "eating"]


def test_rationale_without_spaces_is_withheld(folder, tmp_path):
  """A verb named in Chinese, from the folder to what training reads."""
  for path in (folder / "SWiG_jsons").iterdir():
    text = path.read_text().replace('"eating"', '"吃饭"')
    path.write_text(text.replace("eating\n", "吃饭\n"))
  _say(folder, "jumping_train_0.jpg", RATIONALE_KEYS[3], "他正在吃饭。")
  dataset = builder.prepare(folder, tmp_path / "data")
  split = dataset.split("train")
  assert split.rationales(split.names.index("jumping_train_0.jpg")) is None
  assert dataset.builder.info.metadata["withheld"] == 1


def test_name_finder():
  finder = leaks.NameFinder(["eating", "playing tennis", "x-raying"])
  assert finder.find("Eating. EATING, beating") == ["eating"]
  assert finder.find("he is playing\n Tennis") == ["playing tennis"]
  assert finder.find("playing the tennis") == []
  assert finder.find("an x-raying doctor") == ["x-raying"]
  assert finder.find("eating while playing tennis") == [
    "eating",
    "playing tennis",
  ]
  assert leaks.NameFinder([]).find("eating") == []
