"""The programs that the benchmarks time or compile, made of real functions."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from benchmarks.support import true_sizes
from mipd_jax import presets
from mipd_jax.config import TrainConfig
from mipd_jax.devices import randomness
from mipd_jax.evaluation import situations as situations_lib
from mipd_jax.losses import situations
from mipd_jax.losses.objective import Objective
from mipd_jax.models.config import Dropout
from mipd_jax.models.mipd import Mipd
from mipd_jax.training import state as optimizer_lib
from mipd_jax.training import step as step_lib
from mipd_jax.training.state import TrainState

NO_DROPOUT = Dropout(student=0.0, decoder=0.0, noun=0.0, box=0.0)
_SEED = 0


def build(
  preset: str,
  dtype: jnp.dtype,
  *,
  dropout: bool = True,
  absorbed: bool = True,
) -> tuple[Mipd, Objective]:
  """A preset's model at the paper's sizes, and its objective.

  Args:
    preset: a preset of `mipd_jax.presets`.
    dtype: dtype of computation.
    dropout: False turns it off.
    absorbed: False gives the plain form, which computes all keys and values.
  """
  config, losses = presets.preset_defaults(preset)
  if not dropout:
    config = dataclasses.replace(config, dropout=NO_DROPOUT)
  model = Mipd(config, true_sizes.SIZES, dtype, absorbed)
  return model, Objective(situations.TERMS, losses)


def optimizer() -> optax.GradientTransformation:
  """The default run's."""
  return optimizer_lib.make_optimizer(TrainConfig(), steps=1000)


def initial_state(model: Mipd) -> TrainState:
  """A new state; its shapes under `jax.eval_shape`."""
  batch, banks = jax.tree.map(
    lambda x: jnp.zeros(x.shape, x.dtype),
    (true_sizes.batch_shapes(2), true_sizes.bank_shapes()),
  )
  key = randomness.key(_SEED, "params")
  params = model.init(key, batch, banks)["params"]
  step = jnp.zeros((), jnp.int32)
  return TrainState(step, params, optimizer().init(params))


def train(model: Mipd, objective: Objective) -> Callable:
  """Jitted (state, batch, banks) -> (state, metrics)."""
  return step_lib.compile_step(model, objective, optimizer(), _SEED)


def student(model: Mipd) -> Callable:
  """Jitted (params, batch, banks) -> scores of the student alone."""

  def predict(params, batch, banks):
    return model.apply({"params": params}, batch, banks, method=model.predict)

  return situations_lib.compile_eval_step(predict)
