"""BLIP-2 in Flax: parity with torch, padding, inputs, gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from input_pipeline.io.errors import InputError
from mipd_jax.teachers import blip2
from tests.fixtures import blip2_fixture as fixture
from tests.fixtures.blip2_fixture import BF16, OPT, T5, assert_close


@pytest.mark.parametrize("case", fixture.CASES)
def test_parity_with_torch(case):
  model, expected = fixture.model(case), fixture.expected(case)
  *prompt, targets = fixture.inputs(case)
  tokens = model.encode_image(prompt[0])
  assert set(tokens) == {"vision_tokens", "query_tokens", "language_tokens"}
  for name, value in tokens.items():
    assert_close(value, expected[name])
  logits = model.target_logits(*prompt, targets)
  # Behind an OPT target's end torch and we fill differently.
  counts = (targets != -100)[..., None]
  assert_close(logits * counts, expected["target_logits"] * counts)
  likelihood = model.score(*prompt, targets)
  assert likelihood.dtype == logits.dtype == jnp.float32
  assert_close(likelihood, expected["target_log_likelihood"])


@pytest.mark.parametrize("case", [T5, BF16, OPT])
def test_greedy_answers_are_torchs(case):
  model, expected = fixture.model(case), fixture.expected(case)["generated"]
  *prompt, _ = fixture.inputs(case)
  answers = model.generate(*prompt, max_new_tokens=expected.shape[1])
  np.testing.assert_array_equal(answers, expected)
  # An answer that ended earlier does not wait for longer ones.
  end = model.config.text_config.eos_token_id
  ends = (expected == end).argmax(axis=1)
  row = int(np.argmax((expected == end).any(axis=1)))
  alone = [np.stack([array[row]] * 3) for array in prompt]
  answers = model.generate(*alone, max_new_tokens=expected.shape[1])
  np.testing.assert_array_equal(
    answers, np.stack([expected[row, : ends[row] + 1]] * 3)
  )


def test_another_end_token_ends_answers():
  model, expected = fixture.model(OPT), fixture.expected(OPT)["generated"]
  *prompt, _ = fixture.inputs(OPT)
  first = expected[:, 0].tolist()
  answers = model.generate(*prompt, max_new_tokens=6, eos_token_id=first)
  np.testing.assert_array_equal(answers, expected[:, :1])


def test_attributes():
  model = fixture.model(BF16)
  assert (model.image_size, model.num_image_tokens) == (30, 10)
  assert (model.vision_width, model.query_width) == (24, 16)
  assert (model.num_query_tokens, model.language_width) == (5, 20)
  assert model.max_text_length == 512
  assert fixture.model(OPT).max_text_length == 40 - 4
  assert len(model.revision) == 64
  assert model.tokenizer is None
  assert all(
    leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(model.params)
  )


def test_uint8_images_are_normalised():
  model = fixture.model(T5)
  pixels = np.random.default_rng(0).integers(0, 256, (3, 24, 24, 3), np.uint8)
  # The published constants of BLIP's image processor.
  mean = np.array([0.48145466, 0.4578275, 0.40821073])
  std = np.array([0.26862954, 0.26130258, 0.27577711])
  normal = ((pixels / 255 - mean) / std).astype(np.float32)
  ours = jax.jit(model.image_features)(model.params, pixels)
  theirs = model.encode_image(normal.transpose(0, 3, 1, 2))
  for name, value in theirs.items():
    assert_close(ours[name], value, 1e-5)


@pytest.mark.parametrize(
  ("case", "side"), [(T5, "right"), (OPT, "left"), (OPT, "right")]
)
def test_padding_of_a_prompt_changes_nothing(case, side):
  model = fixture.model(case)
  pixels, ids, _, targets = fixture.inputs(case)
  real = ids.shape[1] - 2
  room = ((0, 0), (0, 2) if side == "right" else (2, 0))
  padded = np.pad(ids[:, :real], room, constant_values=7)
  mask = np.pad(np.ones((3, real), int), room)
  bare = model.target_logits(
    pixels, ids[:, :real], np.ones((3, real), int), targets
  )
  assert_close(model.target_logits(pixels, padded, mask, targets), bare, 1e-5)


@pytest.mark.parametrize("case", [T5, OPT])
def test_ignored_targets_add_nothing(case):
  model = fixture.model(case)
  *prompt, targets = fixture.inputs(case)
  targets = np.where(targets == -100, 5, targets)
  cut = np.concatenate([targets[:, :2], np.full((3, 2), -100)], axis=1)
  logits = model.target_logits(*prompt, targets)
  log_p = jax.nn.log_softmax(logits)[:, :2]
  chosen = np.take_along_axis(np.asarray(log_p), targets[:, :2, None], 2)
  assert_close(model.score(*prompt, cut), chosen.sum(axis=(1, 2)), 1e-5)
  nothing = np.full_like(targets, -100)
  np.testing.assert_array_equal(model.score(*prompt, nothing), np.zeros(3))


def test_bfloat16():
  model = blip2.load(fixture.folder(BF16), jnp.bfloat16)
  leaves = jax.tree.leaves(model.params)
  assert all(leaf.dtype == jnp.bfloat16 for leaf in leaves)
  *prompt, targets = fixture.inputs(BF16)
  tokens = model.encode_image(prompt[0])
  assert all(value.dtype == jnp.bfloat16 for value in tokens.values())
  expected = fixture.expected(BF16)
  assert_close(tokens["language_tokens"], expected["language_tokens"], 0.1)
  likelihood = model.score(*prompt, targets)
  assert likelihood.dtype == jnp.float32
  assert_close(likelihood, expected["target_log_likelihood"], 0.05)


@pytest.mark.slow
def test_every_parameter_is_trained():
  model = fixture.model(T5)
  inputs = fixture.inputs(T5)

  def loss(params):
    return -model.log_likelihood(params, *inputs).sum()

  slopes = jax.jit(jax.grad(loss))(model.params)
  still = [
    jax.tree_util.keystr(path, simple=True, separator="/")
    for path, slope in jax.tree_util.tree_leaves_with_path(slopes)
    if not np.abs(slope).max() > 1e-6
  ]
  # Softmax does not see what is added to all keys alike. Everything else of
  # the keys' attention must move.
  assert all(name.endswith("key/bias") for name in still), still
  assert len(still) == 5, still


def test_own_parameters():
  config = fixture.model(T5).config
  module, template = blip2.build(config)
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda leaf: rng.standard_normal(leaf.shape).astype(leaf.dtype) / 9,
    template,
  )
  model = blip2.Blip2("mine", "none", module, config, params)
  scores = model.score(*fixture.inputs(T5))
  assert np.isfinite(scores).all()
  assert not np.allclose(scores, fixture.model(T5).score(*fixture.inputs(T5)))


@pytest.mark.slow
@pytest.mark.parametrize("case", [T5, OPT])
def test_random_parameters_to_train_from(case):
  config = fixture.model(case).config
  module, template = blip2.build(config)
  start = jax.jit(functools.partial(blip2.init, module))
  params, others = start(jax.random.key(0)), start(jax.random.key(1))
  assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, template)
  queries = params["query_tokens"]
  assert np.abs(queries).max() > 0
  assert not np.allclose(queries, others["query_tokens"])
  model = blip2.Blip2("mine", "none", module, config, params)
  assert np.isfinite(model.score(*fixture.inputs(case))).all()


@pytest.mark.parametrize(
  ("spoil", "message"),
  [
    ({0: np.zeros((3, 24, 24, 3), "f4")}, r"wants \[batch, 3, 24, 24\]"),
    ({0: np.zeros((3, 3, 24, 24), "u1")}, "uint8, not floating"),
    ({1: np.full((3, 6), 40)}, "prompt ids .* of 40 to 40"),
    ({1: np.full((3, 6), -1)}, "prompt ids .* of -1"),
    ({1: np.full((3, 6), 1.5)}, "prompt ids are float"),
    ({1: np.zeros((2, 6), int)}, r"\[3, length\]"),
    ({2: np.ones((3, 5), int)}, r"mask \(3, 5\)"),
    ({3: np.full((3, 4), 41)}, "target ids .* of 41"),
    ({3: np.zeros((2, 4), int)}, r"\[3, length\]"),
    ({3: np.zeros((3, 0), int)}, r"\[3, length\]"),
    ({3: np.zeros((3, 35), int)}, "44 positions, OPT has 40"),
  ],
)
def test_bad_inputs(spoil, message):
  inputs = fixture.inputs(OPT)
  for place, value in spoil.items():
    inputs[place] = value
  with pytest.raises(InputError, match=message):
    fixture.model(OPT).score(*inputs)


def test_more_bad_inputs():
  model, prompt = fixture.model(OPT), fixture.inputs(OPT)[:3]
  with pytest.raises(InputError, match="max_new_tokens is 0"):
    model.generate(*prompt, max_new_tokens=0)
  with pytest.raises(InputError, match="41 positions"):
    model.generate(*prompt, max_new_tokens=32)
  with pytest.raises(InputError, match="not uint8"):
    model.image_features(model.params, np.zeros((1, 24, 24, 3), "f4"))
