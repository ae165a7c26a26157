"""Batches of numpy arrays on the host, read ahead by tf.data.

The order is that of `order.step_indices`, so a resumed run computes where it
is: nothing of an earlier step is read or decoded, and a process reads only its
own part. TensorFlow is imported where it is used and never touches an
accelerator.
"""

import dataclasses
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from input_pipeline import order, schema
from input_pipeline.io.errors import InputError

if TYPE_CHECKING:
  from input_pipeline.dataset import Split

Batch = dict[str, np.ndarray]
_AHEAD = 4  # batches read ahead of the consumer
_READERS = 4  # threads that read cached features; they wait for the disk
_DECODERS = 16  # at most so many threads decode images; each needs a core


class Source(Protocol):
  """Random access to examples; `read` is called from several threads."""

  @property
  def num_examples(self) -> int:
    """Number of examples."""
    ...

  def read(self, indices: np.ndarray) -> Mapping[str, np.ndarray]:
    """All contract keys except `example_mask`, for examples int [n]."""
    ...


def train_batches(
  source: Source,
  *,
  seed: int,
  batch_size: int,
  start_step: int,
  num_steps: int,
  part: np.ndarray | None = None,
) -> Iterator[Batch]:
  """Shuffled batches of steps start_step, ..., num_steps - 1, in order.

  Args:
    source: where examples are read.
    seed: seed of the data order.
    batch_size: examples per batch, over all processes.
    start_step: first step; 0 unless resuming.
    num_steps: the step before which to stop.
    part: int [n], the positions of each batch that this process reads; None:
      all.

  Yields:
    Contract batches of n examples.

  Raises:
    InputError: at once, if sizes do not fit; later, whatever `Source.read`
      raises, when its batch is due.
  """

  def indices_of(step: int) -> tuple[np.ndarray, np.ndarray]:
    mine = order.step_indices(seed, step, source.num_examples, batch_size)
    mine = mine if part is None else mine[part]
    return mine, np.ones(len(mine), bool)

  return _batches(source.read, indices_of, start_step, num_steps)


def eval_batches(
  source: Source, *, batch_size: int, part: np.ndarray | None = None
) -> Iterator[Batch]:
  """Every example once over all processes, in order of `order.eval_indices`.

  All processes get the same number of batches. Filler has a False
  `example_mask`.
  """

  def indices_of(step: int) -> tuple[np.ndarray, np.ndarray]:
    indices, mask = order.eval_indices(step, source.num_examples, batch_size)
    return (indices, mask) if part is None else (indices[part], mask[part])

  indices_of(0)  # sizes without a batch raise here, not at the first batch
  steps = order.num_eval_steps(source.num_examples, batch_size)
  return _batches(source.read, indices_of, 0, steps)


@dataclasses.dataclass(frozen=True)
class ImageBatch:
  """Letterboxed images for the frozen encoders.

  Attributes:
    index: int32 [B] positions in the split; filler repeats an example.
    example_mask: bool [B], False for filler.
    pixels: uint8 [B, s, s, 3] by canvas side s.
  """

  index: np.ndarray
  example_mask: np.ndarray
  pixels: Mapping[int, np.ndarray]


def image_batches(
  split: "Split",
  *,
  sizes: Sequence[int],
  batch_size: int,
  indices: Sequence[int] | np.ndarray | None = None,
) -> Iterator[ImageBatch]:
  """Decoded images in the order of `indices`, at several sizes at once.

  Other threads decode ahead, so decoding overlaps with inference.

  Args:
    split: where images are read.
    sizes: canvas sides, pixels.
    batch_size: images per batch; the last batch is padded.
    indices: positions in the split; None: the whole split.
  """
  wanted = np.arange(len(split)) if indices is None else np.asarray(indices)
  sizes = tuple(dict.fromkeys(sizes))

  def read(chosen: np.ndarray) -> Batch:
    pixels = split.letterboxed_sizes(chosen, sizes)
    return {str(size): pixels[size] for size in sizes}

  indices_of = _padded(wanted, batch_size)
  steps = math.ceil(len(wanted) / batch_size)
  for batch in _batches(read, indices_of, 0, steps, _DECODERS):
    yield ImageBatch(
      index=batch[schema.INDEX],
      example_mask=batch[schema.EXAMPLE_MASK],
      pixels={size: batch[str(size)] for size in sizes},
    )


def _padded(
  wanted: np.ndarray, batch_size: int
) -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
  """Maps a step to (indices, mask), padded with the first example."""
  if not len(wanted) or batch_size < 1:
    raise InputError(
      f"no batches of {batch_size} from {len(wanted)} examples",
      "give at least one example and a positive batch size",
    )

  def indices_of(step: int) -> tuple[np.ndarray, np.ndarray]:
    positions = step * batch_size + np.arange(batch_size)
    mask = positions < len(wanted)
    return wanted[np.where(mask, positions, 0)].astype(np.int64), mask

  return indices_of


def _batches(
  read: Callable[[np.ndarray], Mapping[str, np.ndarray]],
  indices_of: Callable[[int], tuple[np.ndarray, np.ndarray]],
  start: int,
  stop: int,
  workers: int = _READERS,
) -> Iterator[Batch]:
  """Reads steps start, ..., stop - 1 on at most `workers` threads."""
  if start < 0:
    raise InputError(f"start step {start}", "steps count from 0")
  if start < stop:
    indices_of(start)  # Errors come before the first batch is requested.

  def load(step: int) -> Batch:
    indices, mask = indices_of(step)
    batch = dict(read(indices))
    batch[schema.INDEX] = indices.astype(np.int32)
    batch[schema.EXAMPLE_MASK] = mask
    return batch

  return _read_ahead(load, start, stop, min(workers, os.cpu_count() or 1))


def _read_ahead(
  load: Callable[[int], Batch], start: int, stop: int, workers: int
) -> Iterator[Batch]:
  if start >= stop:
    return
  # The first batch also gives tf.data the dtypes, so that no example is read
  # only for these.
  first = load(start)
  keys = tuple(first)
  yield first
  if start + 1 >= stop:
    return
  tf = _tensorflow()
  # TensorFlow wraps errors of `load`, which loses their type.
  errors: dict[int, Exception] = {}

  def load_arrays(step: np.ndarray) -> list[np.ndarray]:
    try:
      batch = load(int(step))
      return [np.ascontiguousarray(batch[key]) for key in keys]
    except Exception as error:
      errors[int(step)] = error
      raise

  dtypes = [tf.as_dtype(first[key].dtype) for key in keys]
  dataset = tf.data.Dataset.range(start + 1, stop).map(
    lambda step: tf.numpy_function(load_arrays, [step], dtypes, stateful=False),
    num_parallel_calls=workers,
    deterministic=True,
  )
  options = tf.data.Options()
  options.threading.private_threadpool_size = workers
  options.autotune.enabled = False
  dataset = dataset.prefetch(_AHEAD).with_options(options)
  try:
    for arrays in dataset.as_numpy_iterator():
      yield dict(zip(keys, arrays, strict=True))
  except tf.errors.OpError:
    if errors:
      raise errors[min(errors)] from None
    raise


def _tensorflow():
  """TensorFlow, kept off the accelerators, which belong to JAX."""
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  import tensorflow as tf

  try:
    tf.config.set_visible_devices([], "GPU")
    tf.config.set_visible_devices([], "TPU")
  except (RuntimeError, ValueError):
    pass  # TensorFlow was initialised before; its devices stay visible.
  return tf
