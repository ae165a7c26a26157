"""Data order as a pure function of (seed, step): numpy only.

Epochs are concatenated, so no example is dropped where an epoch ends inside
a batch. Nothing is carried from step to step: a run that resumes at step k
asks for step k, whatever the number of processes.
"""

import functools

import numpy as np

from input_pipeline.errors import InputError


def step_indices(
  seed: int, step: int, num_examples: int, batch_size: int
) -> np.ndarray:
  """Examples of one global batch: int64 [batch_size]."""
  if step < 0 or num_examples < 1 or batch_size < 1:
    raise InputError(
      f"no batch for step {step}, {num_examples} examples and a batch of "
      f"{batch_size}",
      "steps count from 0; the split and the batch need at least one example",
    )
  positions = step * batch_size + np.arange(batch_size, dtype=np.int64)
  epochs, within = np.divmod(positions, num_examples)
  indices = np.empty(batch_size, np.int64)
  for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
    chosen = epochs == epoch
    indices[chosen] = _permutation(seed, epoch, num_examples)[within[chosen]]
  return indices


def process_slice(
  indices: np.ndarray, process_index: int, process_count: int
) -> np.ndarray:
  """The part of a global batch that one process reads: contiguous.

  The parts of all processes, concatenated in order, are the batch.
  """
  if not 0 <= process_index < process_count:
    raise InputError(
      f"process {process_index} of {process_count} processes",
      "processes count from 0",
    )
  if len(indices) % process_count:
    raise InputError(
      f"a batch of {len(indices)} cannot be shared by {process_count} "
      "processes",
      "choose a batch size that the number of processes divides",
    )
  size = len(indices) // process_count
  return indices[process_index * size : (process_index + 1) * size]


# A batch touches two epochs at most in practice; reader threads share them.
@functools.lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, num_examples: int) -> np.ndarray:
  """A permutation of all examples, keyed by (seed, epoch): int64 [n].

  Sorting raw Philox words instead of `Generator.permutation`: numpy promises
  the words of a bit generator for good, but not the methods built on them.
  """
  key = np.array([seed, epoch], np.uint64)
  words = np.random.Philox(key=key).random_raw(num_examples)
  permutation = np.argsort(words, kind="stable").astype(np.int64)
  permutation.setflags(write=False)
  return permutation
