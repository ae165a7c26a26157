"""Data order: complete, repeatable, independent of steps and processes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from input_pipeline import order
from input_pipeline.errors import InputError


@given(
  seed=st.integers(0, 2**31),
  examples=st.integers(1, 40),
  batch=st.integers(1, 50),
)
def test_every_epoch_holds_every_example_once(seed, examples, batch):
  epochs = 3
  steps = -(-epochs * examples // batch)
  flow = np.concatenate(
    [order.step_indices(seed, s, examples, batch) for s in range(steps)]
  )
  for epoch in range(epochs):
    part = flow[epoch * examples : (epoch + 1) * examples]
    assert sorted(part) == list(range(examples))


def test_batch_size_does_not_change_the_flow():
  def flow(batch, steps):
    return np.concatenate(
      [order.step_indices(5, s, 23, batch) for s in range(steps)]
    )

  np.testing.assert_array_equal(flow(6, 10), flow(15, 4))


def test_epochs_and_seeds_differ():
  first, second = (order.step_indices(0, step, 50, 50) for step in (0, 1))
  other = order.step_indices(1, 0, 50, 50)
  assert first.dtype == np.int64
  assert (first != second).any() and (first != other).any()


def test_golden_order():
  # Fixed for good: a resumed run, also with another numpy, continues it.
  assert order.step_indices(7, 3, 10, 6).tolist() == GOLDEN


GOLDEN = [0, 7, 6, 7, 8, 4]


@given(count=st.sampled_from([1, 2, 3, 4, 6, 12]))
def test_slices_concatenate_to_the_batch(count):
  batch = order.step_indices(1, 2, 30, 12)
  slices = [order.process_slice(batch, i, count) for i in range(count)]
  np.testing.assert_array_equal(np.concatenate(slices), batch)


def test_wrong_sizes():
  with pytest.raises(InputError, match="12 cannot be shared by 5"):
    order.process_slice(np.arange(12), 0, 5)
  with pytest.raises(InputError, match="process 2 of 2"):
    order.process_slice(np.arange(12), 2, 2)
  with pytest.raises(InputError, match="step -1"):
    order.step_indices(0, -1, 10, 2)
