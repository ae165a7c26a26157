"""Layers of the teacher that stay open to prompts while the student trains."""

import dataclasses

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from input_pipeline import schema
from input_pipeline.io.errors import InputError
from mipd_jax.models import outputs
from mipd_jax.models.mipd import Mipd
from mipd_jax.models.teaching import open_layers
from mipd_jax.models.teaching.open_layers import WEIGHTS
from mipd_jax.teachers import families
from mipd_jax.teachers.blip2 import qformer
from mipd_jax.teachers.encoding import teacher_view
from tests.fixtures import batches, blip2_fixture, models

NAMES = ("qformer", "tower-1")


def _load(folder, name):
  return families.load_teacher(
    str(folder), "float32", question="what", verb_score="sum", open_name=name
  )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  place = tmp_path_factory.mktemp("blip2") / "model"
  return blip2_fixture.with_words(place, ["what"])


@pytest.fixture(scope="module", params=NAMES)
def case(request, folder):
  """A teacher with open layers: what it sees, and their weights as a bank."""
  teacher = _load(folder, request.param)
  side = teacher.image_size
  pixels = np.random.default_rng(0).integers(0, 256, (3, side, side, 3))
  pixels = pixels.astype(np.uint8)
  seen = jax.jit(teacher.see)(teacher.params, pixels)
  bank = {"verb_text": np.zeros(1), **teacher.open_weights()}
  text = teacher.options["open_layers"]
  layers = open_layers.from_text(text)
  assert layers.to_text() == text
  return teacher, seen, layers, open_layers.from_bank(bank, "float32")


def test_open_layers_compute_what_the_teacher_computes(case):
  """From the cached tokens, without a prompt: the whole model's own tokens."""
  teacher, seen, layers, bank = case
  kept = teacher_view(seen, "float32")[schema.TEACHER_TOKENS]
  model = teacher._model
  if layers.kind == open_layers.TOWER:
    assert np.abs(kept - seen["tokens"]).max() > 0.1
    found = jax.jit(layers.run)(bank[WEIGHTS], kept)
    np.testing.assert_allclose(found, seen["tokens"], atol=2e-5)
    return
  np.testing.assert_array_equal(kept, seen["tokens"])
  # The Q-Former itself, with two more queries that the others don't read.
  prompts = np.random.default_rng(1).normal(size=(2, model.query_width))
  prompts = prompts.astype(np.float32)
  own = model.params["query_tokens"][0]
  queries = np.concatenate([own, prompts])[None].repeat(len(kept), 0)
  hidden = np.zeros((1, 1, queries.shape[1], queries.shape[1]), np.float32)
  hidden[..., : len(own), len(own) :] = -1e9

  def masked(next_function, args, kwargs, context):
    if isinstance(context.module, qformer._Heads) and args[0] is args[1]:
      args = (*args[:2], hidden)
    return next_function(*args, **kwargs)

  module = qformer.QFormer(model.config.qformer_config)
  with flax.linen.intercept_methods(masked):
    wanted = module.apply({"params": model.params["qformer"]}, queries, kept)
  for absorb in (True, False):
    found = layers.read(bank[WEIGHTS], kept, prompts, absorb=absorb)
    np.testing.assert_allclose(found, wanted[:, -2:], atol=2e-5)
  plain = module.apply({"params": model.params["qformer"]}, queries, kept)
  assert np.abs(plain - wanted)[:, -2:].max() > 1e-4  # the mask is there


def _model(layers, bank, **form):
  """A model whose prompts pass through the layers; its batch and banks."""
  form = {"teacher_pooling": "learned_query", "open_layers": True} | form
  config, losses = models.configs("mipd", **form)
  model = Mipd(config, batches.SIZES, open_layers=layers)
  return model, losses, batches.banks() | bank


def _batch(seen):
  tokens = teacher_view(seen, "bfloat16")[schema.TEACHER_TOKENS]
  batch = batches.batch(size=len(tokens))
  return batch | {schema.TEACHER_TOKENS: np.asarray(tokens)}


@pytest.mark.parametrize("queries", [1, 2])
def test_prompts_learn_and_frozen_weights_do_not(case, queries):
  _, seen, layers, bank = case
  model, losses, banks = _model(layers, bank, scene_queries=queries)
  batch = _batch(seen)
  params = jax.jit(model.init)(jax.random.key(0), batch, banks)["params"]
  names = flax.traverse_util.flatten_dict(params, sep="/")
  assert not [name for name in names if WEIGHTS in name or "qformer" in name]

  def total(params):
    found = model.apply({"params": params}, batch, banks)
    return models.objective(losses)(found, batch, banks)[0]

  gradient = jax.jit(jax.grad(total))(params)["teacher_branch"]
  learning = {"scene_query"}
  if layers.kind == open_layers.TOWER:
    learning |= {"scene_top", "instance_map"}
  for name in learning:
    assert np.abs(gradient[name]).max() > 0, name


def test_a_prompt_changes_what_the_frozen_layers_make(case):
  """More than it adds: through the tower, patches that got none change too."""
  _, seen, layers, bank = case
  if layers.kind != open_layers.TOWER:
    pytest.skip("the Q-Former's own queries are not read")
  kept = teacher_view(seen, "float32")[schema.TEACHER_TOKENS]
  prompt = np.zeros(kept.shape[1:], np.float32)
  prompt[1] = np.random.default_rng(2).normal(size=kept.shape[-1])
  plain = layers.run(bank[WEIGHTS], kept)
  prompted = layers.run(bank[WEIGHTS], kept + prompt)
  assert np.abs(prompted - plain)[:, 2:].max() > 1e-3


def test_prompts_act_alike_on_both_forms_and_in_every_place(case):
  """The absorbed form and the plain one give the same targets."""
  _, seen, layers, bank = case
  model, _, banks = _model(layers, bank)
  batch = _batch(seen)
  params = jax.jit(model.init)(jax.random.key(0), batch, banks)["params"]
  plain = dataclasses.replace(model, absorbed=False, parent=None)
  for name in (outputs.SCENE_TARGET, outputs.GAZE_TARGET):
    one, other = (
      np.asarray(m.apply({"params": params}, batch, banks)[name])
      for m in (model, plain)
    )
    np.testing.assert_allclose(one, other, atol=1e-4)
    assert np.abs(one - one[:1]).max() > 1e-4  # each image its own


def test_each_prompt_acts_on_its_own_target(case):
  _, seen, layers, bank = case
  if layers.kind != open_layers.TOWER:
    pytest.skip("the Q-Former has no instance prompt")
  model, _, banks = _model(layers, bank)
  batch = _batch(seen)
  params = jax.jit(model.init)(jax.random.key(0), batch, banks)["params"]

  def targets(*changed):
    branch, rng = params["teacher_branch"], np.random.default_rng(3)
    # Not the same for all channels, which a layer norm would remove.
    branch = branch | {k: rng.normal(size=branch[k].shape) for k in changed}
    found = model.apply(
      {"params": params | {"teacher_branch": branch}}, batch, banks
    )
    names = (outputs.SCENE_TARGET, outputs.GAZE_TARGET)
    return [np.asarray(found[name]) for name in names]

  scene, gaze = targets()
  by_scene, by_instance = targets("scene_top"), targets("instance_map")
  assert np.abs(by_scene[0] - scene).max() > 1e-4
  np.testing.assert_array_equal(by_scene[1], gaze)
  np.testing.assert_array_equal(by_instance[0], scene)
  assert np.abs(by_instance[1] - gaze).max() > 1e-4


def test_a_tower_has_no_more_layers_than_it_has(folder):
  with pytest.raises(InputError, match="open_layers=tower-2") as caught:
    _load(folder, "tower-2")
  assert "tower-1" in caught.value.remedy


def test_a_dual_encoder_has_no_open_layers(tmp_path):
  (tmp_path / "config.json").write_text('{"model_type": "clip"}')
  with pytest.raises(InputError, match="no layers that stay open"):
    _load(tmp_path, "qformer")


@pytest.mark.parametrize(
  "name", ["tower", "tower-0", "tower-x", "q", "qformer-1"]
)
def test_other_names_are_refused(name):
  with pytest.raises(ValueError, match=name):
    open_layers.parse(name)


def test_weights_are_cast_and_banks_apart(case):
  _, _, _, bank = case
  leaves = jax.tree.leaves(bank)
  assert set(bank) == {WEIGHTS}
  assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}
