"""Shapes of programs: chunks are even, and few lengths waste little."""

import itertools

import numpy as np
import pytest

from tapjax.tracking import shapes
from tests.support.small_trackers import make_tracker


def list_all_lengths(lengths, most):
  """Every choice, the slow and obvious way."""
  distinct = sorted(set(lengths))
  for size in range(1, most + 1):
    for chosen in itertools.combinations(distinct, size):
      if chosen[-1] == distinct[-1]:
        yield chosen


def count_padded(lengths, chosen):
  return sum(min(c for c in chosen if c >= length) for length in lengths)


@pytest.mark.parametrize('seed', range(5))
def test_lengths_waste_least(seed):
  generator = np.random.default_rng(seed)
  lengths = generator.integers(3, 60, size=12).tolist()
  chosen = shapes.choose_lengths(lengths, 3)
  assert len(chosen) <= 3
  best = min(
      count_padded(lengths, other) for other in list_all_lengths(lengths, 3)
  )
  assert count_padded(lengths, chosen) == best


def test_few_lengths_are_kept():
  assert shapes.choose_lengths([5, 9, 5]) == (5, 9)


@pytest.mark.parametrize(
    ('name', 'num_queries', 'devices', 'asked', 'is_round', 'chunk'),
    [
        ('tapnet', 100, 1, None, False, 50),
        ('tapnet', 100, 4, None, False, 25),
        ('tapnet', 7, 1, 4, False, 4),
        ('tapnet', 9, 1, None, True, 16),
        ('taptrv2', 100, 4, None, False, 100),
        ('taptrv2', 5, 1, 3, False, 3),
        ('tapnet', 5, 1, 2**62, False, 5),
    ],
    ids=str,
)
def test_chunks_of_queries(name, num_queries, devices, asked, is_round, chunk):
  functions = make_tracker(name).functions
  assert (
      shapes.choose_query_chunk(
          functions, 50, num_queries, devices, asked, is_round=is_round
      )
      == chunk
  )


def test_chunks_of_frames_are_even():
  tapir, tapnet = (make_tracker(name).functions for name in ('tapir', 'tapnet'))
  assert shapes.choose_frame_chunk(tapir, 9, None) == 3
  assert shapes.choose_frame_chunk(tapir, 9, 100) == 9
  # Frames of context are encoded twice, so chunks are long.
  assert shapes.choose_frame_chunk(tapnet, 72, None) == 32


def test_bytes_of_arrays_and_shapes():
  arrays = {'a': np.zeros((2, 3), np.float32), 'b': np.zeros(5, bool)}
  assert shapes.count_bytes(arrays) == 29
