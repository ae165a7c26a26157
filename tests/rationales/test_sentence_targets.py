"""Scene targets that sentences supervise and that never read one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from input_pipeline import schema
from mipd_jax.models import outputs
from mipd_jax.rationales import wording
from tests.fixtures import batches, models

FORM = {
  "teacher_pooling": "learned_query",
  "rationale_space": "frozen",
  "scene_heads": 4,
  "teacher_norm": True,
  "gaze": False,
}


def _batch(seed=0):
  """With texts of the width of the label bank."""
  batch = batches.batch(seed=seed)
  shape = (*batch[schema.RATIONALE_TOKENS].shape[:3], batches.TEXT_WIDTH)
  texts = np.random.default_rng(seed + 5).normal(size=shape)
  return batch | {schema.RATIONALE_TOKENS: texts.astype(jnp.bfloat16)}


def _outputs(batch, **form):
  model, _, params = models.make("mipd", **{**FORM, **form})
  return jax.jit(model.apply)({"params": params}, batch, batches.banks())


def test_the_target_never_sees_a_rationale():
  one, other = _batch(), _batch()
  other[schema.RATIONALE_TOKENS] = other[schema.RATIONALE_TOKENS][::-1]
  target, positive = outputs.SCENE_TARGET, outputs.SCENE_POSITIVE
  first, second = _outputs(one), _outputs(other)
  np.testing.assert_array_equal(first[target], second[target])
  assert np.abs(first[positive] - second[positive]).max() > 0.01


def test_sentences_are_their_end_tokens_less_what_all_share():
  batch = _batch()
  batch[schema.EXAMPLE_MASK][-1] = False
  tokens = batch[schema.RATIONALE_TOKENS].astype(np.float64)
  mask = batch[schema.RATIONALE_MASK]
  rows = np.empty((2, *tokens.shape[::3]))
  for kind in range(2):
    for image in range(len(tokens)):
      rows[kind, image] = tokens[image, kind, mask[image, kind].sum() - 1]
  rows /= np.linalg.norm(rows, axis=-1, keepdims=True)
  shared = rows[:, :-1].mean(axis=(0, 1))  # the last image is filler
  found = _outputs(batch)
  for kind, name in enumerate((outputs.SCENE_POSITIVE, outputs.SCENE_NEGATIVE)):
    np.testing.assert_allclose(found[name], rows[kind] - shared, atol=1e-5)


@pytest.mark.parametrize("gaze", [True, False])
def test_no_text_is_projected_that_nothing_reads(gaze):
  _, _, params = models.make("mipd", **FORM | {"gaze": gaze})
  assert not {name for name in params["teacher_branch"] if "text_" in name}
  _, _, params = models.make("mipd")
  assert {"text_gaze_pos", "gaze_text_attention"} <= set(
    params["teacher_branch"]
  )


def _gaze_batch():
  batch = _batch()
  return batches.with_instance_text(batch, batch[schema.ROLE_MASK])


def test_gaze_targets_never_see_a_text_and_pick_their_own():
  """The loss against InfoNCE over all instances, one by one."""
  form = FORM | {"gaze": True}
  model, losses, params = models.make("mipd", **form)
  losses = dataclasses.replace(losses, gaze_align=1.0)
  batch, banks = _gaze_batch(), batches.banks()
  batch[schema.EXAMPLE_MASK][-1] = False

  @jax.jit
  def run(batch):
    return model.apply({"params": params}, batch, banks, train=False)

  other = batch | {schema.INSTANCE_TEXT: batch[schema.INSTANCE_TEXT][::-1]}
  found = run(batch)
  target = np.asarray(found[outputs.GAZE_TARGET], np.float64)
  np.testing.assert_array_equal(target, run(other)[outputs.GAZE_TARGET])

  mask = batch[schema.INSTANCE_TEXT_MASK].copy()
  mask[-1] = False
  rows = batch[schema.INSTANCE_TEXT].astype(np.float64)
  rows /= np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
  rows -= rows[mask].mean(axis=0)
  nouns, values = batch[schema.NOUNS][..., 0], {}

  def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

  told = np.argwhere(mask[..., 0])
  for image, role in told:
    against = [
      cosine(target[image, role], rows[i, r, 0])
      for i, r in told
      if nouns[i, r] != nouns[image, role]
    ]
    if mask[image, role, 1]:
      against.append(cosine(target[image, role], rows[image, role, 1]))
    own = cosine(target[image, role], rows[image, role, 0])
    logits = np.array([own, *against]) / losses.align_temperature
    loss = np.log(np.exp(logits - logits.max()).sum()) + logits.max()
    values.setdefault(image, []).append(loss - logits[0])
  expected = np.mean([np.mean(some) for some in values.values()])
  means = models.objective(losses)(found, batch, banks)[1]
  assert float(means["gaze_align"]) == pytest.approx(expected, rel=2e-3)


def test_a_gaze_text_is_split_by_instance():
  labelled = "agent: a dog, small left. Tool: an axe. agent: a cat."
  asked = [("agent", ["dog"]), ("tool", ["axe"]), ("place", ["yard"])]
  assert wording.by_instance(labelled, asked) == [
    "agent: a dog, small left. agent: a cat.",
    "Tool: an axe.",
    "",
  ]
  free = "A brown dog runs at the left; it is furry. Two axes lie in the yard."
  assert wording.by_instance(free, asked) == [
    "A brown dog runs at the left;",
    "Two axes lie in the yard.",
    "Two axes lie in the yard.",
  ]
  assert wording.by_instance("", asked) == ["", "", ""]
  assert wording.by_instance("x. y.", [("", [])]) == [""]


@pytest.mark.parametrize("queries", [1, 3])
def test_queries_and_prompts_learn_from_the_sentence(queries):
  model, losses, params = models.make("mipd", **FORM, scene_queries=queries)
  batch, banks = _batch(), batches.banks()

  def align(params):
    found = model.apply({"params": params}, batch, banks, train=True)
    return models.objective(losses)(found, batch, banks)[1]["scene_align"]

  gradients = jax.grad(align)(params)["teacher_branch"]
  assert gradients["scene_query"].shape == (queries, models.HIDDEN)
  for name in ("scene_query", "scene_top", "project_kernel"):
    per_row = np.abs(np.atleast_2d(gradients[name])).max(axis=1)
    assert (per_row > 0).all(), name


def test_normed_tokens_are_read_as_directions():
  """A token's scale and shift say nothing then."""
  batch, scaled = _batch(), _batch()
  tokens = batch[schema.TEACHER_TOKENS].astype(np.float32)
  batch[schema.TEACHER_TOKENS] = tokens
  scaled[schema.TEACHER_TOKENS] = 3 * tokens + 0.5
  name = outputs.SCENE_TARGET
  first, second = _outputs(batch)[name], _outputs(scaled)[name]
  np.testing.assert_allclose(first, second, atol=1e-4)
  plain = [_outputs(b, teacher_norm=False)[name] for b in (batch, scaled)]
  assert np.abs(plain[0] - plain[1]).max() > 0.01
