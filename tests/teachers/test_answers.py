"""What a teacher answers about instances: shares, kinds, ways of showing."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from input_pipeline import schema
from input_pipeline.io.errors import InputError
from mipd_jax.devices import sharding
from mipd_jax.losses import terms
from mipd_jax.teachers import answers, blip2, showing, token_boxes
from mipd_jax.teachers.image_teachers import Blip2Teacher
from mipd_jax.teachers.interfaces import Instances, Kind
from tests.fixtures import blip2_fixture as fixture

RNG = np.random.default_rng(0)


# Shares.


@pytest.mark.parametrize("kept", [1, 3, 7, 9])
def test_best_shares_and_the_rest_are_the_softmax(kept):
  scores = RNG.normal(size=(4, 8)).astype(np.float32)
  there = np.arange(8) < 7
  place, share, rest = (
    np.asarray(x)
    for x in answers.top_shares(jnp.asarray(scores), jnp.asarray(there), kept)
  )
  expected = np.exp(scores[:, :7])
  expected /= expected.sum(axis=1, keepdims=True)
  order = np.argsort(-expected, axis=1)[:, :kept]
  most = min(kept, 7)
  np.testing.assert_array_equal(place[:, :most], order)
  sorted_shares = np.take_along_axis(expected, order, axis=1)
  np.testing.assert_allclose(np.exp(share[:, :most]), sorted_shares, rtol=1e-5)
  assert np.isneginf(share[:, most:]).all()
  left = 1 - sorted_shares.sum(axis=1)
  np.testing.assert_allclose(np.exp(rest), left, atol=1e-6)


def _kl(teacher, student, temperature):
  """KL of softmaxes of log shares and logits at a temperature, by numpy."""

  def normal(x):
    x = np.asarray(x, np.float64) / temperature
    return x - np.log(np.exp(x).sum())

  t, s = normal(teacher), normal(student)
  return temperature**2 * float(np.sum(np.exp(t) * (t - s)))


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_with_all_answers_kept_the_loss_is_the_whole_kl(temperature):
  teacher, student = RNG.normal(size=(2, 9)).astype(np.float32)
  candidates = np.array([1, 1, 0, 1, 1, 0, 1, 1, 1], bool)
  chosen = np.flatnonzero(candidates)
  log_shares = jax.nn.log_softmax(teacher[chosen])
  classes = np.full(9, -1)  # two places stay empty
  shares = np.full(9, -1e4, np.float32)
  classes[:7], shares[:7] = chosen, log_shares
  value = terms.answers_kl(
    shares, classes, np.float32(-1e4), student, candidates, temperature
  )
  expected = _kl(teacher[chosen], student[chosen], temperature)
  assert float(value) == pytest.approx(expected, rel=1e-5)


def test_a_rest_that_is_even_loses_nothing():
  """Teacher and student give the rest evenly: lumped, the KL is the same."""
  teacher = np.array([2.0, 1.0, -1, -1, -1, -1], np.float32)
  student = np.array([0.5, 1.5, 0.2, 0.2, 0.2, 0.2], np.float32)
  share = np.asarray(jax.nn.log_softmax(teacher))
  value = terms.answers_kl(
    share[:2],
    np.array([0, 1]),
    np.log(np.exp(share[2:]).sum()),
    student,
    np.ones(6, bool),
    2.0,
  )
  assert float(value) == pytest.approx(_kl(teacher, student, 2.0), rel=1e-5)


def test_equal_answers_cost_nothing_and_gradients_are_finite():
  student = jnp.array([[0.3, 2.0, -1.0, 0.1], [0.0, 0.0, 0.0, 0.0]])
  share = jax.nn.log_softmax(student)
  place = jnp.array([[1, 0, 3, 2], [-1, -1, -1, -1]])
  kept = jnp.where(
    place >= 0, jnp.take_along_axis(share, jnp.abs(place), axis=1), -1e4
  )

  def value(student):
    return terms.answers_kl(
      kept,
      place,
      jnp.full(2, -1e4),
      student,
      jnp.ones((2, 4), bool) & (place[:, :1] >= 0),
      2.0,
    )

  assert float(value(student)[0]) == pytest.approx(0, abs=1e-6)
  gradient = jax.grad(lambda x: value(x).sum())(student + 0.5)
  assert np.isfinite(np.asarray(gradient)).all()


# Ways of showing.

_SIDE = 32
_BOX = np.array([[0.25, 0.125, 0.75, 0.5]], np.float32)


def _image():
  return RNG.integers(0, 256, (1, _SIDE, _SIDE, 3), np.uint8)


def test_an_outline_changes_only_the_rim():
  image = _image()
  show = showing.shower(showing.OUTLINE, _SIDE, 0.0)
  changed = (np.asarray(show(image, _BOX)) != image).any(axis=-1)[0]
  rows, columns = np.nonzero(changed)
  assert (rows.min(), rows.max()) == (3, 16)  # the box has rows 4 to 15
  assert (columns.min(), columns.max()) == (7, 24)  # and columns 8 to 23
  assert not changed[4:16, 8:24].any()


def test_a_blur_leaves_the_box_and_smooths_the_rest():
  image = _image()
  shown = np.asarray(showing.shower(showing.BLUR, _SIDE, 0.0)(image, _BOX))
  np.testing.assert_array_equal(shown[0, 4:16, 8:24], image[0, 4:16, 8:24])
  below = slice(20, 32)
  assert shown[0, below].std() < 0.6 * image[0, below].std()
  flat = np.full_like(image, 77)
  shown = showing.shower(showing.BLUR, _SIDE, 0.0)(flat, _BOX)
  np.testing.assert_array_equal(np.asarray(shown), flat)


def test_a_crop_is_the_square_around_the_box():
  """Of a canvas of twice the side, so that a half of it has its pixels."""
  canvas = RNG.integers(0, 256, (1, 2 * _SIDE, 2 * _SIDE, 3), np.uint8)
  assert showing.canvas_side(showing.CROP, _SIDE) == 2 * _SIDE
  box = np.array([[0.25, 0.25, 0.75, 0.5]], np.float32)
  shown = np.asarray(showing.shower(showing.CROP, _SIDE, 0.0)(canvas, box))
  # 32 pixels wide, so 32 rows around the middle of rows 16 to 32: 8 to 40.
  np.testing.assert_array_equal(shown[0], canvas[0, 8:40, 16:48])
  corner = np.array([[0.0, 0.0, 0.5, 0.1]], np.float32)
  shown = np.asarray(showing.shower(showing.CROP, _SIDE, 0.0)(canvas, corner))
  np.testing.assert_array_equal(shown[0], canvas[0, :32, :32])


def test_a_margin_grows_a_box_within_the_image():
  grown = np.asarray(showing.grow(np.array([0.1, 0.4, 0.5, 0.6]), 0.5))
  np.testing.assert_allclose(grown, [0, 0.2, 0.7, 0.8], atol=1e-6)


# The teacher.


def _teacher():
  """A tiny BLIP-2 that answers with single token ids."""
  model = fixture.model(fixture.T5)
  teacher = Blip2Teacher.__new__(Blip2Teacher)
  teacher._model, teacher._verb_score = model, "sum"
  teacher.name, teacher.revision = model.name, model.revision
  teacher.image_size, teacher.params = model.image_size, model.params
  return teacher


class _Source:
  """Two kinds with candidates of different number and length."""

  slots = 3
  rows = (
    [[5, 3], [6, 3], [5, 7, 3]],
    [[8, 3], [9, 6, 3], [9, 7, 5, 3], [4, 3]],
  )
  kinds = (
    Kind("first", np.array([10, 20, 30]), ("a", "b", "c")),
    Kind("second", np.array([1, 2, 3, 4]), ("d", "e", "f", "g")),
  )


@pytest.fixture
def teacher(monkeypatch):
  made = _teacher()
  texts = {"first": [11, 12, 0], "second": [13, 14, 15]}

  def questions(given):
    ids = np.array([texts[text] for text in given])
    return ids, ids > 0

  def candidates(names):
    which = 0 if names[0] == "a" else 1
    return blip2.CandidateTree.build(_Source.rows[which]).filled_up()

  monkeypatch.setattr(made, "questions", questions)
  monkeypatch.setattr(made, "candidates", candidates)
  return made


def _asked(teacher, way, devices, top_k=3):
  mesh = sharding.make_mesh(devices=jax.devices()[:devices])
  asker = answers.Asker(
    teacher, _Source(), answers.Showing(way, 0.1, top_k), mesh
  )
  pixels = RNG.integers(0, 256, (2, asker.canvas, asker.canvas, 3), np.uint8)
  boxes = np.zeros((2, 3, 4), np.float32)
  boxes[0, 0] = [0.0, 0.0, 0.6, 0.7]
  boxes[0, 2] = [0.3, 0.2, 0.9, 1.0]
  boxes[1, 1] = [0.5, 0.5, 1.0, 1.0]
  kind = np.array([[0, -1, 1], [-1, 1, -1]], np.int32)
  tokens = None
  if asker.needs_tokens:
    tokens = teacher.see(teacher.params, pixels)["tokens"]
  found = asker.answers(
    jax.jit(asker.program),
    teacher.params,
    tokens,
    pixels,
    Instances(boxes, kind),
  )
  return pixels, boxes, kind, {k: np.asarray(x) for k, x in found.items()}


@pytest.mark.parametrize(
  ("way", "devices"), [*((way, 1) for way in showing.WAYS), ("tokens", 8)]
)
def test_answers_are_those_of_each_instance_asked_alone(teacher, way, devices):
  """Kinds, filler of trees and of batches change nothing."""
  pixels, boxes, kind, found = _asked(teacher, way, devices)
  classes = found[schema.ANSWER_CLASSES]
  assert (classes[kind < 0] == -1).all()
  assert (found[schema.ANSWER_LOG_REST][kind < 0] == answers.NONE).all()
  side = teacher.image_size
  for image, slot in np.argwhere(kind >= 0):
    box = boxes[image, slot][None]
    if way == showing.TOKENS:
      tokens = teacher.see(teacher.params, pixels[image][None])["tokens"]
      covered = token_boxes.token_coverage(box, tokens.shape[1])
      seen = teacher.see_part(teacher.params, tokens, covered)
    else:
      shown = showing.shower(way, side, 0.1)(pixels[image][None], box)
      seen = teacher.see(teacher.params, shown)
    one = _Source.kinds[kind[image, slot]]
    ids, mask = teacher.questions([one.question])
    length = int(mask.sum())
    scores = teacher.answer_scores(
      teacher.params,
      seen,
      (ids[:, :length], mask[:, :length]),
      teacher.candidates(one.names),
    )
    share = np.asarray(jax.nn.softmax(scores[0, : len(one.classes)]))
    order = np.argsort(-share)
    np.testing.assert_array_equal(classes[image, slot], one.classes[order[:3]])
    kept = np.exp(found[schema.ANSWER_LOG_SHARES][image, slot])
    np.testing.assert_allclose(kept, share[order[:3]], rtol=2e-4)
    rest = np.exp(found[schema.ANSWER_LOG_REST][image, slot])
    np.testing.assert_allclose(rest, share[order[3:]].sum(), atol=1e-5)


def test_a_box_of_everything_is_the_image_without_its_class_token(teacher):
  side = teacher.image_size
  pixels = RNG.integers(0, 256, (1, side, side, 3), np.uint8)
  seen = teacher.see(teacher.params, pixels)
  tokens = seen["tokens"]
  ones = jnp.ones(tokens.shape[:2])
  whole = teacher.see_part(teacher.params, tokens, ones)["language"]
  np.testing.assert_allclose(whole, seen["language"], rtol=1e-5, atol=1e-5)
  covered = token_boxes.token_coverage(
    np.array([[0, 0, 1, 1]], np.float32), tokens.shape[1]
  )
  expected = [0.0] + [1.0] * (tokens.shape[1] - 1)
  np.testing.assert_allclose(covered[0], expected, atol=1e-6)


def test_other_teachers_are_refused_by_name():
  dull = types.SimpleNamespace(name="dull")
  with pytest.raises(InputError, match="dull cannot be asked about instances"):
    answers.check_teacher(dull, showing.CROP)
  clip = types.SimpleNamespace(name="clip", answer_scores=None)
  answers.check_teacher(clip, showing.CROP)
  with pytest.raises(
    InputError, match=r"(?s)clip is a dual encoder.*show=crop"
  ):
    answers.check_teacher(clip, showing.TOKENS)
