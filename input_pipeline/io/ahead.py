"""Reads ahead on threads: the results in order, a few items in memory."""

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
  function: Callable[[Item], Result],
  items: Iterable[Item],
  threads: int,
  ahead: int | None = None,
) -> Iterator[Result]:
  """Applies a function to items on threads, some items before they are due.

  Nothing starts before the first result is asked for. What has not started
  when the iterator is closed never starts.

  Args:
    function: waits for the disk or decodes, so that threads help.
    items: read one by one.
    threads: at most so many calls at a time.
    ahead: items that are begun before the first result is taken, or later
      before the next; as many as threads, if not given.

  Yields:
    The results in the order of the items; what a call raised, in its place.
  """
  most = ahead or threads
  pending: collections.deque[futures.Future] = collections.deque()
  with futures.ThreadPoolExecutor(threads) as pool:
    try:
      for item in items:
        pending.append(pool.submit(function, item))
        if len(pending) > most:
          yield pending.popleft().result()
      while pending:
        yield pending.popleft().result()
    finally:
      for future in pending:
        future.cancel()
