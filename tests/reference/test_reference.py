"""Number for number with the authors' code; tolerances in `parity`."""

import json

import jax
import numpy as np
import pytest

from mipd_jax import reference
from tests.reference import parity, parity_model, parity_parts


def test_outputs_of_the_small_model():
  golden = parity.load("model_small")
  parity.assert_equal(
    parity_model.outputs_of(golden, parity_model.small_results()[0])
  )


@pytest.mark.parametrize("mode", ["crit_train", "crit_eval"])
def test_losses_and_metrics_of_the_small_model(mode):
  golden = parity.load("model_small")
  found = parity_model.small_results()[1][mode]
  quantities = parity_model.criterion_of(golden, found, mode)
  parity.assert_equal(quantities)
  assert {q.name for q in quantities} | {"total"} == set(found)


def test_gradients_of_the_small_model():
  quantities = parity_model.small_gradients()
  parity.assert_equal(quantities)
  dead = json.loads(str(parity.load("model_small")["json/meta"]))
  by_name = {q.name: q for q in quantities}
  for name in dead["grad_exactly_zero"]:
    assert np.all(by_name[name].ours == 0)


def test_losses_and_norms_over_three_steps():
  parity.assert_equal(parity_model.optimizer_scalars())


@pytest.mark.parametrize("steps", [1, 3])
def test_parameters_after_steps(steps):
  parity.assert_equal(parity_model.optimizer_parameters(steps))


def test_the_map_of_the_box_prompter_is_not_optimized():
  """Row 3: the reference creates it after the optimizer."""
  name = "boxprompter.base_prompt"
  after = parity_model.three_steps()[0][-1][name]
  np.testing.assert_array_equal(after, parity_model.small_state()[name])


def test_modes_differ_in_dropout_alone():
  banks = parity_model.small_banks()
  arguments = (parity_model.small_params(), parity_model.small_batch())
  eval_outputs, _, _ = parity_model.small_results()
  run = jax.jit(
    lambda key: reference.forward(
      *arguments, **banks, mode="train", dropout_key=key
    )
  )
  dropped = run(jax.random.key(0))
  difference = np.abs(dropped["pred_noun"] - eval_outputs["pred_noun"])
  assert difference.max() > 0.1
  np.testing.assert_allclose(
    dropped["pred_class_prompt"],
    eval_outputs["pred_class_prompt"],
    atol=1e-6,
  )
  with pytest.raises(ValueError, match="mode='test'"):
    reference.forward(*arguments, **banks, mode="test")


@pytest.mark.parametrize("case", parity_parts.CASES)
def test_criterion_of_a_batch(case):
  parity.assert_equal(parity_parts.criterion_values(case))


@pytest.mark.parametrize("case", parity_parts.CASES)
def test_criterion_of_each_sample(case):
  parity.assert_equal(parity_parts.criterion_samples(case))


@pytest.mark.parametrize("case", parity_parts.CASES)
def test_gradients_of_the_criterion(case):
  quantities = parity_parts.criterion_gradients(case)
  parity.assert_equal(quantities)
  assert {q.name.split()[-1] for q in quantities} == set(reference.OUTPUTS)


def test_boxes_on_ties_have_no_gradient():
  """Case all_right: predicted boxes are the true ones. |x| has gradient 0 at
  0, and max(a, a) half to each side, so all of GIoU's parts cancel."""
  grads = parity_parts.case_results("all_right")[2]["pred_bbox"]
  assert np.abs(grads).max() < 1e-6


def test_edge_prompter():
  parity.assert_equal(parity_parts.edge_prompter())


@pytest.mark.parametrize("size", parity_parts.IMAGE_SIZES)
def test_box_prompter(size):
  parity.assert_equal(parity_parts.box_prompter(size))


def test_resize_of_the_box_prompter():
  quantities = parity_parts.resize()
  parity.assert_equal(quantities)
  assert len(quantities) == 6


def test_box_operations():
  parity.assert_equal(parity_parts.box_operations())
  # Two boxes without area: 0/0, NaN in the reference, no overlap in ours.
  theirs = parity.load("box_ops")["iou"]
  assert np.isnan(theirs).sum() == 1


def test_canvas():
  parity.assert_equal(parity_parts.canvas_rules())
  parity.assert_equal(parity_parts.canvas_geometry())


@pytest.mark.skipif(
  not parity.FULL.exists(), reason=f"{parity.FULL.name} is not beside the repo"
)
def test_model_at_true_sizes():
  golden = parity.load("model_full")
  parity.assert_equal(parity_model.full_recipe())
  outputs, found, _ = parity_model.full_results()[3]
  parity.assert_equal(parity_model.outputs_of(golden, outputs))
  for mode in ("crit_train", "crit_eval"):
    parity.assert_equal(parity_model.criterion_of(golden, found[mode], mode))
  parity.assert_equal(parity_model.full_gradients())


def test_model_has_the_sizes_of_its_parameters():
  model = reference.model_of(parity_model.small_params())
  assert (model.config.hidden, model.config.heads) == (32, 8)
  assert model.config.feed_forward == 64
  assert (model.sizes.num_verbs, model.sizes.num_roles) == (504, 190)
  assert model.sizes.num_nouns == 50
