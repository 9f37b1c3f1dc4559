import threading

import pytest

from tapjax.data.read_ahead import read_ahead


@pytest.mark.parametrize('num_threads', [0, 1, 3])
def test_results_are_those_of_the_index(num_threads):
  """Indices may jump, as after a resume."""
  read = read_ahead(lambda index: index**2, num_threads)
  indices = [0, 1, 2, 3, 10, 11, 5, 5]
  assert [read(index) for index in indices] == [i**2 for i in indices]


def test_threads_read_what_comes_next():
  seen, both = [], threading.Event()

  def note(index):
    seen.append(index)
    if len(seen) == 3:
      both.set()
    return index

  read_ahead(note, 2)(7)
  assert both.wait(10)
  assert sorted(seen) == [7, 8, 9]


def test_errors_reach_who_asks():
  def fail(index):
    if index == 2:
      raise ValueError('two')
    return index

  read = read_ahead(fail, 2)
  assert [read(0), read(1)] == [0, 1]
  with pytest.raises(ValueError, match='two'):
    read(2)
  with pytest.raises(ValueError, match='at least 0'):
    read_ahead(fail, -1)
