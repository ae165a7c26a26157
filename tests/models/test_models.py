"""What reaches what: prompts, gaze, padding, inference without teacher."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from input_pipeline import schema
from mipd_jax import presets
from mipd_jax.models import outputs as out
from mipd_jax.models.config import ModelConfig, Sizes
from mipd_jax.models.mipd import Mipd
from tests.fixtures import batches, models

PROMPTS = (
  "scene_top",
  "scene_bottom",
  "scene_left",
  "scene_right",
  "instance_map",
)


def _size(tree) -> float:
  return max(float(np.abs(x).max()) for x in jax.tree.leaves(tree))


@pytest.mark.parametrize("preset", presets.PRESETS)
def test_outputs_have_their_shapes(preset):
  model, _, params = models.make(preset)
  outputs = jax.eval_shape(
    model.apply, {"params": params}, batches.batch(), batches.banks()
  )
  b, r = 6, schema.MAX_ROLES
  assert outputs[out.VERB_SCORES].shape == (b, batches.SIZES.num_verbs)
  assert outputs[out.NOUN_SCORES].shape == (b, r, batches.SIZES.num_nouns)
  assert outputs[out.BOX].shape == (b, r, 4)
  assert outputs[out.BOX_CONFIDENCE].shape == (b, r)
  assert (out.SCENE_TARGET in outputs) == (preset != "no_distillation")


@pytest.mark.parametrize("prompt", PROMPTS)
def test_prompts_receive_gradient_in_mipd(prompt):
  """Fault table, row 1: ours."""
  *_, grads = models.loss_and_grads("mipd", batches.batch())
  assert _size(grads["teacher_branch"][prompt]) > 1e-6


@pytest.mark.parametrize("prompt", PROMPTS)
def test_prompts_are_dead_in_the_reference(prompt):
  """Fault table, row 1: measured on the authors' code, and here."""
  *_, grads = models.loss_and_grads("reference", batches.batch())
  assert _size(grads["teacher_branch"][prompt]) == 0


@pytest.mark.parametrize(
  ("prompt", "target"),
  [("scene_top", out.SCENE_TARGET), ("instance_map", out.GAZE_TARGET)],
)
@pytest.mark.parametrize(("preset", "alive"), [("mipd", 1), ("reference", 0)])
def test_prompts_change_their_target(prompt, target, preset, alive):
  _, _, params = models.make(preset)
  changed = dict(params)
  branch = dict(params["teacher_branch"])
  branch[prompt] = branch[prompt] + 1.0
  changed["teacher_branch"] = branch
  before = models.loss_and_grads(preset, batches.batch())[2]
  after = models.loss_and_grads(preset, batches.batch(), changed)[2]
  difference = np.abs(before[target] - after[target]).max()
  assert (difference > 1e-3) == bool(alive)


def test_each_image_is_prompted_by_its_own_boxes():
  """Fault table, row 3: the reference prompts all with sample 0's boxes."""
  batch = batches.batch()
  other = dict(batch)
  boxes = batch[schema.BOXES].copy()
  row, role = np.argwhere(batch[schema.BOX_MASK])[0]
  boxes[row, role] = [0.2, 0.2, 0.2, 0.2]
  other[schema.BOXES] = boxes
  a = models.loss_and_grads("mipd", batch)[2][out.GAZE_TARGET]
  b = models.loss_and_grads("mipd", other)[2][out.GAZE_TARGET]
  changed = np.abs(a - b).max(axis=(1, 2)) > 1e-6
  assert changed[row]
  assert changed.sum() == 1


def test_gaze_reaches_the_role_embeddings():
  """Fault table, row 2: gaze distillation alone trains decoder and roles."""
  losses = models.make("mipd")[1]
  weights = {
    field.name: 0.0
    for field in dataclasses.fields(losses)
    if isinstance(getattr(losses, field.name), float)
    and field.name not in ("align_temperature", "verb_kl_temperature")
  }
  only_gaze = dataclasses.replace(losses, **weights | {"gaze_distill": 1.0})
  *_, grads = models.loss_and_grads("mipd", batches.batch(), losses=only_gaze)
  assert _size(grads["student"]["decoder"]) > 1e-6
  assert _size(grads["student"]["role_query"]) > 1e-6
  assert _size(grads["student"]["noun_proj"]) > 1e-6
  # Detached: the student's imitation does not move what it imitates.
  assert _size(grads["teacher_branch"]) == 0
  attached = dataclasses.replace(only_gaze, detach_teacher=False)
  *_, grads = models.loss_and_grads("mipd", batches.batch(), losses=attached)
  assert _size(grads["teacher_branch"]) > 1e-6


def test_gaze_does_not_reach_the_student_in_the_reference():
  model, _, params = models.make("reference")

  def gaze(student):
    outputs = model.apply(
      {"params": {**params, "student": student}},
      batches.batch(),
      batches.banks(),
    )
    return outputs[out.GAZE_TARGET].sum() + outputs[out.GAZE_NEGATIVE].sum()

  assert _size(jax.grad(gaze)(params["student"])) == 0


def test_caption_padding_is_masked_in_mipd_only():
  """Fault table, row 8."""
  batch = batches.batch()
  noisy = dict(batch)
  padding = ~batch[schema.RATIONALE_MASK][..., None]
  noisy[schema.RATIONALE_TOKENS] = np.where(
    padding, 5, batch[schema.RATIONALE_TOKENS]
  ).astype(batch[schema.RATIONALE_TOKENS].dtype)
  for preset, changes in (("mipd", False), ("reference", True)):
    a = models.loss_and_grads(preset, batch)[0]
    b = models.loss_and_grads(preset, noisy)[0]
    assert bool(abs(a - b) > 1e-4) == changes


@pytest.mark.parametrize("preset", presets.PRESETS)
def test_prediction_needs_the_student_keys_only(preset):
  """Fault table, row 9."""
  model, _, params = models.make(preset)
  full = batches.batch()
  student = {key: full[key] for key in schema.STUDENT_KEYS}
  banks = batches.banks()
  predict = jax.jit(functools.partial(model.apply, method=model.predict))
  alone = predict({"params": {"student": params["student"]}}, student, banks)
  trained = jax.jit(model.apply)({"params": params}, full, banks)
  for name, value in alone.items():
    np.testing.assert_array_equal(value, trained[name])


@pytest.mark.parametrize("preset", presets.PRESETS)
def test_padded_roles_change_nothing(preset):
  """Neither what a padded slot holds nor its gradient reaches anything."""
  batch = batches.batch()
  noisy = dict(batch)
  rng = np.random.default_rng(5)
  pad = ~batch[schema.ROLE_MASK]
  noisy[schema.ROLES] = np.where(pad, 3, batch[schema.ROLES])
  noisy[schema.NOUNS] = np.where(pad[..., None], 2, batch[schema.NOUNS])
  noisy[schema.BOXES] = np.where(
    pad[..., None],
    rng.uniform(0.3, 0.6, batch[schema.BOXES].shape),
    batch[schema.BOXES],
  ).astype(np.float32)
  total, _, outputs, grads = models.loss_and_grads(preset, batch)
  total_2, _, outputs_2, grads_2 = models.loss_and_grads(preset, noisy)
  assert total == total_2
  jax.tree.map(np.testing.assert_array_equal, grads, grads_2)
  for name in (out.NOUN_SCORES, out.BOX, out.BOX_CONFIDENCE):
    np.testing.assert_array_equal(outputs[name], outputs_2[name])
    assert np.all(np.asarray(outputs[name])[pad] == 0)


@pytest.mark.parametrize("preset", presets.PRESETS)
def test_what_filler_holds_changes_nothing(preset):
  batch, other = batches.batch(), batches.batch(seed=9)
  mask = np.arange(len(batch[schema.VERB])) < 4
  filled = [
    {
      k: np.where(mask.reshape(-1, *[1] * (x.ndim - 1)), batch[k], filler[k])
      for k, x in batch.items()
    }
    | {schema.EXAMPLE_MASK: mask}
    for filler in (batch, other)
  ]
  total, _, _, grads = models.loss_and_grads(preset, filled[0])
  total_2, _, _, grads_2 = models.loss_and_grads(preset, filled[1])
  assert total == total_2
  jax.tree.map(np.testing.assert_array_equal, grads, grads_2)


def test_filler_counts_nothing():
  """A batch with filler has the loss and gradient of the batch without."""
  padded = batches.batch()
  padded[schema.EXAMPLE_MASK] = np.arange(len(padded[schema.VERB])) < 4
  batch = {k: x[:4] for k, x in padded.items()}
  total, terms, _, grads = models.loss_and_grads("mipd", batch)
  total_2, terms_2, _, grads_2 = models.loss_and_grads("mipd", padded)
  np.testing.assert_allclose(total, total_2, rtol=1e-6)
  for name, value in terms.items():
    np.testing.assert_allclose(value, terms_2[name], rtol=1e-5, err_msg=name)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
    grads,
    grads_2,
  )


# Parameters at the paper's sizes; a change of architecture shows here.
GOLDEN_COUNTS = {"mipd": 28_900_562, "reference": 23_212_750}


@pytest.mark.parametrize("preset", GOLDEN_COUNTS)
def test_parameter_count_at_true_sizes(preset):
  model, _ = presets.preset_defaults(preset)
  true = {
    schema.STUDENT_TOKENS: (577, 1024),
    schema.TEACHER_TOKENS: (257, 1408),
    schema.RATIONALE_TOKENS: (4, 77, 768),
    schema.RATIONALE_MASK: (4, 77),
    schema.VERB_LOGITS: (504,),
  }
  batch = {
    name: jax.ShapeDtypeStruct((2, *true.get(name, x.shape[1:])), x.dtype)
    for name, x in batches.batch(2).items()
  }
  counts = {"verb_text": 504, "role_text": 190, "noun_text": 9929}
  banks = {
    name: jax.ShapeDtypeStruct((count, 512), np.float32)
    for name, count in counts.items()
  }
  module = Mipd(model, Sizes(504, 190, 9929))
  params = jax.eval_shape(module.init, jax.random.key(0), batch, banks)
  assert sum(x.size for x in jax.tree.leaves(params)) == GOLDEN_COUNTS[preset]


def test_unknown_choice_is_named():
  with pytest.raises(ValueError, match=r"model\.noun_head='open'"):
    ModelConfig(noun_head="open")
