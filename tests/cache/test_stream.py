"""Batches: every example, in order, each process its own, errors as ours."""

import threading

import ml_dtypes
import numpy as np
import pytest

from input_pipeline import order, schema, stream
from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig import builder
from tests.fixtures import swig_fixture


class CountingSource:
  """A source that remembers what was read, and may fail at an example."""

  def __init__(self, num_examples, broken=None):
    self.num_examples = num_examples
    self.broken = broken
    self.seen = []
    self.lock = threading.Lock()

  def read(self, indices):
    with self.lock:
      self.seen.extend(int(i) for i in indices)
    if self.broken in indices:
      raise InputError(f"example {self.broken} is broken", "mend it")
    tokens = np.arange(4).astype(ml_dtypes.bfloat16)
    return {
      schema.VERB: (indices * 10).astype(np.int32),
      schema.ROLE_MASK: np.tile(indices[:, None] % 2 == 0, (1, 6)),
      schema.STUDENT_TOKENS: indices[:, None].astype(tokens.dtype) + tokens,
    }


def _train(source, start=0, stop=7, **options):
  return list(
    stream.train_batches(
      source, seed=3, batch_size=8, start_step=start, num_steps=stop, **options
    )
  )


def _assert_same(left, right):
  assert len(left) == len(right)
  for a, b in zip(left, right, strict=True):
    assert set(a) == set(b)
    for key in a:
      assert a[key].dtype == b[key].dtype
      np.testing.assert_array_equal(a[key], b[key])


def test_training_follows_the_order():
  source = CountingSource(20)
  batches = _train(source)
  assert len(batches) == 7
  for step, batch in enumerate(batches):
    wanted = order.step_indices(3, step, 20, 8)
    assert batch[schema.INDEX].tolist() == wanted.tolist()
    assert batch[schema.VERB].tolist() == (wanted * 10).tolist()
    assert batch[schema.EXAMPLE_MASK].all()
    assert batch[schema.INDEX].dtype == np.int32
    assert batch[schema.ROLE_MASK].dtype == bool
    tokens = batch[schema.STUDENT_TOKENS]
    assert tokens.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(
      tokens.astype(np.float32), wanted[:, None] + np.arange(4)
    )


def test_resuming_is_the_tail_and_reads_nothing_earlier():
  whole = _train(CountingSource(20))
  source = CountingSource(20)
  tail = _train(source, start=4)
  _assert_same(tail, whole[4:])
  wanted = np.concatenate([order.step_indices(3, s, 20, 8) for s in (4, 5, 6)])
  assert sorted(source.seen) == sorted(wanted.tolist())


def test_parts_concatenate_to_the_batch():
  whole = _train(CountingSource(20))
  sources = [CountingSource(20), CountingSource(20)]
  parts = [
    _train(source, part=np.arange(8)[i::2]) for i, source in enumerate(sources)
  ]
  joined = [
    {key: np.stack([a[key], b[key]], axis=1).reshape(whole[0][key].shape)}
    for a, b in zip(*parts, strict=True)
    for key in a
  ]
  expected = [{key: batch[key]} for batch in whole for key in batch]
  _assert_same(joined, expected)
  # Each process read its own half and no more.
  assert [len(source.seen) for source in sources] == [28, 28]


def test_no_steps_left():
  assert _train(CountingSource(5), start=7) == []
  assert len(_train(CountingSource(5), start=6)) == 1


@pytest.mark.parametrize("examples", [1, 7, 8, 9, 21])
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_evaluation_sees_every_example_once(examples, processes):
  parts = [
    list(stream.eval_batches(CountingSource(examples), batch_size=8, part=part))
    for part in np.split(np.arange(8), processes)
  ]
  assert len({len(part) for part in parts}) == 1
  batches = [batch for part in parts for batch in part]
  assert all(len(b[schema.VERB]) == 8 // processes for b in batches)
  found = np.concatenate([b[schema.INDEX] for b in batches])
  mask = np.concatenate([b[schema.EXAMPLE_MASK] for b in batches])
  assert sorted(found[mask].tolist()) == list(range(examples))


def test_input_errors_come_out_as_they_are():
  broken = int(order.step_indices(3, 5, 100, 8)[2])
  batches = stream.train_batches(
    CountingSource(100, broken=broken),
    seed=3,
    batch_size=8,
    start_step=0,
    num_steps=9,
  )
  for _ in range(5):
    next(batches)
  with pytest.raises(InputError, match=f"example {broken} is broken"):
    next(batches)


def test_error_in_the_first_batch():
  with pytest.raises(InputError, match="example 0 is broken"):
    list(stream.eval_batches(CountingSource(9, broken=0), batch_size=4))


def test_wrong_sizes_complain_at_once():
  source = CountingSource(9)
  with pytest.raises(InputError, match="start step"):
    stream.train_batches(
      source, seed=0, batch_size=2, start_step=-1, num_steps=2
    )
  with pytest.raises(InputError, match="no batch of 4 from 0"):
    stream.eval_batches(CountingSource(0), batch_size=4)
  assert source.seen == []


@pytest.fixture(scope="module")
def split(tmp_path_factory):
  root = tmp_path_factory.mktemp("stream")
  folder = swig_fixture.write(root / "swig", per_verb=2)
  return builder.prepare(folder, root / "data").split("dev")


def test_image_batches(split):
  batches = list(stream.image_batches(split, sizes=(16, 32), batch_size=5))
  assert len(batches) == 3 and len(split) == 12
  for number, batch in enumerate(batches):
    wanted = [i if i < 12 else 0 for i in range(number * 5, number * 5 + 5)]
    assert batch.index.tolist() == wanted
    assert sorted(batch.pixels) == [16, 32]
    for size, pixels in batch.pixels.items():
      np.testing.assert_array_equal(pixels, split.letterboxed(wanted, size))
  assert batches[-1].example_mask.tolist() == [True] * 2 + [False] * 3


def test_image_batches_of_some(split):
  (batch,) = stream.image_batches(
    split, sizes=(16, 16), batch_size=4, indices=[7, 2]
  )
  assert batch.index.tolist() == [7, 2, 7, 7]
  assert batch.example_mask.tolist() == [True, True, False, False]


def test_an_image_split_is_a_source(split):
  batches = list(stream.eval_batches(split, batch_size=5))
  for batch in batches:
    schema.validate(batch, schema.ANNOTATIONS)
  verbs = np.concatenate([b[schema.VERB] for b in batches])[: len(split)]
  np.testing.assert_array_equal(verbs, split.annotations()[schema.VERB])
