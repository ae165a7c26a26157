"""Where batches come from: streamed from the cache, or resident.

Both give the same device arrays for the same steps, so the step that is
compiled does not know which it is fed by.
"""

import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

import jax
import numpy as np

from input_pipeline import order, schema, stream
from mipd_jax.devices import sharding
from mipd_jax.feeding.resident import Layout, Resident


class Chunk(NamedTuple):
  """Consecutive steps that are given to the devices in one go."""

  first: int
  count: int


Batches = dict[str, jax.Array]


class Feed(Protocol):
  """Batches of a split in the order of `input_pipeline.order`."""

  def train(
    self, chunks: Iterable[Chunk], *, seed: int, length: int
  ) -> Iterator[Batches]:
    """For each chunk arrays [length, B, ...]; only `count` of them count.

    Args:
      chunks: consecutive steps, each of `length` steps at most.
      seed: of the data order.
      length: the first axis, one for all so that one program serves all.
    """
    ...

  def evaluate(self) -> Iterator[Batches]:
    """Arrays [B, ...]: every example once, and filler."""
    ...


class Streaming:
  """Reads the cache again in every epoch."""

  def __init__(
    self, source: stream.Source, batch_size: int, mesh: jax.sharding.Mesh
  ):
    self._source, self._size, self._mesh = source, batch_size, mesh
    self._part = sharding.process_rows(mesh, batch_size)

  def train(
    self, chunks: Iterable[Chunk], *, seed: int, length: int
  ) -> Iterator[Batches]:
    chunks = list(chunks)
    if not chunks:
      return
    batches = stream.train_batches(
      self._source,
      seed=seed,
      batch_size=self._size,
      start_step=chunks[0].first,
      num_steps=chunks[-1].first + chunks[-1].count,
      part=self._part,
    )
    for chunk in chunks:
      found = list(itertools.islice(batches, chunk.count))
      found += found[-1:] * (length - chunk.count)
      stacked = {key: np.stack([b[key] for b in found]) for key in found[0]}
      yield sharding.put_rows(self._mesh, stacked, self._size, axis=1)

  def evaluate(self) -> Iterator[Batches]:
    for batch in stream.eval_batches(
      self._source, batch_size=self._size, part=self._part
    ):
      yield sharding.put_rows(self._mesh, batch, self._size)


class FromMemory:
  """Gathers batches on the devices."""

  def __init__(self, resident: Resident):
    self._resident = resident
    layout = resident.layout
    self._sizes = layout.num_examples, layout.batch_size
    self._first = jax.jit(lambda batch: {k: x[0] for k, x in batch.items()})

  def train(
    self, chunks: Iterable[Chunk], *, seed: int, length: int
  ) -> Iterator[Batches]:
    for first, count in chunks:
      steps = range(first, first + count)
      rows = [order.step_rows(seed, step, *self._sizes) for step in steps]
      rows += rows[-1:] * (length - count)
      mask = np.ones((length, self._sizes[1]), bool)
      yield self._resident.batches(np.stack(rows), mask)

  def evaluate(self) -> Iterator[Batches]:
    for step in range(order.num_eval_steps(*self._sizes)):
      rows, mask = order.eval_rows(step, *self._sizes)
      found = self._resident.batches(rows[None], mask.reshape(1, -1))
      yield self._first(found)


def train_shapes(
  layout: Layout, length: int
) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes and places of what `Feed.train` gives, to compile for."""
  where = sharding.named_sharding(layout.mesh, None, "batch")
  mask = {schema.EXAMPLE_MASK: jax.ShapeDtypeStruct((), bool)}
  return {
    key: jax.ShapeDtypeStruct(
      (length, layout.batch_size, *x.shape), x.dtype, sharding=where
    )
    for key, x in (dict(layout.example) | mask).items()
  }
