"""Reading ahead: order, how far, and what is left when it stops."""

import contextlib
import threading
import time

import pytest

from input_pipeline.io import ahead


def test_results_come_in_order_whichever_is_ready_first():
  def slow_first(item):
    time.sleep(0.02 * (5 - item))
    return item * item

  assert list(ahead.in_order(slow_first, range(5), 5)) == [0, 1, 4, 9, 16]
  assert list(ahead.in_order(slow_first, [], 2)) == []


@pytest.mark.parametrize("most", [1, 3])
def test_it_begins_no_more_than_asked(most):
  begun = []

  def note(item):
    begun.append(item)
    return item

  results = ahead.in_order(note, iter(range(50)), 1, ahead=most)
  assert not begun
  assert next(results) == 0
  time.sleep(0.05)
  assert len(begun) == most + 1
  assert list(results) == list(range(1, 50))


def test_an_error_has_its_place_and_the_rest_is_dropped():
  def fails_at_two(item):
    if item == 2:
      raise KeyError(item)
    return item

  results = ahead.in_order(fails_at_two, range(9), 2)
  assert [next(results), next(results)] == [0, 1]
  with pytest.raises(KeyError):
    next(results)
  with pytest.raises(StopIteration):
    next(results)


def test_closing_waits_for_what_runs_and_starts_nothing_more():
  begun, may_end = [], threading.Event()

  def wait(item):
    begun.append(item)
    assert item == 0 or may_end.wait(5)
    return item

  with contextlib.closing(ahead.in_order(wait, range(9), 1, ahead=4)) as it:
    assert next(it) == 0
    may_end.set()
  assert len(begun) <= 3
