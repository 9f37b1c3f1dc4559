"""Prefetching of items in threads."""

from collections.abc import Callable
from concurrent import futures
from typing import TypeVar

Item = TypeVar('Item')


def read_ahead(
    read: Callable[[int], Item], num_threads: int
) -> Callable[[int], Item]:
  """Returns `read` with prefetching for indices in ascending order.

  Each thread reads one item, so `num_threads` items are held; zero disables
  prefetching. The result of `read` must depend on the index alone, so that
  threads change the time only. Raises ValueError for negative `num_threads`.
  """
  if num_threads < 0:
    raise ValueError(f'num_threads must be at least 0; got {num_threads}')
  if not num_threads:
    return read
  executor = futures.ThreadPoolExecutor(num_threads)
  pending: dict[int, futures.Future[Item]] = {}

  def get(index: int) -> Item:
    wanted = range(index, index + num_threads + 1)
    for other in [other for other in pending if other not in wanted]:
      pending.pop(other).cancel()
    for other in wanted:
      if other not in pending:
        pending[other] = executor.submit(read, other)
    return pending.pop(index).result()

  return get
