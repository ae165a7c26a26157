"""The absorbed form of attention gives what the plain form gives."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from input_pipeline import schema
from mipd_jax.models import layers, memory
from mipd_jax.models.attention import Attention
from mipd_jax.models.config import Dropout
from mipd_jax.models.memory import Memory, Part
from tests.fixtures import batches, models

B, Q, N, D, WIDE = 3, 4, 11, 16, 9
HEADS = 2
# Compiling is most of the time here.
_QUICK = {"xla_backend_optimization_level": 0}


def _random(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _memories() -> dict[str, Memory]:
  """Tokens [B N D] written down in every way that the model uses."""
  x, wide = _random(B, N, D, seed=1), _random(B, N, WIDE, seed=2)
  kernel, bias = _random(WIDE, D, seed=3), _random(D, seed=4)
  projected = Memory((Part(wide, kernel),), bias)
  return {
    "tokens": Memory.of(x),
    "projection": projected,
    "with a part of all images": projected.plus(_random(N, D, seed=5)),
    "with a projected part": projected.plus(
      _random(B, N, 5, seed=6), _random(5, D, seed=7)
    ),
    "normed": memory.normed(
      3 * x + 1, _random(D, seed=8), bias, layers.LAYER_NORM_EPSILON
    ),
  }


KINDS = tuple(_memories())


def _mask():
  mask = np.random.default_rng(9).random((B, 1, N)) < 0.6
  mask[:, :, 0] = True
  return mask


def _attention(form, dropout=0.0):
  return Attention(D, HEADS, dropout, absorbed=form)


def _params():
  """Nothing at zero: biases of keys and values above all."""
  queries = _random(B, Q, D)
  params = _attention(False).init(jax.random.key(0), queries, queries)
  return jax.tree.map(
    lambda x: x + 0.3 * _random(*x.shape, seed=x.size), params
  )


def _close(a, b, tolerance=2e-5):
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(
      x, y, rtol=0, atol=tolerance * max(1, np.abs(y).max())
    ),
    a,
    b,
  )


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("kind", KINDS)
def test_attention(kind, dropout):
  """Values and all gradients, under the same dropped weights too."""
  read = _memories()[kind]
  leaves, rebuild = jax.tree.flatten((read.parts, read.bias))
  direction = _random(B, Q, D, seed=10)

  def run(form):
    def loss(params, queries, leaves):
      attention = _attention(form, dropout)
      parts, bias = jax.tree.unflatten(rebuild, leaves)
      result = attention.apply(
        params,
        queries,
        Memory(parts, bias),
        _mask(),
        train=dropout > 0,
        rngs={"dropout": jax.random.key(5)},
      )
      return jnp.sum(result * direction), result

    inputs = (_params(), _random(B, Q, D), leaves)
    return jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(*inputs)

  (_, plain), plain_grads = run(False)
  (_, absorbed), absorbed_grads = run(True)
  _close(absorbed, plain)
  _close(absorbed_grads, plain_grads)
  # What is compared depends on all that it is made of.
  params = plain_grads[0]["params"]
  assert np.abs(params["value"]["bias"]).max() > 1e-2
  assert all(np.abs(x).max() > 1e-4 for x in plain_grads[2])


@pytest.mark.parametrize("kind", KINDS)
def test_memory_is_its_tokens(kind):
  read = _memories()[kind]
  tokens = np.asarray(read.tokens())
  weights = _random(B, HEADS, Q, N, seed=11)
  queries = _random(B, HEADS, Q, D, seed=12)
  mask = _mask()[:, 0] & (np.arange(B) > 0)[:, None]
  _close(read.token(2), tokens[:, 2])
  _close(read.pooled(weights), np.einsum("bhqn,bnd->bhqd", weights, tokens))
  scores = np.einsum("bhqd,bnd->bhqn", queries, tokens)
  found = np.asarray(read.scores(queries))
  # But for a constant a query.
  _close(found - found[..., :1], scores - scores[..., :1], 1e-4)
  count = np.maximum(mask.sum(-1, keepdims=True), 1)
  mean = (tokens * mask[..., None]).sum(1) / count
  _close(read.mean(mask), mean)
  assert np.all(np.asarray(read.mean(mask))[0] == 0)


def test_normed_memory_is_the_layer_norm():
  x = 3 * _random(B, N, D) + 1
  norm = layers.layer_norm("norm", jnp.float32)
  params = {"params": {"scale": _random(D, seed=1), "bias": _random(D, seed=2)}}
  found = layers.NormedMemory().apply(params, x)
  _close(found.tokens(), norm.apply(params, x))


def test_frozen_matmul_is_a_matmul_without_gradient_of_features():
  x, kernel = _random(B, N, WIDE), _random(WIDE, D, seed=1)
  direction = _random(B, N, D, seed=2)

  def grads(multiply):
    return jax.grad(
      lambda x, kernel: jnp.sum(multiply(x, kernel) * direction), (0, 1)
    )(x, kernel)

  _close(layers.frozen_matmul(x, kernel), x @ kernel)
  by_x, by_kernel = grads(layers.frozen_matmul)
  _close(by_kernel, grads(jnp.matmul)[1])
  assert np.all(by_x == 0)


def _model_results(preset, form):
  model, losses, params = models.make(preset)
  config = dataclasses.replace(model.config, dropout=Dropout())
  model = model.clone(config=config, absorbed=form)
  rngs = {"dropout": jax.random.key(3)}
  batch, banks = batches.batch(), batches.banks()

  def loss(params):
    outputs = model.apply(
      {"params": params}, batch, banks, train=True, rngs=rngs
    )
    total, terms = models.objective(losses)(outputs, batch, banks)
    return total, (terms, outputs)

  run = jax.value_and_grad(loss, has_aux=True)
  return jax.jit(run, compiler_options=_QUICK)(params)


@pytest.mark.parametrize(
  "preset",
  # The reference's own numbers hold the other to account as well.
  ["mipd", pytest.param("reference", marks=pytest.mark.slow)],
)
def test_model(preset):
  """Outputs, every loss and every gradient, with dropout on."""
  (_, plain), plain_grads = _model_results(preset, False)
  (_, absorbed), absorbed_grads = _model_results(preset, True)
  _close(absorbed, plain)
  _close(absorbed_grads, plain_grads)


def test_bfloat16_loses_no_more_than_the_plain_form():
  """Mean error of the outputs, against float32."""
  model, _, params = models.make("mipd")

  def outputs(form, dtype):
    other = model.clone(absorbed=form, dtype=dtype)
    apply = jax.jit(other.apply, compiler_options=_QUICK)
    found = apply({"params": params}, batches.batch(), batches.banks())
    return {name: np.asarray(x, np.float32) for name, x in found.items()}

  exact = outputs(False, jnp.float32)
  plain, absorbed = outputs(False, jnp.bfloat16), outputs(True, jnp.bfloat16)
  for name, truth in exact.items():
    error, usual = (
      np.abs(found[name] - truth).mean() for found in (absorbed, plain)
    )
    assert error < 1.5 * usual + 1e-3, name


@pytest.mark.parametrize("jitted", [False, True])
def test_a_trainable_layer_before_frozen_features_is_refused(jitted):
  """Its gradient would be zero, without a notice."""
  x, weights = _random(B, N, 5), _random(5, WIDE, seed=1)

  def loss(weights, frozen, cut=lambda tokens: tokens):
    layer = layers.Linear(D, frozen=frozen)
    tokens = cut(x @ weights)
    params = layer.init(jax.random.key(0), jnp.zeros((1, WIDE)))
    return jnp.sum(layer.apply(params, tokens) ** 2)

  def grad(*settings):
    found = jax.grad(lambda weights: loss(weights, *settings))
    return (jax.jit(found) if jitted else found)(weights)

  with pytest.raises(ValueError, match=r"frozen features.*frozen=False"):
    grad(True)
  assert np.abs(grad(False)).min() > 0
  assert np.all(grad(True, jax.lax.stop_gradient) == 0)
  np.testing.assert_array_equal(loss(weights, True), loss(weights, False))


def test_towers_in_front_of_student_and_teacher():
  """The student refuses a trainable one; the teacher's would be trained."""
  model, losses, params = models.make("mipd")
  batch, banks = batches.batch(), batches.banks()

  def loss(factor, key):
    scaled = batch | {key: batch[key] * factor.astype(batch[key].dtype)}
    found = model.apply(
      {"params": params},
      scaled,
      banks,
      train=True,
      rngs={"dropout": jax.random.key(3)},
    )
    return models.objective(losses)(found, scaled, banks)[0]

  def grad(key):
    found = jax.jit(jax.grad(lambda x: loss(x, key)), compiler_options=_QUICK)
    return found(jnp.float32(1.0))

  with pytest.raises(ValueError, match="frozen features"):
    grad(schema.STUDENT_TOKENS)
  assert grad(schema.TEACHER_TOKENS) != 0
