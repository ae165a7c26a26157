"""A score is one object: a new one appears everywhere without other changes."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest

from mipd_jax.metrics import hico_det_scores, swig_scores

# What an edit of the scores' file does: the list is longer before anything
# that reads it is imported.
_EDITED = """
import numpy as np
from mipd_jax.metrics import hico_det_scores, swig_scores

found = swig_scores.FrameScore(
  "found",  # boxes alone, over images of more than one role
  lambda judged: judged.total(judged.box) / judged.divisor,
  counts=lambda judged: judged.roles > 1,
)
swig_scores.SCORES += tuple(map(found.under, swig_scores.CONDITIONS))
third = swig_scores.Score(
  "verb", "top3", "verb top-3", "top1", lambda judged: judged.rank < 3,
  frame=False, headline=True,
)
swig_scores.SCORES += (third,)
swig_scores.NAMES = tuple(score.name for score in swig_scores.SCORES)
hico_det_scores.SCORES += (
  hico_det_scores.Score("best", "Best", lambda x: 100 * x.values.max()),
)
hico_det_scores.NAMES = tuple(s.name for s in hico_det_scores.SCORES)
"""
_USED = """
import io
import types

from mipd_jax.ablations import run_scores as figures
from mipd_jax.ablations import tables as study_tables
from mipd_jax.evaluation import situations as evaluate
from mipd_jax.metrics import scores, swig
from mipd_jax.models import outputs as out
from mipd_jax.reference import METRICS
from mipd_jax.report import tables
from tests.fixtures import batches

# Two images of verbs 0 and 1, with one role and with three.
judged = swig_scores.judge_images(
  np.array([0, 9]), np.array([0, 1, 1, 1]),
  np.array([True, True, False, False]), np.array([True, True, True, False]))
totals = swig_scores.VerbTotals.of(
  swig_scores.of_images(judged), np.array([0, 1]), 2)
summary = swig_scores.summarise(totals, np.array([0, 0]))
seen = summary["seen"]
assert seen["value_gt"] == 100 * (1 + 1 / 3) / 2, seen
assert abs(seen["found_gt"] - 200 / 3) < 1e-9  # of the second image alone
assert seen["found_top1"] == 0
assert summary["macro"]["seen"]["found_gt"] == seen["found_gt"]
assert "found_gt" not in totals.of_verb(0) and "found_gt" in totals.of_verb(1)

# On the devices.
batch = batches.batch(4)
outputs = {
  out.VERB_SCORES: np.eye(4, batches.SIZES.num_verbs, dtype=np.float32),
  out.NOUN_SCORES: np.zeros((4, 6, batches.SIZES.num_nouns), np.float32),
  out.BOX: batch["boxes"],
  out.BOX_CONFIDENCE: np.where(batch["box_mask"], 1.0, -1.0),
}
columns = scores.example_scores(outputs, batch)
assert (columns[:, swig_scores.NAMES.index("found_gt")] == 1).all()

# In tables and studies; the reference has no such figure.
shown = tables.markdown({"models": {"student": summary}})
assert shown.count("| found |") == 5, shown
told = io.StringIO()
swig._print_tables(
  summary | seen | {"variant": swig.COFORMER}, out=told)
assert told.getvalue().count("found") == 4, told.getvalue()
assert told.getvalue().count("top3") == 2, told.getvalue()
for columns in (study_tables.SCORES, study_tables.DIFFERENCES):
  assert columns["unseen verb top-3"] == "raw/unseen/verb_top3"
assert "seen verb top-5" not in study_tables.SCORES
assert study_tables.ROLES["seen found"] == "raw/seen/found_gt"
logits = np.eye(2)
kept = figures.of_report(
  swig_scores.summarise(totals, np.array([0, 0])), logits,
  np.array([0, 1]), np.array([0, 0]), np.array([True, True]))["figures"]
assert kept["raw/seen/found_gt"] == seen["found_gt"], kept
assert kept["raw/seen/verb_top3"] == seen["verb_top3"] == 50, kept
assert not set(METRICS) & {"found_gt", "found_top1", "verb_top3"}

# Interactions.
half = np.array([True, False])
class Words:
  rare = half
  __len__ = lambda self: 2
words = Words()
split = types.SimpleNamespace(unseen=half, seen=~half)
scored = hico_det_scores.summary(np.array([0.5, 0.25]), words, split)
assert scored["best"] == 50
(first, _) = tables.interaction_blocks({"models": {"student": scored}})
assert (first.header[-1], first.rows[0][-1]) == ("Best", "50.00")
print("everywhere")
"""


def test_a_new_score_is_everywhere_by_itself():
  code = textwrap.dedent(_EDITED + _USED)
  done = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=False
  )
  assert done.stdout.strip() == "everywhere", done.stderr[-2000:]


def test_the_scores_and_their_order():
  """results.json, tables and checkpoints of finished runs go by them."""
  frame = ("value", "value_all", "grnd", "grnd_all")
  conditions = ("top1", "top5", "gt")
  verbs = ("verb_top1", "verb_top5")
  assert (
    verbs + tuple(f"{name}_{when}" for when in conditions for name in frame)
    == swig_scores.NAMES
  )
  assert (
    verbs + tuple(f"{name}_{when}" for when in conditions for name in frame[:2])
    == swig_scores.MEAN_ACC
  )
  headlines = [s.name for s in swig_scores.SCORES if s.headline]
  assert headlines == [*verbs, "value_gt", "grnd_gt"]
  studied = [s.name for s in swig_scores.SCORES if s.studied]
  assert studied == [
    *(*verbs, "value_top1", "grnd_top1"),
    *("value_gt", "value_all_gt", "grnd_gt", "grnd_all_gt"),
  ]
  assert (
    *("full", "rare", "non_rare", "seen", "unseen", "hm"),
  ) == hico_det_scores.NAMES


def test_totals_of_other_scores_are_not_added():
  one, two = (
    swig_scores.VerbTotals(
      (name,), np.ones((1, 1)), np.ones((1, 1)), np.ones(1)
    )
    for name in ("a", "b")
  )
  with pytest.raises(AssertionError):
    one + two
  assert (one + one).images == 2
