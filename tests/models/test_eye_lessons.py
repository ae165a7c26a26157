"""What tokens in a box say alone; roles that are asked without their verb."""

import dataclasses

import jax
import numpy as np
import pytest

from input_pipeline import schema
from mipd_jax.losses import distillation
from mipd_jax.losses.banks import ROLE_CANDIDATES
from mipd_jax.models import outputs
from mipd_jax.models.config import ModelConfig
from mipd_jax.models.mipd import Mipd, of_prediction
from mipd_jax.models.teaching import eye_lessons
from tests.fixtures import batches, models

FORM = {"box_nouns": True, "eyes": "adapter", "eyes_width": 8}


def _scores(batch, **form):
  model, _, params = models.make("mipd", **FORM | form)
  found = model.apply({"params": params}, batch, batches.banks())
  return np.asarray(found[outputs.BOX_NOUN_SCORES])


def test_a_box_is_told_by_the_tokens_inside_it():
  """Changing a token changes the boxes that it lies in, and no others."""
  batch = batches.batch()
  boxes, there = batch[schema.BOXES], batch[schema.BOX_MASK]
  before = _scores(batch, eyes="tokens")
  assert not before[~there].any()
  cell = 5  # row 1, column 1 of 4 x 4
  batch[schema.STUDENT_TOKENS][:, 1 + cell] += 3
  changed = np.abs(_scores(batch, eyes="tokens") - before).max(axis=-1) > 1e-4
  low = np.floor((boxes[..., :2] - boxes[..., 2:] / 2) * 4)
  high = np.floor((boxes[..., :2] + boxes[..., 2:] / 2) * 4)
  inside = ((low <= 1) & (high >= 1)).all(axis=-1) & there
  np.testing.assert_array_equal(changed, inside)
  assert inside.any() and (there & ~inside).any()


@pytest.mark.parametrize("term", ["box_noun", "box_answers"])
def test_boxes_teach_the_eyes(term):
  model, losses, params = models.make("mipd", **FORM)
  batch = batches.batch()
  batch = batches.with_answers(
    batch, batch[schema.BOX_MASK], batches.SIZES.num_nouns
  )
  weights = {one.name: 0.0 for one in models.objective(losses).terms}
  only = dataclasses.replace(losses, **weights | {term: 1.0})
  banks = batches.banks()
  assert ROLE_CANDIDATES in banks

  @jax.jit
  @jax.grad
  def gradient(params, banks):
    found = model.apply({"params": params}, batch, banks)
    return models.objective(only)(found, batch, banks)[0]

  found = gradient(params, banks)
  assert np.abs(found["eyes"]["down"]["dense"]["kernel"]).max() > 0
  decoder = jax.tree.leaves(found["student"])
  assert not max(np.abs(x).max() for x in decoder)


def test_inference_has_no_part_of_it():
  model, _, params = models.make("mipd", **FORM)
  assert "box_nouns" in params
  kept = of_prediction(params)
  assert set(kept) == {"eyes", "student"}
  batch = {
    key: x for key, x in batches.batch().items() if key in schema.STUDENT_KEYS
  }
  found = model.apply(
    {"params": kept}, batch, batches.banks(), method=model.predict
  )
  assert outputs.BOX_NOUN_SCORES not in found


def test_some_images_ask_for_their_roles_without_the_verb():
  """In training alone; then other verbs give these images the same roles."""
  config, _ = models.configs("mipd")
  dropout = dataclasses.replace(config.dropout, query_verb=0.5)
  config = dataclasses.replace(config, dropout=dropout)
  _, _, params = models.make("mipd")
  model = Mipd(config, batches.SIZES)

  def roles(shift, train):
    batch = batches.batch()
    batch[schema.VERB] = (batch[schema.VERB] + shift) % 3
    found = model.apply(
      {"params": params},
      batch,
      batches.banks(),
      train=train,
      rngs={"dropout": jax.random.key(1)},
    )
    return np.asarray(found[outputs.ROLE_EMBEDDING])

  same = np.abs(roles(0, True) - roles(1, True)).max(axis=(1, 2)) < 1e-5
  assert 0 < same.sum() < len(same)
  same = np.abs(roles(0, False) - roles(1, False)).max(axis=(1, 2)) < 1e-5
  assert not same.any()


def test_the_rate_is_off_by_default():
  assert not ModelConfig().dropout.query_verb


def test_the_teachers_patches_are_foretold_where_they_lie():
  """By the student's patches there, whatever the two grids; no label needed."""
  _, _, params = models.make("mipd", foretell=True)
  batch = batches.batch()
  rng = np.random.default_rng(3)
  # A teacher with twice the grid.
  shape = (len(batch[schema.VERB]), 1 + 64, 40)
  batch[schema.TEACHER_TOKENS] = rng.normal(size=shape).astype(np.float32)
  batch = {k: x for k, x in batch.items() if k != schema.NOUNS}
  lesson = eye_lessons.Foretelling()

  def told(tokens):
    found = lesson.apply({"params": params["foretelling"]}, tokens, batch)
    return np.asarray(found[outputs.FORETOLD]).reshape(-1, 8, 8, 40)

  tokens = batch[schema.STUDENT_TOKENS].astype(np.float32)
  before = told(tokens)
  tokens = tokens.copy()
  tokens[:, 1] += rng.normal(size=tokens.shape[-1])  # the first of 4 x 4
  changed = np.abs(told(tokens) - before).max(axis=(0, 3)) > 1e-4
  assert changed[:2, :2].all() and not changed[4:].any()
  assert not changed[:, 4:].any()


def test_foretelling_is_measured_by_cosine():
  rng = np.random.default_rng(4)
  teacher = rng.normal(size=(2, 5, 8)).astype(np.float32)
  normed = teacher[:, 1:] - teacher[:, 1:].mean(axis=-1, keepdims=True)
  wrong = rng.permutation(normed.reshape(-1, 8)).reshape(normed.shape)

  def value(told):
    term, _ = distillation.foretell.of(
      {outputs.FORETOLD: told}, {schema.TEACHER_TOKENS: teacher}, {}, None
    )
    return np.asarray(term)

  np.testing.assert_allclose(value(3 * normed), 0, atol=1e-5)
  np.testing.assert_allclose(value(-normed), 2, atol=1e-5)
  assert (value(wrong) > 0.1).all()
