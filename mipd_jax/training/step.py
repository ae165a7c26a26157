"""One training step: (state, batch, banks) -> (state, metrics). Pure."""

import functools
from collections.abc import Callable, Mapping

import jax
import optax
from jaxtyping import Array

from mipd_jax import randomness
from mipd_jax.losses.config import LossConfig
from mipd_jax.losses.total import total_loss
from mipd_jax.models.mipd import Mipd
from mipd_jax.training.state import TrainState

Metrics = dict[str, Array]


def train_step(
  state: TrainState,
  batch: Mapping[str, Array],
  banks: Mapping[str, Array],
  *,
  model: Mipd,
  losses: LossConfig,
  optimizer: optax.GradientTransformation,
  seed: int,
) -> tuple[TrainState, Metrics]:
  """Loss, gradient, update.

  The batch is the global one: under `jit` every mean below is over all
  devices, so the number of devices changes nothing but the rounding.
  """
  rngs = {"dropout": randomness.key(seed, "dropout", state.step)}

  def loss_of(params):
    outputs = model.apply(
      {"params": params}, batch, banks, train=True, rngs=rngs
    )
    return total_loss(outputs, batch, banks, losses)

  (_, metrics), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
  updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  metrics = metrics | {"grad_norm": optax.global_norm(grads)}
  return TrainState(state.step + 1, params, opt_state), metrics


def compile_step(
  model: Mipd,
  losses: LossConfig,
  optimizer: optax.GradientTransformation,
  seed: int,
) -> Callable[..., tuple[TrainState, Metrics]]:
  """Jits `train_step`; the state's buffers are reused for the new state."""
  step = functools.partial(
    train_step, model=model, losses=losses, optimizer=optimizer, seed=seed
  )
  return jax.jit(step, donate_argnums=0)
