"""The optimizer, clipped AdamW, and the state that checkpoints keep."""

from collections.abc import Callable, Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax

from mipd_jax.config import TrainConfig
from mipd_jax.devices import randomness
from mipd_jax.models.mipd import Mipd


def learning_rate(config: TrainConfig, steps: int) -> optax.Schedule:
  """Learning rate by step."""
  if config.schedule == "cosine":
    rest = optax.cosine_decay_schedule(
      config.learning_rate, max(1, steps - config.warmup_steps)
    )
  else:
    rest = optax.constant_schedule(config.learning_rate)
  if not config.warmup_steps:
    return rest
  warmup = optax.linear_schedule(0.0, config.learning_rate, config.warmup_steps)
  return optax.join_schedules([warmup, rest], [config.warmup_steps])


def make_optimizer(
  config: TrainConfig, steps: int
) -> optax.GradientTransformation:
  """Clips by global norm, then AdamW with decay on all parameters.

  As the reference: clip 0.1, AdamW 1e-4, weight decay 1e-4, no schedule.
  """
  return optax.chain(
    optax.clip_by_global_norm(config.clip_norm),
    optax.adamw(learning_rate(config, steps), weight_decay=config.weight_decay),
  )


# From shapes to their shardings, leaf by leaf.
Place = Callable[[Any], Any]


@flax.struct.dataclass
class TrainState:
  """Step count, parameters and optimizer state; no random key (STYLE 7)."""

  step: jax.Array
  params: Any
  opt_state: Any


def init_state(
  model: Mipd,
  optimizer: optax.GradientTransformation,
  batch: Mapping[str, jax.Array],
  banks: Mapping[str, jax.Array],
  seed: int,
  place: Place,
) -> TrainState:
  """Draws parameters on the devices, the same ones on any mesh.

  Args:
    model: the module.
    optimizer: makes the optimizer state.
    batch: shapes and dtypes only.
    banks: text embeddings of the vocabulary.
    seed: of the run.
    place: maps shapes to shardings.
  """
  create = _creator(model, optimizer, batch, banks, seed)
  return jax.jit(create, out_shardings=place(jax.eval_shape(create)))()


def state_shapes(
  model: Mipd,
  optimizer: optax.GradientTransformation,
  batch: Mapping[str, jax.Array],
  banks: Mapping[str, jax.Array],
  place: Place,
) -> TrainState:
  """`init_state` without the arrays: what a checkpoint is read into."""
  shapes = jax.eval_shape(_creator(model, optimizer, batch, banks, 0))
  return jax.tree.map(
    lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where),
    shapes,
    place(shapes),
  )


def _creator(model, optimizer, batch, banks, seed):
  def create():
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), dict(batch))
    params = model.init(randomness.key(seed, "params"), zeros, banks)["params"]
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))

  return create


def student_shapes(
  model: Mipd,
  batch: Mapping[str, jax.ShapeDtypeStruct],
  banks: Mapping[str, jax.Array],
  sharding: jax.sharding.Sharding,
) -> dict[str, Any]:
  """Shapes and shardings of the parameters that `Mipd.predict` reads."""

  def create(batch, banks):
    key = randomness.key(0, "params")
    return model.init(key, batch, banks, method=model.predict)["params"]

  shapes = jax.eval_shape(create, dict(batch), dict(banks))
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes
  )
