"""The compiled steps of an ablation, one for all worlds and seeds.

`training/programs.py` has the seed inside the program; here it is an argument,
so that a variant is compiled once. The results are the same
(tests/ablations/test_ablate_runs.py).
"""

import dataclasses
import functools
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import flax.linen as nn
import jax
from jaxtyping import Array

from mipd_jax.config import TrainConfig
from mipd_jax.devices import sharding
from mipd_jax.losses.objective import Objective
from mipd_jax.stages.train import student_predict
from mipd_jax.tasks.task import Task
from mipd_jax.training import state as state_lib
from mipd_jax.training import step as step_lib
from mipd_jax.training.state import TrainState, make_optimizer

# Kept programs; a study goes world by world through all variants.
_KEPT = 64


@functools.lru_cache(maxsize=_KEPT)
def train_steps(
  model: nn.Module,
  objective: Objective,
  train: TrainConfig,
  steps: int,
  mesh: jax.sharding.Mesh,
) -> Callable[..., tuple[TrainState, dict[str, Array]]]:
  """Jits (state, batches, count, banks, seed) -> (state, metrics [K]).

  Args:
    model, objective, train: of the variant.
    steps: of the whole run, for the schedule.
    mesh: each of its devices holds the whole state.
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
  model: nn.Module, train: TrainConfig, steps: int, mesh: jax.sharding.Mesh
) -> Callable[[Mapping, Mapping, Any], TrainState]:
  """Jits (batch, banks, seed) -> state; reads only the batch's shapes."""
  optimizer = make_optimizer(train, steps)
  whole = sharding.replicated(mesh)

  def place(shapes):
    return jax.tree.map(lambda _: whole, shapes)

  def create(batch, banks, seed):
    return state_lib.init_state(model, optimizer, batch, banks, seed, place)

  return jax.jit(create, out_shardings=whole)


def student_scores(task: Task, model: nn.Module) -> Callable:
  """The evaluation step of a student; see `Task.eval_step`."""
  return _student_scores(_Evaluated.of(task), model)


def cached_scores(task: Task, key: str) -> Callable:
  """The evaluation step of logits in the cache."""
  return _cached_scores(_Evaluated.of(task), key)


@dataclasses.dataclass(frozen=True)
class _Evaluated:
  """A task; equal to any other with the same evaluation step."""

  kind: type
  settings: Hashable
  task: Task = dataclasses.field(compare=False)

  @classmethod
  def of(cls, task: Task) -> "_Evaluated":
    return cls(type(task), task.eval_settings(), task)


@functools.lru_cache(maxsize=_KEPT)
def _student_scores(evaluated: _Evaluated, model: nn.Module) -> Callable:
  return evaluated.task.eval_step(student_predict(model))


@functools.lru_cache(maxsize=_KEPT)
def _cached_scores(evaluated: _Evaluated, key: str) -> Callable:
  task = evaluated.task
  return task.eval_step(task.cached(key))
