"""What the report counts, and which images it shows."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mipd_jax.report import examples, measures
from mipd_jax.report.measures import Guesses
from tests.fakes import report_fakes


def test_reliability_bins():
  stated = np.array([0.0, 0.05, 0.1, 0.11, 0.55, 0.6, 1.0])
  true = np.array([False, True, False, True, True, False, True])
  bins = measures.reliability(stated, true)
  assert [b.count for b in bins] == [3, 1, 0, 0, 0, 2, 0, 0, 0, 1]
  assert bins[0].true == pytest.approx(1 / 3)
  assert bins[5].stated == pytest.approx(0.575)
  assert np.isnan(bins[2].true)
  gaps = 3 * abs(0.05 - 1 / 3) + abs(0.11 - 1) + 2 * abs(0.575 - 0.5) + 0
  assert measures.calibration_error(bins) == pytest.approx(gaps / 7)
  nothing = measures.reliability(np.zeros(0), np.zeros(0, bool))
  assert measures.calibration_error(nothing) is None


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 300))
def test_bins_hold_every_prediction_once(seed, count):
  rng = np.random.default_rng(seed)
  stated = rng.integers(0, 11, count) / 10  # the ends of bins
  true = rng.random(count) < stated
  bins = measures.reliability(stated, true)
  assert sum(b.count for b in bins) == count
  assert sum(b.count * b.true for b in bins if b.count) == pytest.approx(
    true.sum()
  )
  for b in bins:
    assert not b.count or b.low - 1e-9 <= b.stated <= b.high + 1e-9


def test_confusions_by_count_then_by_number():
  verb = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2])
  taken = np.array([1, 1, 0, 0, 1, 1, 1, 0, 2])
  found = measures.confusions(verb, taken, 3)
  assert [(c.verb, c.taken_for, c.count) for c in found] == [
    (0, 1, 2),
    (2, 1, 2),
    (1, 0, 1),
  ]
  assert found[0].share == pytest.approx(2 / 3)
  assert measures.confusions(verb, verb, 3) == []


def test_teacher_and_student():
  rows = report_fakes.rows(images=200)
  student = rows.student.verb == rows.verb
  teacher = rows.teacher.verb == rows.verb
  found = measures.agreement(rows)
  assert found["all"] == {
    "both": (student & teacher).sum(),
    "student": (student & ~teacher).sum(),
    "teacher": (~student & teacher).sum(),
    "neither": (~student & ~teacher).sum(),
  }
  for name in found["all"]:
    groups = ("seen", "rare", "unseen")
    assert found["all"][name] == sum(found[g][name] for g in groups)
  lead = measures.lead(rows)
  assert [a - b for *_, a, b in lead] == sorted(
    (a - b for *_, a, b in lead), reverse=True
  )
  verb, images, share, _ = lead[0]
  here = rows.verb == verb
  assert images == here.sum() and share == pytest.approx(student[here].mean())


def test_boxes_are_counted_by_role():
  rows = report_fakes.rows(images=50)
  found = measures.box_table(rows)
  assert sum(found.values()) == rows.role_mask.sum()
  assert found["found"] + found["missed"] == rows.box_mask.sum()
  said = rows.confidence >= 0.5
  assert found["added"] == (said & rows.role_mask & ~rows.box_mask).sum()


def test_score_is_the_mean_of_three():
  rows = report_fakes.rows(images=4)
  shape = rows.role_mask.shape
  mask = np.zeros(shape, bool)
  mask[:, :2] = True
  noun = np.zeros(shape, bool)
  noun[0, :2] = noun[1, 0] = noun[:, 5] = True  # slot 5 is no role
  box = np.zeros(shape, bool)
  box[0, 0] = box[:, 5] = True
  probability = np.array([1.0, 0.5, 0.25, 0.0])
  rows = dataclasses.replace(
    rows,
    role_mask=mask,
    noun_right=noun,
    box_right=box,
    student=Guesses(rows.verb, probability, probability),
  )
  assert rows.score == pytest.approx(
    [(1 + 1 + 0.5) / 3, (0.5 + 0.5 + 0) / 3, 0.25 / 3, 0]
  )


def test_choice_follows_its_rule():
  rows = report_fakes.rows(images=300)
  chosen = examples.choose_for_report(rows, 2, 3)
  score = rows.score
  shown = [i for cell in chosen.examples.values() for i in cell]
  shown += chosen.student_ahead + chosen.teacher_ahead
  assert len(shown) == len(set(shown)) == 3 * 3 * 2 + 6
  assert chosen.all == sorted(shown)
  for number, group in enumerate(("seen", "rare", "unseen")):
    here = np.flatnonzero(rows.group == number)
    ordered = here[np.argsort(score[here], kind="stable")]
    assert sorted(chosen.examples["best", group]) == sorted(ordered[-2:])
    assert chosen.examples["worst", group] == ordered[:2].tolist()
    middle = np.median(score[here])
    nearest = np.sort(np.abs(score[here] - middle))[:2]
    typical = np.abs(score[chosen.examples["typical", group]] - middle)
    assert typical == pytest.approx(nearest)
  for i in chosen.student_ahead:
    assert rows.student.verb[i] == rows.verb[i] != rows.teacher.verb[i]
  for i in chosen.teacher_ahead:
    assert rows.teacher.verb[i] == rows.verb[i] != rows.student.verb[i]


def test_choice_of_few_images():
  rows = report_fakes.rows(images=4, teacher=False)
  chosen = examples.choose_for_report(rows, 2, 3)
  assert chosen.all == [0, 1, 2, 3]
  assert chosen.student_ahead == chosen.teacher_ahead == []


def test_training_images_are_of_different_verbs():
  verb = np.repeat(np.arange(6), 50)
  group = verb % 2  # seen and rare: no other has training images
  chosen = examples.choose_training(verb, group, 4, seed=3)
  assert chosen == examples.choose_training(verb, group, 4, seed=3)
  assert chosen != examples.choose_training(verb, group, 4, seed=4)
  assert len(set(verb[chosen])) == 4
  assert sorted(group[chosen]) == [0, 0, 1, 1]
  assert len(examples.choose_training(verb, group, 40, seed=3)) == 6
