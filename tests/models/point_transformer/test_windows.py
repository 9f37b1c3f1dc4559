"""Sets of points, windows, both directions of time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tapjax.models.point_transformer.windows import assign_sets
from tapjax.models.point_transformer.windows import sample_points
from tapjax.models.point_transformer.windows import track_set

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ('frames', 'sets'),
    [
        ([0, 0, 0], [[0, 1, 2]]),
        ([0, 0, 0, 0], [[0, 1, 2], [3, 4, 4]]),
        ([5, 0, 5, 1, 0, 5, 5], [[1, 4, 7], [3, 7, 7], [0, 2, 5], [6, 7, 7]]),
    ],
    ids=str,
)
def test_sets_are_of_one_frame_and_in_order(frames, sets):
  """Rows after the last belong to no point."""
  rows = jax.jit(assign_sets, static_argnums=1)(
      jnp.asarray(frames), 3, len(frames)
  )
  assert rows.shape == (len(frames), 3)
  np.testing.assert_array_equal(rows[: len(sets)], sets)
  assert (rows[len(sets) :] == len(frames)).all()


def list_windows_slowly(num_frames, query_frame, window):
  """Frames of each window that is needed, in both directions."""
  size = min(window, num_frames)
  for step, end in ((1, num_frames - 1), (-1, 0)):
    start = query_frame
    is_first = step > 0
    while is_first or start * step < end * step:
      frames = start + step * np.arange(size)
      yield np.clip(frames, 0, num_frames - 1), frames
      start = frames[-1]
      is_first = False
      if size == 1:
        break


@pytest.mark.parametrize(
    ('num_frames', 'query_frame', 'window'),
    [(1, 0, 4), (10, 0, 4), (11, 10, 4), (11, 5, 4), (6, 2, 8)],
)
def test_windows_begin_where_the_last_ended(num_frames, query_frame, window):
  """Here a point moves by what the frames show, summed over its window."""
  generator = np.random.default_rng(0)
  grids = generator.normal(size=(num_frames, 1, 1, 2)).astype(np.float32)
  start = np.float32([[0.25, 0.75], [0.5, 0.5]])

  def predict(samples, points):
    return points[None] + jnp.cumsum(samples, axis=0) + 1

  ours = jax.jit(
      lambda grids, points, frame: track_set(
          predict, window, grids, points, frame, num_frames
      )
  )(jnp.asarray(grids), jnp.asarray(start), jnp.asarray(query_frame))

  expected = {}
  points = start
  for inside, frames in list_windows_slowly(num_frames, query_frame, window):
    if frames[0] == query_frame:
      points = start
    # On a grid of one cell all points see the same, but what lies outside.
    samples = np.stack(
        [
            np.asarray(
                sample_points(
                    jnp.asarray(grids),
                    jnp.asarray([frame]),
                    jnp.asarray(points),
                )
            )[0]
            for frame in inside
        ]
    )
    positions = np.asarray(predict(samples, points))
    for frame, position in zip(frames, positions, strict=True):
      expected.setdefault(frame, position)
    points = positions[-1]
  for frame in range(num_frames):
    np.testing.assert_allclose(
        ours[frame], expected[frame], atol=1e-4, err_msg=str(frame)
    )


def test_coordinates_reach_from_the_first_cell_to_the_last():
  """And fade to zero one cell further out."""
  grids = jnp.arange(12.0).reshape(1, 3, 4, 1) + 1
  points = jnp.asarray(
      [[0, 0], [1, 1], [1, 0], [0.5, 0.5], [4 / 3, 1], [-1 / 6, 0], [9, -9]]
  )
  values = sample_points(grids, jnp.asarray([0]), points)
  np.testing.assert_allclose(
      values[0, :, 0], [1, 12, 4, 6.5, 0, 0.5, 0], atol=1e-5
  )
