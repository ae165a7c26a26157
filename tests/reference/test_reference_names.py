"""The reference's parameter names: read, checked, written back."""

import json

import numpy as np
import pytest

from mipd_jax import reference
from tests.reference import parity, parity_model


def _state() -> dict[str, np.ndarray]:
  return dict(parity_model.small_state())


def test_there_and_back():
  state = _state()
  back = reference.state_dict_from_params(
    reference.params_from_state_dict(state)
  )
  assert back.keys() == state.keys()
  for name, value in state.items():
    np.testing.assert_array_equal(back[name], value, err_msg=name)


def test_tree_is_that_of_the_preset():
  """As the model itself makes it: same paths, same shapes."""
  import jax

  params = parity_model.small_params()
  banks, batch = parity_model.small_banks(), parity_model.small_batch()
  outputs = jax.eval_shape(
    lambda p: reference.forward(p, batch, **banks), params
  )
  assert outputs["pred_noun"].shape == (4, 6, 50)
  assert reference.model_of(params).config.teacher_branch


def test_prefix_and_unused_parameters_are_dropped():
  state = _state()
  unused = {name: np.zeros(3) for name in reference.UNUSED}
  prefixed = {f"module.{name}": x for name, x in (state | unused).items()}
  found = reference.state_dict_from_params(
    reference.params_from_state_dict(prefixed)
  )
  np.testing.assert_array_equal(found["proj"], state["proj"])


def test_unused_are_exactly_those_without_a_gradient():
  meta = json.loads(str(parity.load("model_small")["json/meta"]))
  assert sorted(reference.UNUSED) == sorted(meta["grad_is_none"])
  assert len(set(reference.UNUSED)) == len(reference.UNUSED)


def test_all_problems_are_named_at_once():
  state = _state()
  del state["proj"], state["transformer.ln4.bias"]
  state["extra.weight"] = np.zeros(2)
  state["bbox_predictor.6.weight"] = np.zeros((5, 64))
  state["proj_verb_pos.weight"] = state["proj_verb_pos.weight"].T
  with pytest.raises(ValueError) as caught:
    reference.params_from_state_dict(state)
  message = str(caught.value)
  for line in (
    "missing: proj\n",
    "missing: transformer.ln4.bias\n",
    "unexpected: extra.weight\n",
    "misshapen: bbox_predictor.6.weight is (5, 64), expected (4, 64)\n",
    "misshapen: proj_verb_pos.weight is (24, 32), expected (32, 24)\n",
  ):
    assert line in message
  assert message.count("misshapen") == 2
  assert message.count("missing") == 2


def test_one_misshapen_parameter_is_the_one_named():
  for name, shape in (
    ("proj", (16, 32)),
    ("noun_3_classifier.3.bias", (49,)),
    ("linear_blip.0.weight", (32,)),
  ):
    state = _state() | {name: np.zeros(shape)}
    with pytest.raises(ValueError, match="misshapen") as caught:
      reference.params_from_state_dict(state)
    assert name.rsplit(".", 1)[0] in str(caught.value)
    assert str(caught.value).count("misshapen") == 1


def test_an_empty_state_names_what_is_missing():
  with pytest.raises(ValueError, match="missing: proj"):
    reference.params_from_state_dict({})


def test_width_that_heads_do_not_divide():
  def shrink(x):
    if not x.ndim:
      return x
    cut = {32: 20, 64: 40, 96: 60}
    shape = tuple(cut.get(n, n) for n in x.shape)
    return np.zeros(shape, np.float32)

  state = {name: shrink(x) for name, x in _state().items()}
  state["boxprompter.base_prompt"] = np.zeros((32, 32, 48))
  with pytest.raises(ValueError, match="20 is no multiple of 8 heads"):
    reference.params_from_state_dict(state)
