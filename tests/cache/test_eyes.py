"""What another way of seeing has to touch: its class and its key, no more.

A student that reads pixels is made here from outside, by what `models.eyes`
says: a class, the choice, a key of the contract and a part of the cache. The
cache, the model, the predictor and the export follow.
"""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from input_pipeline import feature_cache, schema
from input_pipeline.feature_cache import Field
from input_pipeline.ov_swig import builder
from mipd_jax.devices import sharding
from mipd_jax.exporting import exported_folder as export_folder
from mipd_jax.exporting import programs as programs_lib
from mipd_jax.inference import programs
from mipd_jax.inference.predictor import Predictor
from mipd_jax.inference.words import Words
from mipd_jax.models import eyes as eyes_lib
from mipd_jax.models.mipd import Mipd
from mipd_jax.teachers import precompute
from mipd_jax.teachers.image_teachers import ZeroShotTeacher
from tests.fakes import fakes
from tests.fixtures import (
  batches,
  models,
  predict_fixture,
  protocols,
  swig_fixture,
)
from tests.repository import test_imports

PIXELS = "pixels"
SIDE = predict_fixture.SIDE


class PixelEyes(nn.Module):
  """Patches of the image itself, projected by weights that are trained."""

  keys: ClassVar[tuple[str, ...]] = (PIXELS,)
  uses_encoder: ClassVar[bool] = False
  trained: ClassVar[bool] = True

  def features(self, pixels, tokens):
    assert tokens is None
    return {PIXELS: pixels}

  @nn.compact
  def __call__(self, batch, *, train=False):
    pixels = batch[PIXELS].astype(jnp.float32) / 255
    patches = nn.Conv(8, (4, 4), strides=(4, 4), name="patch")(pixels)
    patches = patches.reshape(len(pixels), -1, 8)
    whole = patches.mean(axis=1, keepdims=True)
    return jnp.concatenate([whole, patches], axis=1)


@pytest.fixture
def pixel_eyes(monkeypatch):
  eyes = PixelEyes()
  key = schema.Key("B Y Z 3", "uint8", "letterboxed pixels")
  monkeypatch.setitem(schema.FEATURES, PIXELS, key)
  monkeypatch.setitem(feature_cache.PARTS, PIXELS, (PIXELS,))
  monkeypatch.setattr(eyes_lib, "of", lambda config, dtype=None: eyes)
  return eyes


def test_eyes_have_what_the_protocol_asks_for():
  for kind in (eyes_lib.EncoderTokens, eyes_lib.AdaptedTokens, PixelEyes):
    assert protocols.problems(kind, eyes_lib.Eyes) == []


def test_the_encoders_tokens_are_read_as_they_are():
  """They have no parameters, so old checkpoints fit."""
  model, _, params = models.make("mipd")
  eyes = eyes_lib.of(model.config)
  assert feature_cache.parts_of(eyes.keys) == (feature_cache.STUDENT,)
  assert set(params) == {"student", "teacher_branch"}
  batch = batches.batch()
  assert eyes(batch) is batch[schema.STUDENT_TOKENS]


def test_adapted_tokens_start_as_the_encoders_and_learn():
  config, losses = models.configs("mipd", eyes="adapter", eyes_width=8)
  model, batch, banks = (
    Mipd(config, batches.SIZES),
    batches.batch(),
    batches.banks(),
  )
  params = jax.jit(model.init)(jax.random.key(0), batch, banks)["params"]
  eyes = eyes_lib.of(config)
  tokens = batch[schema.STUDENT_TOKENS].astype(np.float32)

  def seen(params):
    return np.asarray(eyes.apply({"params": params["eyes"]}, batch))

  np.testing.assert_array_equal(seen(params), tokens)

  @jax.jit
  @jax.grad
  def grad(params):
    found = model.apply({"params": params}, batch, banks)
    return models.objective(losses)(found, batch, banks)[0]

  params = jax.tree.map(lambda x, g: x - 0.1 * g, params, grad(params))
  after = seen(params)
  assert np.abs(after - tokens).max() > 1e-4
  assert np.abs(jax.tree.leaves(grad(params)["eyes"]["down"])[0]).max() > 0
  # Images see nothing of one another.
  batch[schema.STUDENT_TOKENS][1:] = 0
  np.testing.assert_allclose(seen(params)[0], after[0], rtol=1e-5)


def test_features_that_no_part_holds_are_named():
  with pytest.raises(KeyError, match="smell"):
    feature_cache.parts_of(("smell", schema.STUDENT_TOKENS))


def test_a_cache_holds_what_the_eyes_read(pixel_eyes, tmp_path):
  swig_fixture.write(tmp_path / "swig")
  dataset = builder.prepare(tmp_path / "swig", tmp_path / "tfds")
  encoder = fakes.FakeClip(image_size=SIDE, patch=4)
  cache = precompute.build_cache(
    dataset,
    encoder,
    ZeroShotTeacher(fakes.FakeClip(width=10)),
    tmp_path / "cache",
    precompute.PrecomputeConfig(batch_size=4, text_length=12),
    sharding.make_mesh(devices=jax.devices()[:1]),
    eyes=pixel_eyes,
  )
  assert feature_cache.STUDENT not in cache.plan.split("train").parts
  parts = feature_cache.parts_of(pixel_eyes.keys)
  assert parts == (PIXELS,)
  images = dataset.split("train")
  some = np.arange(3)
  found = cache.split("train", parts).read(some)
  np.testing.assert_array_equal(found[PIXELS], images.letterboxed(some, SIDE))
  feature_cache.verify(cache.folder)


def test_eyes_with_parameters_are_trained(pixel_eyes):
  config, _ = models.configs("mipd")
  model = Mipd(config, batches.SIZES)
  batch = {
    key: x for key, x in batches.batch().items() if key in schema.ANNOTATIONS
  }
  rng = np.random.default_rng(0)
  shape = (len(batch[schema.VERB]), SIDE, SIDE, 3)
  batch[PIXELS] = rng.integers(0, 256, shape, np.uint8)
  given = batch, batches.banks()
  start = jax.jit(
    lambda: model.init(jax.random.key(0), *given, method="predict")
  )
  params = start()["params"]
  assert set(params) == {"eyes", "student"}

  @jax.jit
  @jax.grad
  def grad(params):
    found = model.apply({"params": params}, *given, method="predict")
    return found["verb_scores"].std()

  assert jnp.abs(grad(params)["eyes"]["patch"]["kernel"]).max() > 0


@pytest.fixture
def before():
  """A student that reads tokens; made while that is what students do."""
  return predict_fixture.opened()


@pytest.fixture
def opened(before, pixel_eyes):
  """A student that reads pixels, as a work directory gives it."""
  plan = dataclasses.replace(
    before.plan, fields=(Field(PIXELS, (SIDE, SIDE, 3), "uint8"),)
  )
  model = Mipd(before.model.config, before.model.sizes)
  params = predict_fixture.draw(model, plan, before.banks)
  return dataclasses.replace(before, plan=plan, model=model, params=params)


def test_a_prediction_runs_no_encoder(opened, pixel_eyes):
  pixels = np.zeros((2, SIDE, SIDE, 3), np.uint8)
  seen = programs.see(opened.encoder, pixel_eyes, opened.token_dtype)
  np.testing.assert_array_equal(seen({}, pixels)[PIXELS], pixels)
  predictor = Predictor(opened, predict_fixture.mesh(), 4)
  assert predictor._runner._encoder_params == {}
  images = [predict_fixture.photograph(i) for i in range(3)]
  found = predictor.predict(images)
  assert len({one.verbs[0].probability for one in found}) == 3


def test_an_export_has_no_encoder(opened):
  parameters = programs_lib.parameters(opened)
  assert not [n for n in parameters if n.startswith(programs_lib.ENCODER)]
  assert [n for n in parameters if n.startswith("student.eyes.")]
  dtypes = {name: x.dtype for name, x in parameters.items()}
  lexicon = export_folder.resolve(opened, Words())
  run = jax.jit(programs_lib.make(opened, dtypes, 2))
  found = run(
    parameters,
    programs_lib.arrays(lexicon, 2),
    np.zeros((1, SIDE, SIDE, 3), np.uint8),
    np.full((1, 2), SIDE),
    np.array([-1]),
  )
  assert set(found) == set(programs_lib.OUTPUTS)


def test_nothing_else_names_what_the_student_reads():
  """Or other eyes would have to touch it."""
  allowed = {
    "mipd_jax.models.eyes",
    "mipd_jax.reference.network",  # the authors' batch, by its own names
    "mipd_jax.teachers.cache_plan",  # what the config calls `student`
  }
  for module, path in test_imports.modules():
    if not module.startswith("mipd_jax.") or module in allowed:
      continue
    text = path.read_text(encoding="utf-8")
    assert "STUDENT_TOKENS" not in text, module
    assert "feature_cache.STUDENT" not in text, module
