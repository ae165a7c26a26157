"""The model and the losses of interactions, on random batches."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from input_pipeline import schema
from mipd_jax.losses import interactions
from mipd_jax.models import outputs as out
from mipd_jax.models import pairs
from tests.fixtures import pair_batches
from tests.fixtures.pair_batches import OBJECT_OF, PAIRS, TRAINED


@functools.cache
def _run():
  """Jits (params, batch, banks) -> total, terms, outputs, gradients."""
  model, losses, _ = pair_batches.make()

  def loss_of(params, batch, banks):
    outputs = model.apply({"params": params}, batch, banks)
    total, means = pair_batches.objective(losses)(outputs, batch, banks)
    return total, (means, outputs)

  return jax.jit(jax.value_and_grad(loss_of, has_aux=True))


def run(batch, banks=None):
  params = pair_batches.make()[2]
  (total, (means, outputs)), grads = _run()(
    params, batch, banks or pair_batches.banks()
  )
  return total, means, outputs, grads


def test_the_contract_holds():
  sizes = schema.validate(pair_batches.batch(), schema.PAIR_TRAIN_KEYS)
  assert sizes["P"] == PAIRS and sizes["V"] == len(OBJECT_OF)


def test_only_interactions_of_the_pairs_object_are_scored():
  batch = pair_batches.batch()
  scores = np.asarray(run(batch)[2][out.PAIR_SCORES])
  own = batch[schema.PAIR_OBJECT][..., None] == OBJECT_OF
  own &= batch[schema.PAIR_MASK][..., None]
  assert (scores[own] > -100).all() and (scores[~own] == out.NEVER).all()


def test_every_term_is_finite_and_every_parameter_learns():
  total, means, _, grads = run(pair_batches.batch())
  expected = {
    *("pair", "verb", "verb_kl", "teacher_verb", "teacher_noun", "total"),
    *("scene_distill", "scene_contrast", "scene_align"),
    *("gaze_distill", "gaze_contrast"),
  }
  assert set(means) == expected
  assert all(np.isfinite(x) for x in means.values()) and np.isfinite(total)
  # Biases of keys drop out of a softmax.
  still = [
    name
    for path, x in jax.tree_util.tree_leaves_with_path(grads)
    if not np.abs(np.asarray(x)).max() > 0
    and not (name := jax.tree_util.keystr(path)).endswith("['key']['bias']")
  ]
  assert not still


def test_a_filled_up_batch_gives_the_same():
  """Neither filler pairs nor filler examples change a term."""
  batch = pair_batches.batch()
  _, means, _, _ = run(batch)
  rng = np.random.default_rng(5)
  noisy = dict(batch)
  filler = ~batch[schema.PAIR_MASK]
  boxes = rng.uniform(0.2, 0.8, batch[schema.PAIR_BOXES].shape)
  noisy[schema.PAIR_BOXES] = np.where(
    filler[..., None], boxes, batch[schema.PAIR_BOXES]
  ).astype(np.float32)
  noisy[schema.PAIR_OBJECT] = np.where(
    filler, 3, batch[schema.PAIR_OBJECT]
  ).astype(np.int32)
  for name, value in run(noisy)[1].items():
    np.testing.assert_allclose(value, means[name], rtol=2e-5, err_msg=name)
  masked = {**batch, schema.EXAMPLE_MASK: np.array([True, True, True, False])}
  changed = {
    key: np.concatenate([x[:3], x[:1]]) if key != schema.EXAMPLE_MASK else x
    for key, x in masked.items()
  }
  expected = run(masked)[1]
  for name, value in run(changed)[1].items():
    np.testing.assert_allclose(value, expected[name], rtol=2e-5, err_msg=name)


def test_what_a_pair_is_matters():
  """Scores follow the boxes, the object's text and the image."""
  batch, banks = pair_batches.batch(), pair_batches.banks()
  before = np.asarray(run(batch)[2][out.PAIR_EMBEDDING])
  moved = batch[schema.PAIR_BOXES].copy()
  moved[:, 0, 0] += 0.1
  swapped = banks | {"noun_text": banks["noun_text"][::-1].copy()}
  tokens = np.asarray(batch[schema.STUDENT_TOKENS])[:, ::-1].copy()
  for changed, texts in (
    (batch | {schema.PAIR_BOXES: moved}, banks),
    (batch, swapped),
    (batch | {schema.STUDENT_TOKENS: tokens}, banks),
  ):
    after = np.asarray(run(changed, texts)[2][out.PAIR_EMBEDDING])
    assert np.abs(after - before)[:, 0].max() > 1e-3


def test_pairs_of_an_image_see_each_other_and_no_other_image():
  batch = pair_batches.batch()
  before = np.asarray(run(batch)[2][out.PAIR_EMBEDDING])
  moved = batch[schema.PAIR_BOXES].copy()
  moved[0, 1] = moved[0, 1][::-1]
  after = np.asarray(
    run(batch | {schema.PAIR_BOXES: moved})[2][out.PAIR_EMBEDDING]
  )
  assert np.abs(after - before)[0, 0].max() > 1e-5
  np.testing.assert_array_equal(after[1:], before[1:])


def test_the_teacher_reads_inside_both_boxes_alone():
  """A gaze target changes with a patch in either box, with no other one."""
  batch = pair_batches.batch()
  boxes = batch[schema.PAIR_BOXES].copy()
  # Cells of 0.25: the person in the first, the object in the last one.
  boxes[0, 0] = [0.12, 0.12, 0.1, 0.1, 0.88, 0.88, 0.1, 0.1]
  batch[schema.PAIR_BOXES] = boxes
  targets = {}
  for patch in (None, 0, 7, 15):
    tokens = np.asarray(batch[schema.TEACHER_TOKENS], np.float32).copy()
    if patch is not None:
      tokens[0, 1 + patch] += 1
    changed = batch | {schema.TEACHER_TOKENS: tokens.astype(jnp.bfloat16)}
    targets[patch] = np.asarray(run(changed)[2][out.GAZE_TARGET])[0, 0]
  for patch, moves in ((0, True), (7, False), (15, True)):
    assert bool((targets[patch] != targets[None]).any()) == moves, patch


def test_untrained_interactions_take_no_part_unless_their_names_may():
  """Only seen labels; names of unseen ones only by `verb_kl_names`."""
  losses = pair_batches.make()[1]
  batch, banks = pair_batches.batch(), pair_batches.banks()
  outputs = run(batch)[2]
  changed = dict(outputs)
  for key in (out.PAIR_SCORES, out.VERB_SCORES, out.TEACHER_PAIR_SCORES):
    scores = np.asarray(outputs[key]).copy()
    asked = (scores > out.NEVER / 2) & ~TRAINED
    scores[asked] += np.random.default_rng(0).normal(size=asked.sum())
    changed[key] = scores
  for names, same in (("trained", True), ("all", False)):
    objective = pair_batches.objective(
      dataclasses.replace(losses, verb_kl_names=names)
    )
    found = [objective(x, batch, banks)[1] for x in (outputs, changed)]
    for name in found[0]:
      equal = bool(np.isclose(found[0][name], found[1][name], rtol=1e-6))
      assert equal == (same or name not in ("verb_kl", "total")), (names, name)


@pytest.mark.parametrize(("alpha", "gamma"), [(0.5, 0.0), (0.25, 2.0)])
def test_focal_against_the_formula(alpha, gamma):
  logits = np.array([-3.0, -0.5, 0.0, 2.0], np.float32)
  truth = np.array([True, False, True, False])
  p = 1 / (1 + np.exp(-logits.astype(np.float64)))
  q = np.where(truth, p, 1 - p)
  weight = np.where(truth, alpha, 1 - alpha)
  expected = -weight * (1 - q) ** gamma * np.log(q)
  found = interactions.focal(logits, truth, alpha, gamma)
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_focal_term_is_the_sum_by_the_number_of_positives():
  batch, banks = pair_batches.batch(), pair_batches.banks()
  _, losses, _ = pair_batches.make()
  _, means, outputs, _ = run(batch)
  scores = np.asarray(outputs[out.PAIR_SCORES], np.float64)
  total = positives = 0
  for row in range(len(scores)):
    for pair in range(PAIRS):
      for verb in range(len(OBJECT_OF)):
        if not batch[schema.PAIR_MASK][row, pair] or not TRAINED[verb]:
          continue
        if OBJECT_OF[verb] != batch[schema.PAIR_OBJECT][row, pair]:
          continue
        truth = verb in batch[schema.PAIR_LABELS][row, pair]
        positives += truth
        total += float(
          interactions.focal(
            scores[row, pair, verb],
            truth,
            losses.focal_alpha,
            losses.focal_gamma,
          )
        )
  del banks
  np.testing.assert_allclose(means["pair"], total / positives, rtol=1e-5)


@pytest.mark.parametrize("detached", [True, False])
@pytest.mark.parametrize(
  ("name", "target", "student"),
  [
    ("scene_distill", out.SCENE_TARGET, out.VERB_EMBEDDING),
    ("gaze_distill", out.GAZE_TARGET, out.PAIR_EMBEDDING),
  ],
)
def test_the_teacher_does_not_follow_the_student(
  name, target, student, detached
):
  losses = pair_batches.make()[1]
  objective = pair_batches.objective(
    dataclasses.replace(losses, detach_teacher=detached)
  )
  batch, banks = pair_batches.batch(), pair_batches.banks()
  outputs = run(batch)[2]

  def term(both):
    found = {**outputs, target: both[0], student: both[1]}
    return objective(found, batch, banks)[1][name]

  of_teacher, of_student = jax.grad(term)((outputs[target], outputs[student]))
  assert bool(jnp.any(of_teacher != 0)) != detached
  assert bool(jnp.any(of_student != 0))


def test_cross_entropy_of_several_labels():
  logits = np.array([[1.0, 2.0, 0.5, 9.0], [0.0, 1.0, 2.0, 3.0]], np.float32)
  labels = np.array([[1, 1, 0, 0], [0, 0, 0, 1]], bool)
  allowed = np.array([True, True, True, False])
  log_sum = np.log(np.exp(logits[0, :3]).sum())
  expected = [log_sum - 1.5, 0.0]  # the second has no allowed label
  found = interactions.several_labels(logits, labels, allowed)
  np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_geometry_by_hand():
  pair = np.array([0.3, 0.5, 0.2, 0.4, 0.5, 0.5, 0.4, 0.2], np.float32)
  found = np.asarray(pairs.features(pair))
  assert found.shape == (pairs.FEATURES,)
  around = [0.45, 0.5, 0.5, 0.4]  # x 0.2 to 0.7, y 0.3 to 0.7
  shared = 0.1 * 0.2  # x 0.3 to 0.4, y 0.4 to 0.6
  expected = [
    *(*pair, *around, 0.2 / 0.2, 0.0, np.log(2), np.log(0.5)),
    *(np.sqrt(0.08), np.sqrt(0.08), shared / (0.16 - shared)),
  ]
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_without_a_teacher_no_teacher_is_read():
  """The student alone, with only the student's keys, gives the same scores."""
  model, _, params = pair_batches.make()
  batch, banks = pair_batches.batch(), pair_batches.banks()
  keys = {key: batch[key] for key in schema.PAIR_STUDENT_KEYS}
  found = jax.jit(
    lambda p: model.apply({"params": p}, keys, banks, method=model.predict)
  )(params)
  np.testing.assert_allclose(
    found[out.PAIR_SCORES], run(batch)[2][out.PAIR_SCORES], rtol=1e-5, atol=1e-5
  )
  plain = pair_batches.make("no_distillation")[0]
  shapes = jax.eval_shape(plain.init, jax.random.key(0), batch, banks)
  assert set(shapes["params"]) == {"student"}
