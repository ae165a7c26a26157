"""Reads a split into device memory: threads read, one more sends.

Host memory holds a few chunks only. A process reads only the examples of its
own devices, in the order of the files.
"""

import collections
import concurrent.futures
import contextlib
import os
import threading
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from input_pipeline.io.errors import InputError
from input_pipeline.io.progress import Progress
from input_pipeline.stream import Source
from mipd_jax.devices import distributed, sharding
from mipd_jax.feeding.resident import (
  Layout,
  Resident,
  pack,
  read_fields,
)

_CHUNK_BYTES = 128 * 2**20
_READERS = 8


@contextlib.contextmanager
def loading(
  source: Source, layout: Layout, what: str
) -> Iterator[Callable[[], Resident]]:
  """Loads on another thread, while the block compiles; stops with the block.

  Nothing else may run on the devices before the loader is done: processes
  have to start programs in the same order.

  Args:
    source: read by several threads.
    layout: made from that source.
    what: a few words for the progress line.

  Yields:
    A function that waits for the arrays; it raises InputError on all
    processes if one of them could not read its part.
  """
  stop = threading.Event()
  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    future = pool.submit(_load, source, layout, what, stop)

    def result() -> Resident:
      problem = future.exception()
      if problem is None or isinstance(problem, InputError):
        distributed.raise_together(problem)
      return future.result()

    try:
      yield result
    finally:
      stop.set()


def _load(source, layout, what, stop) -> Resident:
  arrays = _zeros(layout)
  update = jax.jit(_update, donate_argnums=0)
  mine = sharding.process_rows(layout.mesh, layout.num_shards)
  step = _chunk_rows(layout, len(mine))
  chunks = _chunks(source, layout, mine, step)
  progress = Progress(what, layout.num_rows * len(mine), "images")
  done = 0
  with contextlib.closing(chunks), progress:
    for start, chunk in chunks:
      if stop.is_set():
        raise InputError(f"{what}: stopped", "see what stopped it")
      placed = sharding.put_rows(layout.mesh, chunk, layout.num_shards, axis=1)
      arrays = update(arrays, placed, np.int32(start))
      jax.block_until_ready(arrays)  # else chunks pile up on the host
      progress.advance((start + step - done) * len(mine))
      done = start + step
  return Resident(layout, arrays)


def _zeros(layout: Layout) -> dict[str, jax.Array]:
  shapes = layout.shapes()
  return jax.jit(
    lambda: {key: jnp.zeros(x.shape, x.dtype) for key, x in shapes.items()},
    out_shardings=layout.sharding,
  )()


def _update(arrays, chunk, start):
  """Writes rows of all shards; along an axis that no device divides."""
  return jax.tree.map(
    lambda whole, part: jax.lax.dynamic_update_slice_in_dim(
      whole, part, start, axis=0
    ),
    arrays,
    chunk,
  )


def _chunk_rows(layout: Layout, shards: int) -> int:
  size = sum(
    int(np.prod(x.shape)) * np.dtype(x.dtype).itemsize
    for x in layout.example.values()
  )
  return int(np.clip(_CHUNK_BYTES // (shards * size), 1, layout.num_rows))


def _chunks(
  source: Source, layout: Layout, shards: np.ndarray, step: int
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
  """Yields (first row, fields [step, shards, ...]), in order.

  The last chunk starts early enough to be whole.
  """
  starts = list(range(0, layout.num_rows, step))
  starts[-1] = layout.num_rows - step

  def read(start):
    rows = start + np.arange(step)[:, None]
    indices = rows * layout.num_shards + shards
    # Smaller shards have no last row; what stands there is never drawn.
    indices = np.minimum(indices, layout.num_examples - 1).reshape(-1)
    packed = pack(layout, read_fields(source, indices))
    return {
      key: value.reshape(step, len(shards), *value.shape[1:])
      for key, value in packed.items()
    }

  readers = min(_READERS, os.cpu_count() or 1)
  with concurrent.futures.ThreadPoolExecutor(readers) as pool:
    ahead: collections.deque = collections.deque()
    try:
      for start in starts:
        ahead.append((start, pool.submit(read, start)))
        if len(ahead) > readers:
          first, future = ahead.popleft()
          yield first, future.result()
      while ahead:
        first, future = ahead.popleft()
        yield first, future.result()
    finally:
      for _, future in ahead:
        future.cancel()
