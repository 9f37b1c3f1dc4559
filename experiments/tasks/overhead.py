"""Overhead of evaluation over bare calls: padding, chunks and few programs.

Videos of different lengths and numbers of queries are tracked as in evaluation,
and then each by a program compiled for exactly its shape.
"""

from collections.abc import Callable
import time

import jax
import numpy as np

from experiments.tasks import benchmark as speed
import tapjax
from tapjax import tables
from tapjax.evaluation import methods
from tapjax.geometry import sample_random_points
from tapjax.models import arrows
from tapjax.tracker import Tracker
from tapjax.tracking import shapes
from tapjax.types import Tracks

# Frames and queries of the videos.
_SHAPES = ((24, 10), (31, 25), (40, 18), (47, 40), (55, 32))
_CALLS = 3
_COLUMNS = ('preset', 'videos', 'programs', 'evaluation_s', 'bare_s', 'ratio')


def run() -> None:
  """Prints a row for each model."""
  rows = map(_make_row, speed.MODELS.value)
  tables.write_table(_COLUMNS, rows, num_rows=len(speed.MODELS.value))


def _make_row(model: str) -> tuple[str | int, ...]:
  count, padded, bare = measure(speed.make_random_tracker(model))
  times = (f'{padded:.3g}', f'{bare:.3g}', f'{padded / bare:.2f}')
  return model, len(_SHAPES), count, *times


def measure(tracker: Tracker) -> tuple[int, float, float]:
  """Returns the number of programs, and seconds per video of both ways."""
  generator = np.random.default_rng(0)
  resolution = tracker.functions.resolution
  clips = [
      methods.Clip(
          generator.integers(
              256, size=(num_frames, *resolution, 3), dtype='u1'
          ),
          sample_random_points(generator, num_frames, resolution, num_queries),
      )
      for num_frames, num_queries in _SHAPES
  ]
  lengths = shapes.choose_lengths([len(clip.frames) for clip in clips])
  method = methods.make_method(tracker, jax.local_devices()[:1])
  call = _make_bare_call(tracker)

  def evaluate(clip: methods.Clip) -> None:
    length = min(length for length in lengths if length >= len(clip.frames))
    method.track(clip, length)

  with tapjax.count_compilations() as compilations:
    for clip in clips:
      evaluate(clip)
  for clip in clips:
    call(clip)
  # The machine may be shared: calls take turns, and the best of each counts.
  padded, bare = [], []
  for clip in clips:
    seconds = [
        (_time(evaluate, clip), _time(call, clip)) for _ in range(_CALLS)
    ]
    best, best_bare = np.min(seconds, axis=0)
    padded.append(best)
    bare.append(best_bare)
  return compilations.count, float(np.mean(padded)), float(np.mean(bare))


def _make_bare_call(
    tracker: Tracker,
) -> Callable[[methods.Clip], Tracks]:
  """Returns the stage functions as one program, compiled for each shape."""
  functions = tracker.functions

  @jax.jit
  def track(params, frames, query_points):
    points = query_points[None]
    features = arrows.encode_segment(functions, params, frames[None])
    queries = arrows.describe_queries(functions, params, features, points)
    return arrows.track_segment(
        functions, params, features, queries, points
    ).tracks

  def call(clip: methods.Clip) -> Tracks:
    return jax.block_until_ready(track(tracker.params, *clip))

  return call


def _time(call: Callable[[methods.Clip], object], clip: methods.Clip) -> float:
  start = time.perf_counter()
  call(clip)
  return time.perf_counter() - start
