"""Config fields that only studies turn: each does what its name says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from input_pipeline import schema
from mipd_jax.config import TrainConfig
from mipd_jax.losses import situations, terms
from mipd_jax.losses.banks import VERB_LOG_PRIOR
from mipd_jax.losses.config import LossConfig
from mipd_jax.models import outputs as out
from mipd_jax.models.teaching.teacher_branch import TeacherBranch
from tests.fixtures import batches, models

RNG = np.random.default_rng(0)
VERBS = batches.SIZES.num_verbs
TRAINED = np.arange(VERBS) < VERBS - batches.UNTRAINED


@pytest.mark.parametrize(
  ("share", "wanted"),
  [(0.0, []), (0.5, [3, 6]), (1.0, [2, 3, 5, 6])],
)
def test_listed_names_are_an_even_share_of_the_untrained(share, wanted):
  trained = np.array([1, 1, 0, 0, 1, 0, 0], bool)
  found = terms.listed_names(trained, share)
  assert np.flatnonzero(found).tolist() == wanted


def _kl(student, names, listed):
  teacher = np.random.default_rng(7).normal(size=student.shape)
  return terms.verb_kl(
    jnp.asarray(teacher), student, TRAINED, 2.0, names, listed
  )


@pytest.mark.parametrize("names", ["decoupled", "all"])
def test_unlisted_names_take_no_part_in_the_kl(names):
  student = RNG.normal(size=(4, VERBS))
  listed = np.asarray(terms.listed_names(TRAINED, 0.5))
  unlisted = ~TRAINED & ~listed
  assert listed.any() and unlisted.any()

  def loss(scores):
    return jnp.sum(_kl(scores, names, 0.5))

  grad = np.asarray(jax.grad(loss)(jnp.asarray(student)))
  assert (grad[:, unlisted] == 0).all()
  assert (grad[:, TRAINED] != 0).all()
  whole = jax.grad(lambda s: jnp.sum(_kl(s, names, 1.0)))(jnp.asarray(student))
  assert (np.asarray(whole)[:, unlisted] != 0).all()


def test_with_none_listed_the_kl_is_among_trained_names():
  student = RNG.normal(size=(4, VERBS))
  wanted = _kl(student, "trained", 1.0)
  np.testing.assert_allclose(_kl(student, "decoupled", 0.0), wanted, rtol=1e-5)
  np.testing.assert_allclose(_kl(student, "all", 0.0), wanted, rtol=1e-5)


def test_the_weight_of_listing_reaches_the_total():
  scores = RNG.normal(size=(6, VERBS)).astype(np.float32)

  def kl(share):
    config = LossConfig(verb_kl_listed=share)
    found = situations.verb_kl.of(
      {out.VERB_SCORES: scores}, batches.batch(), batches.banks(), config
    )
    return np.asarray(found.value)

  assert not np.allclose(kl(1.0), kl(0.5))
  with pytest.raises(ValueError, match=r"verb_kl_listed=1\.5"):
    LossConfig(verb_kl_listed=1.5)


def _cross_entropy(scores, prior, names):
  config = LossConfig(verb_prior=prior, verb_names=names)
  found = situations.verb.of(
    {out.VERB_SCORES: scores}, batches.batch(), batches.banks(), config
  )
  return jnp.sum(found.value)


@pytest.mark.parametrize("prior", [True, False])
def test_verb_names_says_whether_unseen_names_compete(prior):
  scores = jnp.asarray(RNG.normal(size=(6, VERBS)).astype(np.float32))
  grads = {
    names: np.asarray(jax.grad(_cross_entropy)(scores, prior, names))
    for names in ("trained", "all")
  }
  assert (grads["trained"][:, ~TRAINED] == 0).all()
  # Pushed down, but for what smoothing gives back.
  assert (grads["all"][:, ~TRAINED] != 0).all()
  assert grads["all"][:, ~TRAINED].mean() > 0


def test_the_class_prior_is_a_choice_of_its_own():
  scores = jnp.asarray(RNG.normal(size=(6, VERBS)).astype(np.float32))
  banks = batches.banks()
  shifted = scores + banks[VERB_LOG_PRIOR]
  for names in ("trained", "all"):
    with_prior = _cross_entropy(scores, True, names)
    by_hand = _cross_entropy(shifted, False, names)
    np.testing.assert_allclose(with_prior, by_hand, rtol=1e-5)
    assert abs(with_prior - _cross_entropy(scores, False, names)) > 1e-3


def test_the_negative_competes_in_infonce_only_if_asked():
  rows = [RNG.normal(size=(5, 8)).astype(np.float32) for _ in range(3)]
  others = ~np.eye(5, dtype=bool)

  def loss(negative, competes):
    target, positive = rows[:2]
    return terms.info_nce(target, positive, negative, others, 0.1, competes)

  other = RNG.normal(size=(5, 8)).astype(np.float32)
  np.testing.assert_array_equal(loss(rows[2], False), loss(other, False))
  assert not np.allclose(loss(rows[2], True), loss(other, True))
  assert (loss(rows[2], True) > loss(rows[2], False)).all()


def test_align_negative_reaches_the_total():
  shape = (6, 8)
  outputs = {
    name: RNG.normal(size=shape).astype(np.float32)
    for name in (
      out.SCENE_TARGET,
      out.SCENE_POSITIVE,
      out.SCENE_NEGATIVE,
      out.VERB_EMBEDDING,
    )
  }
  settings = LossConfig(), LossConfig(align_negative=False)

  def both(term):
    data = outputs, batches.batch(), batches.banks()
    return [np.asarray(term.of(*data, form).value) for form in settings]

  assert not np.allclose(*both(situations.scene_align))
  np.testing.assert_array_equal(*both(situations.scene_contrast))


@pytest.mark.parametrize("pooling", ["text", "class_query", "learned_query"])
def test_who_reads_the_prompted_tokens(pooling):
  """Only with the text as the query does the rationale move the target; the
  scene prompt moves it always."""
  config, _ = models.configs("mipd", teacher_pooling=pooling, gaze=False)
  branch = TeacherBranch(config)
  batch, banks = batches.batch(), batches.banks()
  key = jax.random.key(0)
  params = jax.jit(branch.init)(key, batch, banks)["params"]

  @jax.jit
  def target(params, batch):
    return branch.apply({"params": params}, batch, banks)[out.SCENE_TARGET]

  before = target(params, batch)
  told = dict(batch)
  for name in (schema.RATIONALE_TOKENS, schema.RATIONALE_MASK):
    told[name] = batch[name][::-1]
  moved = np.abs(target(params, told) - before).max()
  assert (moved > 1e-4) == (pooling == "text")
  prompted = params | {"scene_top": params["scene_top"] + 1.0}
  assert np.abs(target(prompted, batch) - before).max() > 1e-4
  assert ("scene_query" in params) == (pooling == "learned_query")


def test_what_can_be_shuffled_is_checked():
  with pytest.raises(ValueError, match=r"train\.shuffled='labels'"):
    TrainConfig(shuffled="labels")
