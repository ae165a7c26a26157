"""The compiled steps of an ablation, one for all worlds and seeds.

`training.program` has the seed inside the program; here it is an argument,
so that a variant is compiled once. What it computes is the same
(tests/test_ablate_runs.py).
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jaxtyping import Array

from mipd_jax import sharding
from mipd_jax.config import TrainConfig
from mipd_jax.evaluation import evaluate as eval_lib
from mipd_jax.losses.objective import Objective
from mipd_jax.models.mipd import Mipd
from mipd_jax.stages.train import student_predict
from mipd_jax.training import state as state_lib
from mipd_jax.training import step as step_lib
from mipd_jax.training.optimizer import make_optimizer
from mipd_jax.training.state import TrainState

# Programs that are kept; a study goes world by world through all variants.
_KEPT = 64


@functools.lru_cache(maxsize=_KEPT)
def train_steps(
  model: Mipd,
  objective: Objective,
  train: TrainConfig,
  steps: int,
  mesh: jax.sharding.Mesh,
) -> Callable[..., tuple[TrainState, dict[str, Array]]]:
  """Jits (state, batches, count, banks, seed) -> (state, metrics [K]).

  Args:
    model, objective, train: of the variant.
    steps: of the whole run, for the schedule.
    mesh: all of whose devices hold the whole state.
  """
  optimizer = make_optimizer(train, steps)
  whole = sharding.replicated(mesh)

  def run(state, batches, count, banks, seed):
    step = functools.partial(
      step_lib.train_step,
      model=model,
      objective=objective,
      optimizer=optimizer,
      seed=seed,
    )
    places = jax.tree.map(lambda _: whole, state)
    return step_lib.train_steps(
      state, batches, count, banks, step=jax.jit(step), shardings=places
    )

  return jax.jit(run, donate_argnums=0, out_shardings=whole)


@functools.lru_cache(maxsize=_KEPT)
def initial_state(
  model: Mipd, train: TrainConfig, steps: int, mesh: jax.sharding.Mesh
) -> Callable[[Mapping, Mapping, Any], TrainState]:
  """Jits (batch, banks, seed) -> state; of the batch the shapes count."""
  optimizer = make_optimizer(train, steps)
  whole = sharding.replicated(mesh)

  def place(shapes):
    return jax.tree.map(lambda _: whole, shapes)

  def create(batch, banks, seed):
    return state_lib.init_state(model, optimizer, batch, banks, seed, place)

  return jax.jit(create, out_shardings=whole)


@functools.lru_cache(maxsize=_KEPT)
def student_scores(model: Mipd) -> Callable:
  """The evaluation step of a student; see `evaluation.evaluate`."""
  return eval_lib.compile_eval_step(student_predict(model))


@functools.lru_cache(maxsize=_KEPT)
def cached_scores(key: str) -> Callable:
  """The evaluation step of verb logits of the cache."""
  return eval_lib.compile_eval_step(eval_lib.cached_logits(key))
