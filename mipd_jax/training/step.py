"""One training step: (state, batch, banks) -> (state, metrics), pure.

And several steps in one program.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from mipd_jax.devices import randomness
from mipd_jax.feeding.dequantise import dequantise
from mipd_jax.losses.objective import Metrics, Objective
from mipd_jax.models.mipd import Mipd
from mipd_jax.training.state import TrainState


def train_step(
  state: TrainState,
  batch: Mapping[str, Array],
  banks: Mapping[str, Array],
  *,
  model: Mipd,
  objective: Objective,
  optimizer: optax.GradientTransformation,
  seed: int,
) -> tuple[TrainState, Metrics]:
  """Loss, gradient, update.

  Features may come as the cache stores them (feeding/dequantise.py).
  The batch is global: under `jit` every mean below is over all devices, so the
  number of devices changes only the rounding.
  """
  rngs = {"dropout": randomness.key(seed, "dropout", state.step)}
  batch = dequantise(batch)

  def loss_of(params):
    outputs = model.apply(
      {"params": params}, batch, banks, train=True, rngs=rngs
    )
    return objective(outputs, batch, banks)

  (_, metrics), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
  updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  metrics = metrics | {"grad_norm": optax.global_norm(grads)}
  return TrainState(state.step + 1, params, opt_state), metrics


def compile_step(
  model: Mipd,
  objective: Objective,
  optimizer: optax.GradientTransformation,
  seed: int,
) -> Callable[..., tuple[TrainState, Metrics]]:
  """Jits `train_step`; the state's buffers are reused for the new state."""
  step = functools.partial(
    train_step, model=model, objective=objective, optimizer=optimizer, seed=seed
  )
  return jax.jit(step, donate_argnums=0)


def train_steps(
  state: TrainState,
  batches: Mapping[str, Array],
  count: Array,
  banks: Mapping[str, Array],
  *,
  step: Callable[..., tuple[TrainState, Metrics]],
  shardings: Any,
) -> tuple[TrainState, Metrics]:
  """The first `count` batches of arrays [K, B, ...], one after the other.

  One program serves every count, so results do not depend on how steps are
  grouped, nor on K if it is two or more (training/loop.program_length).

  Args:
    state: before the first of them.
    batches: the batches; those from `count` on are not read.
    count: int32 [], the number of steps.
    banks: text embeddings.
    step: `train_step` with its settings.
    shardings: of the state, kept from step to step.

  Returns:
    The state after the last, and metrics [K], zero from `count` on.
  """

  def batch_of(i):
    return jax.tree.map(
      lambda x: jax.lax.dynamic_index_in_dim(x, i, keepdims=False), batches
    )

  def one(i, carry):
    state, metrics = carry
    state, step_metrics = step(state, batch_of(i), banks)
    state = jax.lax.with_sharding_constraint(state, shardings)
    return state, jax.tree.map(
      lambda m, x: m.at[i].set(x), metrics, step_metrics
    )

  length = len(next(iter(batches.values())))
  _, shapes = jax.eval_shape(lambda: step(state, batch_of(0), banks))
  metrics = jax.tree.map(
    lambda x: jnp.zeros((length, *x.shape), x.dtype), shapes
  )
  return jax.lax.fori_loop(0, count, one, (state, metrics))


def compile_steps(
  model: Mipd,
  objective: Objective,
  optimizer: optax.GradientTransformation,
  seed: int,
  shardings: TrainState,
) -> Callable[..., tuple[TrainState, Metrics]]:
  """Jits `train_steps`: (state, batches, count, banks) -> (state, metrics).

  Metrics come out whole on every device; the state's buffers are reused.
  """
  # Jitted so that it is traced once: both the loop and the shapes of its
  # metrics need it.
  step = jax.jit(
    functools.partial(
      train_step,
      model=model,
      objective=objective,
      optimizer=optimizer,
      seed=seed,
    )
  )
  whole = jax.sharding.NamedSharding(
    shardings.step.mesh, jax.sharding.PartitionSpec()
  )
  return jax.jit(
    functools.partial(train_steps, step=step, shardings=shardings),
    donate_argnums=0,
    out_shardings=(shardings, whole),
  )
