"""Batches on the host: tf.data reads ahead, numpy comes out.

The order is `order.step_indices`, so resuming skips by arithmetic: nothing of
an earlier step is read or decoded, and a process reads only its own part.
TensorFlow is imported where it is used and never touches an accelerator.
"""

import dataclasses
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from input_pipeline import order, schema
from input_pipeline.errors import InputError

if TYPE_CHECKING:
  from input_pipeline.image_split import ImageSplit

Batch = dict[str, np.ndarray]
_AHEAD = 4  # batches read ahead of the consumer
_READERS = 4  # threads that read cached features; they wait for the disk
_DECODERS = 16  # threads, at most, that decode images; they need a core each


class Source(Protocol):
  """Random access to examples; `read` is called from several threads."""

  num_examples: int

  def read(self, indices: np.ndarray) -> Mapping[str, np.ndarray]:
    """Keys of the contract but `example_mask`, for examples [n]."""
    ...


def train_batches(
  source: Source,
  *,
  seed: int,
  batch_size: int,
  start_step: int,
  num_steps: int,
  process_index: int = 0,
  process_count: int = 1,
) -> Iterator[Batch]:
  """Shuffled batches of steps start_step, ..., num_steps - 1, in order.

  Args:
    source: where examples are read.
    seed: of the data order.
    batch_size: examples of a batch over all processes.
    start_step: first step wanted; 0 unless resuming.
    num_steps: step at which to stop.
    process_index, process_count: this process reads its part of each batch.

  Yields:
    Contract batches of batch_size / process_count examples.

  Raises:
    InputError: sizes that do not fit, at once; or what `source.read` raises,
      when its batch is due.
  """

  def indices_of(step: int) -> tuple[np.ndarray, np.ndarray]:
    whole = order.step_indices(seed, step, source.num_examples, batch_size)
    mine = order.process_slice(whole, process_index, process_count)
    return mine, np.ones(len(mine), bool)

  return _batches(source.read, indices_of, start_step, num_steps)


def eval_batches(
  source: Source,
  *,
  batch_size: int,
  process_index: int = 0,
  process_count: int = 1,
) -> Iterator[Batch]:
  """Every example once over all processes, in index order.

  All processes get the same number of batches of the same size. The filler of
  the last one repeats example 0 and has a False `example_mask`.
  """
  indices_of = _padded(
    np.arange(source.num_examples), batch_size, process_index, process_count
  )
  steps = math.ceil(source.num_examples / batch_size)
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
  split: "ImageSplit",
  *,
  sizes: Sequence[int],
  batch_size: int,
  indices: Sequence[int] | np.ndarray | None = None,
) -> Iterator[ImageBatch]:
  """Decoded images in the order of `indices`, at several sizes at once.

  Decoding runs ahead on other threads, so it overlaps with inference.

  Args:
    split: where images are read.
    sizes: canvas sides, pixels.
    batch_size: of every batch; the last one is padded.
    indices: examples wanted; None: the whole split.
  """
  wanted = np.arange(len(split)) if indices is None else np.asarray(indices)
  sizes = tuple(dict.fromkeys(sizes))

  def read(chosen: np.ndarray) -> Batch:
    pixels = split.letterboxed_sizes(chosen, sizes)
    return {str(size): pixels[size] for size in sizes}

  indices_of = _padded(wanted, batch_size, 0, 1)
  steps = math.ceil(len(wanted) / batch_size)
  for batch in _batches(read, indices_of, 0, steps, _DECODERS):
    yield ImageBatch(
      index=batch[schema.INDEX],
      example_mask=batch[schema.EXAMPLE_MASK],
      pixels={size: batch[str(size)] for size in sizes},
    )


def _padded(
  wanted: np.ndarray, batch_size: int, process_index: int, process_count: int
) -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
  """Maps a step to (indices, mask) of this process, padded with filler."""
  if not len(wanted) or batch_size < 1:
    raise InputError(
      f"no batches of {batch_size} from {len(wanted)} examples",
      "give at least one example and a positive batch size",
    )

  def indices_of(step: int) -> tuple[np.ndarray, np.ndarray]:
    positions = step * batch_size + np.arange(batch_size)
    mine = order.process_slice(positions, process_index, process_count)
    mask = mine < len(wanted)
    return wanted[np.where(mask, mine, 0)].astype(np.int64), mask

  indices_of(0)  # Complains now if the processes do not divide the batch.
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
    indices_of(start)  # Complains before the first batch is asked for.

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
  # The first batch is needed first in any case; it also tells tf.data the
  # dtypes, so that no example is read only to learn them.
  first = load(start)
  keys = tuple(first)
  yield first
  if start + 1 >= stop:
    return
  tf = _tensorflow()
  # TensorFlow would wrap an error of `load` and lose its type.
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
    pass  # Already initialised by someone else; nothing to take back.
  return tf
