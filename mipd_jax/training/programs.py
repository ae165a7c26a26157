"""A run's shapes, shardings and compiled steps.

All are known before a feature is read or a parameter drawn, so compiling and
reading run at the same time.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

import jax
import numpy as np

from input_pipeline import schema, stream
from mipd_jax.config import Config
from mipd_jax.devices import distributed, sharding
from mipd_jax.feeding import feeds, resident
from mipd_jax.feeding.dequantise import dequantise
from mipd_jax.models.mipd import Mipd
from mipd_jax.training import step as step_lib
from mipd_jax.training.state import (
  TrainState,
  init_state,
  make_optimizer,
  state_shapes,
)


class Program:
  """One run on one mesh.

  Attributes:
    banks: text embeddings, on the devices.
    state: shapes and shardings of the state; a checkpoint is read into them.
  """

  def __init__(
    self,
    config: Config,
    model: Mipd,
    source: stream.Source,
    banks: Mapping[str, np.ndarray],
    mesh: jax.sharding.Mesh,
    steps: int,
  ):
    """`steps`: of the whole run; the schedule needs it."""
    self._config, self._model, self._source = config, model, source
    self._layout = distributed.agreed(
      lambda: resident.layout(source, config.train.batch_size, mesh)
    )
    self.banks = jax.device_put(dict(banks), sharding.replicated(mesh))
    self._optimizer = make_optimizer(config.train, steps)
    parts = (model, self._optimizer, example_batch(source), self.banks)

    def place(shapes):
      return sharding.state_shardings(mesh, shapes, fsdp=config.mesh.fsdp)

    self.state = state_shapes(*parts, place)
    self._initial = lambda: init_state(*parts, config.seed, place)

  def initial_state(self) -> TrainState:
    """A fresh state."""
    return self._initial()

  def opening(self) -> AbstractContextManager[Callable[[], feeds.Feed]]:
    """The feed, prepared in the background."""
    train = self._config.train
    return feeds.opening(
      self._source, self._layout, train.resident, train.resident_gib, "train"
    )

  def compile(self, length: int) -> Callable:
    """(state, batches, count, banks) -> (state, metrics).

    Args:
      length: batches that it takes, of which it uses `count`.
    """
    jitted = step_lib.compile_steps(
      self._model,
      self._config.objective,
      self._optimizer,
      self._config.seed,
      jax.tree.map(lambda x: x.sharding, self.state),
    )
    batches = feeds.train_shapes(self._layout, length)
    count = jax.ShapeDtypeStruct((), np.int32)
    return jitted.lower(self.state, batches, count, self.banks).compile()


def example_batch(
  source: stream.Source,
) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes and dtypes of a batch of one, as the model sees it."""
  fields = resident.read_fields(source, np.zeros(1, np.int64))
  fields[schema.EXAMPLE_MASK] = np.ones(1, bool)
  return jax.eval_shape(dequantise, fields)
