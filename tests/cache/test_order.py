"""Data order: complete, repeatable, independent of steps and processes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from input_pipeline import order
from input_pipeline.io.errors import InputError

sizes = {
  "examples": st.integers(1, 700),
  "batch": st.integers(1, 64) | st.sampled_from([128, 256, 512]),
}


@given(seed=st.integers(0, 2**31), **sizes)
def test_every_epoch_of_a_shard_holds_each_of_its_examples_once(
  seed, examples, batch
):
  shards = order.num_shards(examples, batch)
  steps = -(-3 * examples // batch)
  rows = [order.step_rows(seed, s, examples, batch) for s in range(steps)]
  flow = np.concatenate(rows, axis=1)
  for shard in range(shards):
    own = len(range(shard, examples, shards))
    for epoch in range(flow.shape[1] // own):
      part = flow[shard, epoch * own : (epoch + 1) * own]
      assert sorted(part) == list(range(own))


@given(**sizes)
def test_no_example_is_drawn_much_more_often_than_another(examples, batch):
  steps = -(-5 * examples // batch)
  flow = [order.step_indices(1, s, examples, batch) for s in range(steps)]
  counts = np.bincount(np.concatenate(flow), minlength=examples)
  assert len(counts) == examples
  epochs = steps * batch / examples
  assert epochs > 16 or (abs(counts - epochs) < 2).all()


@given(**sizes)
def test_shards_divide_the_batch_and_each_has_examples(examples, batch):
  shards = order.num_shards(examples, batch)
  assert batch % shards == 0 and 256 % shards == 0
  assert shards == 1 or examples // shards >= 16
  # As many as these allow.
  more = 2 * shards
  assert batch % more or more > 256 or examples < 16 * more


def test_real_size_divides_over_any_usual_number_of_devices():
  assert [order.num_shards(75_702, b) for b in (32, 64, 256, 1024)] == [
    32,
    64,
    256,
    256,
  ]
  assert order.num_rows(75_702, 64) == 1183


@given(devices=st.sampled_from([1, 2, 4, 8, 16, 32]), step=st.integers(0, 9))
def test_a_device_finds_its_part_of_a_batch_among_its_shards(devices, step):
  batch = order.step_indices(3, step, 1000, 64)
  shards = order.num_shards(1000, 64)
  for device, part in enumerate(np.split(batch, devices)):
    own = np.split(np.arange(shards), devices)[device]
    assert set(part % shards) <= set(own)


def test_epochs_and_seeds_differ():
  first, second = (order.step_indices(0, step, 64, 64) for step in (0, 1))
  other = order.step_indices(1, 0, 64, 64)
  assert first.dtype == np.int64
  assert (first != second).any() and (first != other).any()
  # Shards are shuffled each in its own way.
  rows = order.step_rows(0, 0, 640, 640)
  assert len({tuple(row) for row in rows}) == len(rows) == 32


def test_golden_order():
  # Fixed for good: a resumed run, also with another numpy, continues it.
  assert order.step_indices(7, 3, 40, 6).tolist() == GOLDEN


GOLDEN = [2, 30, 12, 19, 17, 11]


@given(**sizes)
def test_evaluation_holds_every_example_once(examples, batch):
  steps = order.num_eval_steps(examples, batch)
  found = [order.eval_indices(s, examples, batch) for s in range(steps)]
  indices = np.concatenate([i for i, _ in found])
  mask = np.concatenate([m for _, m in found])
  assert sorted(indices[mask]) == list(range(examples))
  assert ((indices >= 0) & (indices < examples)).all()
  assert all(len(i) == batch for i, _ in found)


def test_wrong_sizes():
  with pytest.raises(InputError, match="batch of 2 from 0"):
    order.step_indices(0, 1, 0, 2)
  with pytest.raises(InputError, match="batch of 0 from 3"):
    order.eval_indices(0, 3, 0)
  with pytest.raises(InputError, match="step -1"):
    order.step_indices(0, -1, 10, 2)
