"""Where batches come from: streamed from the cache, or resident.

Both give the same device arrays for the same steps, so the compiled step is
the same. `decide` says whether a split is kept in device memory, and why.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol

import jax
import numpy as np
from absl import logging

from input_pipeline import order, schema, stream
from input_pipeline.io.errors import InputError
from input_pipeline.stream import Source
from mipd_jax.devices import distributed, sharding
from mipd_jax.feeding.resident import Layout, Resident, loading


class Chunk(NamedTuple):
  """Consecutive steps that the devices run in one program."""

  first: int
  count: int


Batches = dict[str, jax.Array]


class Feed(Protocol):
  """Batches of a split in the order of `input_pipeline.order`."""

  def train(
    self, chunks: Iterable[Chunk], *, seed: int, length: int
  ) -> Iterator[Batches]:
    """For each chunk arrays [length, B, ...]; the first `count` are used.

    Args:
      chunks: consecutive steps, each of at most `length` steps.
      seed: of the data order.
      length: the first axis, the same for all so that one program serves all.
    """
    ...

  def evaluate(self) -> Iterator[Batches]:
    """Arrays [B, ...]: every example once, then filler."""
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
      steps = list(itertools.islice(batches, chunk.count))
      steps += steps[-1:] * (length - chunk.count)
      stacked = {key: np.stack([b[key] for b in steps]) for key in steps[0]}
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
      one_batch = self._resident.batches(rows[None], mask.reshape(1, -1))
      yield self._first(one_batch)


def train_shapes(
  layout: Layout, length: int
) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes and shardings of the arrays of `Feed.train`, to compile for."""
  where = sharding.named_sharding(layout.mesh, None, "batch")
  mask = {schema.EXAMPLE_MASK: jax.ShapeDtypeStruct((), bool)}
  return {
    key: jax.ShapeDtypeStruct(
      (length, layout.batch_size, *x.shape), x.dtype, sharding=where
    )
    for key, x in (dict(layout.example) | mask).items()
  }


_GIB = 2**30
# Share of a device's memory; the rest is for parameters and a step's arrays.
_SHARE = 0.75
# Over all devices together, if they do not report their memory (CPUs).
_UNKNOWN_GIB = 4.0


@contextlib.contextmanager
def opening(
  source: Source, layout: Layout, setting: str, limit_gib: float, what: str
) -> Iterator[Callable[[], Feed]]:
  """Prepares a feed while the block compiles.

  Args:
    source: of the split.
    layout: made from that source.
    setting, limit_gib, what: see `decide`.

  Yields:
    A function that waits until the feed is ready.
  """
  if decide(setting, limit_gib, layout, what):
    with loading(source, layout, f"load {what}") as resident:
      yield lambda: FromMemory(resident())
  else:
    yield lambda: Streaming(source, layout.batch_size, layout.mesh)


def decide(setting: str, limit_gib: float, layout: Layout, what: str) -> bool:
  """Whether a split becomes resident; logs why. The same on all processes.

  Args:
    setting: "on", "off" or "auto": if it fits.
    limit_gib: what a device may give to it; 0 means three quarters of its
      memory minus what is in use, or 4 GiB over all devices if they do not say.
    layout: of the split.
    what: the split's name.

  Raises:
    InputError: the setting is "on", and the split cannot be resident.
  """
  if setting == "off":
    return False
  needed = layout.device_bytes()
  limit = _limit(limit_gib, layout)
  fits = layout.is_possible and distributed.all_of(needed <= limit)
  devices = layout.mesh.shape[sharding.DATA]
  if layout.is_possible:
    reason = (
      f"{needed / _GIB:.2f} GiB on each of {devices} devices, which may give "
      f"{limit / _GIB:.2f} GiB to it"
    )
  else:
    reason = (
      f"its {layout.num_shards} virtual shards (of {layout.num_examples} "
      f"images in batches of {layout.batch_size}) do not divide over "
      f"{devices} devices"
    )
  if setting == "on" and not fits:
    raise InputError(
      f"train.resident='on', but {what} cannot be kept in device memory: "
      f"{reason}",
      "use more devices, an int8 cache (--config.teacher.dtype=int8), a batch "
      "size with more factors of two, a larger --config.train.resident_gib, "
      "or --config.train.resident=auto",
    )
  logging.info(
    "Features of %s are %s: %s.",
    what,
    "loaded into device memory" if fits else "streamed",
    reason,
  )
  return fits


def _limit(limit_gib: float, layout: Layout) -> int:
  if limit_gib:
    return int(limit_gib * _GIB)
  stats = [
    device.memory_stats()
    for device in layout.mesh.devices.flat
    if device.process_index == jax.process_index()
  ]
  if not all(stats):
    return int(_UNKNOWN_GIB * _GIB / layout.mesh.devices.size)
  return min(
    int(_SHARE * s["bytes_limit"]) - s.get("bytes_in_use", 0) for s in stats
  )
