"""Data order as a pure function of (seed, step): numpy only.

Examples are dealt to virtual shards, example i to shard i mod S, and every
shard fills the same rows of every batch: shard s those from s*B/S on. A
device that holds whole shards therefore finds its rows of any batch in its
own memory, and batches do not depend on how many devices there are. S
depends on the batch and the split alone (`num_shards`).

Each shard is shuffled anew in each epoch. Epochs are concatenated shard by
shard, so no example is dropped where an epoch ends inside a batch. Shards
differ in size by one example at most: after E epochs, up to sixteen, each
example was drawn E times, or once more or once less.
Nothing is carried from step to step: a run that resumes at step k asks for
step k, whatever the number of processes.
"""

import functools
import math

import numpy as np

from input_pipeline.io.errors import InputError

# Recorded by a run: with another data order it would be another run.
NAME = "dealt to 256 virtual shards"
MAX_SHARDS = 256
# A shard one example smaller repeats earlier; with 16 or more, by little.
_MIN_EXAMPLES = 16


def num_shards(num_examples: int, batch_size: int) -> int:
  """Virtual shards S: a power of two that divides the batch, 256 at most.

  Also small enough that each shard has 16 examples or more.
  """
  if num_examples < 1 or batch_size < 1:
    raise InputError(
      f"no batch of {batch_size} from {num_examples} examples",
      "the split and the batch need at least one example",
    )
  shards = math.gcd(batch_size, MAX_SHARDS)
  while shards > 1 and shards * _MIN_EXAMPLES > num_examples:
    shards //= 2
  return shards


def num_rows(num_examples: int, batch_size: int) -> int:
  """Examples of the largest shard."""
  return -(-num_examples // num_shards(num_examples, batch_size))


def step_rows(
  seed: int, step: int, num_examples: int, batch_size: int
) -> np.ndarray:
  """Rows of the shards that make one training batch: int64 [S, B/S].

  Row r of shard s is example r*S + s.
  """
  shards = num_shards(num_examples, batch_size)
  if step < 0:
    raise InputError(f"no batch for step {step}", "steps count from 0")
  share = batch_size // shards
  sizes = -(-(num_examples - np.arange(shards)) // shards)
  draws = step * share + np.arange(share, dtype=np.int64)
  epochs, within = np.divmod(draws, sizes[:, None])
  rows = np.empty((shards, share), np.int64)
  for epoch in np.unique(epochs):
    shard, draw = np.nonzero(epochs == epoch)
    table = _shuffled(seed, int(epoch), num_examples, shards)
    rows[shard, draw] = table[shard, within[shard, draw]]
  return rows


def step_indices(
  seed: int, step: int, num_examples: int, batch_size: int
) -> np.ndarray:
  """Examples of one training batch of all processes: int64 [B]."""
  rows = step_rows(seed, step, num_examples, batch_size)
  return _examples(rows)


def num_eval_steps(num_examples: int, batch_size: int) -> int:
  """Batches that hold every example once."""
  return -(-num_examples // batch_size)


def eval_rows(
  step: int, num_examples: int, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
  """Rows of one evaluation batch, int64 [S, B/S], and their mask.

  Every example comes once, the shards row by row. Where the mask (bool
  [S, B/S]) is False, filler repeats the shard's first example.
  """
  shards = num_shards(num_examples, batch_size)
  share = batch_size // shards
  rows = step * share + np.arange(share, dtype=np.int64)
  rows = np.broadcast_to(rows, (shards, share))
  mask = rows * shards + np.arange(shards)[:, None] < num_examples
  return np.where(mask, rows, 0), mask


def eval_indices(
  step: int, num_examples: int, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
  """Examples int64 [B] of one evaluation batch, and the mask bool [B]."""
  rows, mask = eval_rows(step, num_examples, batch_size)
  return _examples(rows), mask.reshape(-1)


def _examples(rows: np.ndarray) -> np.ndarray:
  """Rows of the shards [S, n] -> examples [S * n]."""
  shards = len(rows)
  return (rows * shards + np.arange(shards)[:, None]).reshape(-1)


# A batch touches two epochs at most in practice; reader threads share them.
@functools.lru_cache(maxsize=4)
def _shuffled(
  seed: int, epoch: int, num_examples: int, shards: int
) -> np.ndarray:
  """The rows of every shard in the order of an epoch: int64 [S, rows].

  Sorting raw Philox words instead of `np.random.Generator.permutation`:
  numpy promises the words of a bit generator for good, but not the methods
  built on them.
  """
  rows = -(-num_examples // shards)
  key = np.array([seed, epoch], np.uint64)
  words = np.random.Philox(key=key).random_raw(shards * rows)
  words = words.reshape(rows, shards)
  # Smaller shards lack the last row: it sorts after all of their rows.
  absent = np.arange(rows * shards).reshape(rows, shards) >= num_examples
  words[absent] = np.iinfo(np.uint64).max
  order = np.argsort(words, axis=0, kind="stable").astype(np.int64).T.copy()
  order.setflags(write=False)
  return order
