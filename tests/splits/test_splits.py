"""Verb groups: read, drawn, and every way the file can be wrong."""

import numpy as np
import pytest

from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig import vocabulary
from input_pipeline.ov_swig.splits import groups as groups_lib
from tests.fixtures import swig_fixture

COUNTS = [9, 2, 8, 1, 7, 5]


@pytest.fixture
def folder(tmp_path):
  return swig_fixture.write(tmp_path / "swig", per_verb=1)


def _edit(folder, **changes):
  path = folder / "SWiG_jsons" / "ov_splits.json"
  swig_fixture.dump(path, {**swig_fixture.load(path), **changes})


def test_reads_the_lists(folder):
  words = vocabulary.load(folder)
  groups = groups_lib.load_groups(folder, words, ())
  assert groups.groups.dtype == np.int32
  for number, (group, verbs) in enumerate(swig_fixture.GROUPS.items()):
    assert {words.verbs[v] for v in groups.verbs_in(group)} == set(verbs)
    assert all(groups.groups[words.verb_index[v]] == number for v in verbs)
  assert groups.counts == {"seen": 3, "rare": 2, "unseen": 1}


def test_draws_writes_and_reads_the_same(tmp_path):
  folder = swig_fixture.write(tmp_path / "s", per_verb=1, ov_splits=False)
  words = vocabulary.load(folder)
  sizes = {"num_rare": 2, "num_unseen": 2}
  drawn = groups_lib.load_groups(folder, words, COUNTS, **sizes, seed=3)
  assert drawn.counts == {"seen": 2, "rare": 2, "unseen": 2}
  # Another seed and other counts do not matter once the file is there.
  again = groups_lib.load_groups(folder, words, COUNTS[::-1], **sizes, seed=4)
  np.testing.assert_array_equal(drawn.groups, again.groups)
  assert drawn.sha256 == again.sha256
  names = {path.name for path in (folder / "SWiG_jsons").iterdir()}
  assert not any(name.startswith(".") for name in names)


def test_rare_verbs_have_the_fewest_images(folder):
  words = vocabulary.load(folder)
  lists = groups_lib.draw(words, COUNTS, num_rare=2, num_unseen=1, seed=0)
  count = dict(zip(words.verbs, COUNTS, strict=True))
  assert max(count[v] for v in lists["rare"]) < min(
    count[v] for v in lists["seen"]
  )
  drawn = [verb for verbs in lists.values() for verb in verbs]
  assert sorted(drawn) == sorted(words.verbs)


def test_draw_depends_on_the_seed_alone(folder):
  words = vocabulary.load(folder)
  draws = [
    groups_lib.draw(words, COUNTS, num_rare=1, num_unseen=2, seed=seed)[
      "unseen"
    ]
    for seed in (0, 0, 1, 2, 3)
  ]
  assert draws[0] == draws[1]
  assert any(draw != draws[0] for draw in draws)


@pytest.mark.parametrize(
  ("changes", "says"),
  [
    ({"rare": ["carrying", "pushing", "eating"]}, ["eating", "rare", "unseen"]),
    ({"seen": ["jumping", "cooking"]}, ["no list", "raining"]),
    ({"rare": ["carrying", "flying"]}, ["flying", "'rare'"]),
    ({"version": 2}, ["'version': 1"]),
    ({"unseen": "eating"}, ["'unseen': [verbs]"]),
    ({"sha256": "0" * 64}, ["do not fit", "sha256"]),
    ({"sha256": 5, "rare": ["pushing", 5]}, ["rare[1] is 5", "a text"]),
    ({"unseen": ["eating", ["eating"]]}, ["unseen[1] is ['eating']"]),
    ({"unseen": {"eating": 1}}, ["'unseen': [verbs]"]),
    ({"unseen": ["Eating"]}, ["'Eating'", "not a verb"]),
    ({"version": float("nan")}, ["'version': 1"]),
  ],
)
def test_wrong_lists_are_named(folder, changes, says):
  _edit(folder, **changes)
  with pytest.raises(InputError) as error:
    groups_lib.load_groups(folder, vocabulary.load(folder), ())
  assert "ov_splits.json" in str(error.value)
  assert all(text in str(error.value) for text in says), error.value


def test_too_many_to_draw(folder):
  with pytest.raises(InputError, match="at least one verb must be seen"):
    groups_lib.draw(
      vocabulary.load(folder), COUNTS, num_rare=3, num_unseen=3, seed=0
    )
