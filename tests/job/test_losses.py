"""Each loss term against its formula, written out with loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from input_pipeline import schema
from mipd_jax.losses import box_ops, situations, terms
from mipd_jax.losses.banks import VERB_LOG_PRIOR, VERB_TRAINED
from mipd_jax.losses.config import LossConfig
from mipd_jax.models import outputs as out
from tests.fixtures import batches

RNG = np.random.default_rng(3)


def _log_softmax(x):
  x = x - x.max()
  return x - np.log(np.exp(x).sum())


def test_smoothed_cross_entropy():
  logits = RNG.normal(size=(4, 7)).astype(np.float32)
  labels = RNG.integers(0, 7, (4, 3))
  got = terms.smoothed_cross_entropy(logits, labels, 0.2)
  for row in range(4):
    log_p = _log_softmax(logits[row])
    for a in range(3):
      want = -0.8 * log_p[labels[row, a]] - 0.2 * log_p.mean()
      np.testing.assert_allclose(got[row, a], want, rtol=1e-5)


def test_smoothed_cross_entropy_leaves_out_classes():
  """Classes that are not allowed get no gradient, prior or not."""
  logits = RNG.normal(size=(2, 5)).astype(np.float32)
  allowed = np.array([True, True, False, True, False])
  prior = np.log(np.array([0.5, 0.2, 1e-9, 0.3, 1e-9], np.float32))
  labels = np.array([[0], [3]])

  def loss(x):
    return terms.smoothed_cross_entropy(x, labels, 0.1, prior, allowed).sum()

  small = logits[:, allowed] + prior[allowed]
  want = 0.0
  for row, label in enumerate((0, 2)):
    log_p = _log_softmax(small[row])
    want += -0.9 * log_p[label] - 0.1 * log_p.mean()
  np.testing.assert_allclose(loss(logits), want, rtol=1e-5)
  grads = jax.grad(loss)(jnp.asarray(logits))
  assert not np.asarray(grads)[:, ~allowed].any()
  assert np.isfinite(grads).all()


def test_info_nce_leaves_out_same_verb_and_filler():
  target, positive, negative = RNG.normal(size=(3, 4, 6)).astype(np.float32)
  verb = np.array([1, 1, 2, 3])
  mask = np.array([True, True, True, False])
  other = terms.other_verbs(verb, mask)
  got = terms.info_nce(target, positive, negative, other, 0.5)

  def cos(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

  # Example 0 sees its positive, that of example 2, and its negative.
  logits = np.array(
    [
      cos(target[0], positive[0]),
      cos(target[0], positive[2]),
      cos(target[0], negative[0]),
    ]
  )
  np.testing.assert_allclose(got[0], -_log_softmax(logits / 0.5)[0], rtol=1e-5)


@pytest.mark.parametrize("names", ["trained", "untrained", "decoupled", "all"])
def test_verb_kl(names):
  teacher, student = RNG.normal(size=(2, 3, 6)).astype(np.float32)
  trained = np.array([True, True, True, True, False, False])
  groups = {
    "trained": (trained,),
    "untrained": (~trained,),
    "decoupled": (trained, ~trained),
    "all": (np.ones(6, bool),),
  }[names]

  def loss(student):
    return terms.verb_kl(teacher, student, trained, 2.0, names)

  got = loss(student)
  for row in range(3):
    want = 0.0
    for group in groups:
      t = _log_softmax(teacher[row, group] / 2)
      s = _log_softmax(student[row, group] / 2)
      want += 4 * (np.exp(t) * (t - s)).sum()
    np.testing.assert_allclose(got[row], want, rtol=1e-4)
  grad = np.asarray(jax.grad(lambda s: loss(s).sum())(student))
  assert np.isfinite(grad).all()
  assert grad[:, ~trained].any() == (names != "trained")
  assert grad[:, trained].any() == (names != "untrained")


def test_verb_kl_gain_sharpens_the_teacher_alone():
  teacher, student = RNG.normal(size=(2, 3, 6)).astype(np.float32)
  trained = np.array([True, True, True, True, False, False])
  sharp = terms.verb_kl(teacher, student, trained, 2.0, "decoupled", gain=3.0)
  by_hand = terms.verb_kl(3 * teacher, student, trained, 2.0, "decoupled")
  np.testing.assert_allclose(sharp, by_hand, rtol=1e-6)
  same = terms.verb_kl(teacher, student, trained, 2.0, "decoupled")
  assert np.abs(sharp - same).min() > 1e-3


def test_verb_kl_under_a_prior():
  """By hand, among trained names; an even prior changes nothing."""
  teacher, student = RNG.normal(size=(2, 3, 6)).astype(np.float32)
  trained = np.array([True, True, True, True, False, False])
  prior = np.log(np.array([0.5, 0.3, 0.1, 0.1, 0.1, 0.1], np.float32))

  def kl(log_prior, names="trained"):
    return terms.verb_kl(
      teacher, student, trained, 2.0, names, log_prior=log_prior
    )

  for row, got in enumerate(kl(prior)):
    t = _log_softmax(teacher[row, :4] / 2 + prior[:4])
    s = _log_softmax(student[row, :4] / 2 + prior[:4])
    want = 4 * (np.exp(t) * (t - s)).sum()
    np.testing.assert_allclose(got, want, rtol=1e-4)
  even = np.full(6, -3.0, np.float32)
  np.testing.assert_allclose(kl(even), kl(None), rtol=1e-4, atol=1e-6)
  # Untrained names share one prior.
  np.testing.assert_allclose(
    kl(prior, "untrained"), kl(None, "untrained"), rtol=1e-4, atol=1e-6
  )


def test_verb_kl_without_untrained_verbs_is_finite():
  scores = RNG.normal(size=(2, 4)).astype(np.float32)
  everything = np.ones(4, bool)
  got = terms.verb_kl(scores, -scores, everything, 1.0, "decoupled")
  assert np.isfinite(got).all()


@pytest.mark.parametrize(
  ("source", "key"),
  [("teacher", schema.VERB_LOGITS), ("clip", schema.CLIP_LOGITS)],
)
def test_verb_kl_takes_the_logits_of_its_source(source, key):
  rows = 3
  scores = RNG.normal(size=(rows, batches.SIZES.num_verbs)).astype(np.float32)
  batch = batches.batch(rows)
  for name in (schema.VERB_LOGITS, schema.CLIP_LOGITS):
    batch[name] = RNG.normal(size=scores.shape).astype(np.float32)
  config = LossConfig(
    verb_kl_source=source, verb_kl_gain=1.5, verb_kl_prior=True
  )
  banks = batches.banks()
  found = situations.verb_kl.of({out.VERB_SCORES: scores}, batch, banks, config)
  wanted = terms.verb_kl(
    batch[key],
    scores,
    banks[VERB_TRAINED],
    config.verb_kl_temperature,
    config.verb_kl_names,
    gain=1.5,
    log_prior=banks[VERB_LOG_PRIOR],
  )
  np.testing.assert_allclose(found.value, wanted)


def test_box_regression_counts_boxes_of_each_example():
  batch = batches.batch(5)
  predicted = RNG.uniform(0.2, 0.8, (5, 6, 4)).astype(np.float32)
  mask = batch[schema.BOX_MASK].copy()
  mask[2] = False
  l1, giou, has_box = terms.box_regression(predicted, batch[schema.BOXES], mask)
  np.testing.assert_array_equal(has_box, mask.any(axis=1))
  for row in range(5):
    real = np.flatnonzero(mask[row])
    if not len(real):
      assert l1[row] == giou[row] == 0
      continue
    true, guess = batch[schema.BOXES][row, real], predicted[row, real]
    np.testing.assert_allclose(
      l1[row], np.abs(true - guess).sum() / len(real), rtol=1e-5
    )
    want = np.mean([1 - _giou(a, b) for a, b in zip(true, guess, strict=True)])
    np.testing.assert_allclose(giou[row], want, rtol=1e-4)


def _corners(box):
  x, y, w, h = box
  return x - w / 2, y - h / 2, x + w / 2, y + h / 2


def _giou(a, b):
  ax, ay, aX, aY = _corners(a)
  bx, by, bX, bY = _corners(b)
  width, height = min(aX, bX) - max(ax, bx), min(aY, bY) - max(ay, by)
  inter = max(width, 0) * max(height, 0)
  union = (aX - ax) * (aY - ay) + (bX - bx) * (bY - by) - inter
  hull = (max(aX, bX) - min(ax, bx)) * (max(aY, bY) - min(ay, by))
  return inter / union - (hull - union) / hull


def test_box_forms_are_inverse():
  boxes = batches.batch()[schema.BOXES]
  back = box_ops.to_centres(box_ops.to_corners(boxes))
  np.testing.assert_allclose(back, boxes, atol=1e-6)


def test_giou_of_points_is_finite_with_finite_gradient():
  point = jnp.array([[0.5, 0.5, 0.5, 0.5]])
  value, grad = jax.value_and_grad(lambda x: box_ops.giou(x, point).sum())(
    point
  )
  assert value == 0
  assert np.isfinite(grad).all()


def test_term_mean_ignores_values_without_weight():
  term = terms.Term(jnp.array([1.0, jnp.nan, 3.0]), jnp.array([1.0, 0.0, 1.0]))
  assert term.mean() == 2.0
  nothing = terms.Term(jnp.array([1.0]), jnp.array([0.0]))
  assert nothing.mean() == 0.0


def test_binary_cross_entropy():
  logits = np.array([-2.0, 0.0, 3.0, 80.0], np.float32)
  truth = np.array([True, False, True, False])
  p = 1 / (1 + np.exp(-logits.astype(np.float64)))
  got = terms.binary_cross_entropy(logits, truth)
  want = np.where(truth, -np.log(p), logits + np.log1p(np.exp(-logits)))
  np.testing.assert_allclose(got, want, rtol=1e-5)
