"""The overlay: where strokes land, what they look like, what they leave be."""

import numpy as np
import pytest

from tapjax.types import Tracks
from tapjax.visualization import draw_tracks
from tapjax.visualization import iterate_overlay
from tapjax.visualization import make_track_colors


def make_tracks(positions, visible=None):
  positions = np.asarray(positions, np.float32)
  if visible is None:
    visible = np.ones(positions.shape[:2], bool)
  return Tracks(positions, np.asarray(visible, bool), None, None)


def make_random_tracks(num, num_frames, height, width):
  rng = np.random.default_rng(0)
  start = rng.uniform(0, 1, (num, 1, 2)) * [width, height]
  steps = rng.normal(0, 3, (num, num_frames, 2))
  return make_tracks(
      start + steps.cumsum(1), rng.random((num, num_frames)) > 0.2
  )


def measure_change(before, after):
  """The total change and its centroid (x, y)."""
  change = np.abs(after.astype(float) - before).sum(-1)
  rows, columns = np.indices(change.shape) + 0.5
  total = change.sum()
  return total, (change * columns).sum() / total, (change * rows).sum() / total


GRAY = np.full((1, 60, 80, 3), 128, np.uint8)
WHITE = np.full((1, 3), 255, np.uint8)


@pytest.mark.parametrize(
    ('x', 'y'), [(40.5, 30.5), (40.0, 30.0), (33.3, 27.85), (20.75, 41.1)]
)
@pytest.mark.parametrize('visible', [True, False])
@pytest.mark.parametrize('level', [0, 255], ids=['fill', 'outline'])
def test_points_are_centered_on_their_position(x, y, visible, level):
  # White on black shows the fill alone, white on white the outline alone.
  frames = np.full_like(GRAY, level)
  drawn = draw_tracks(
      frames, make_tracks([[[x, y]]], [[visible]]), colors=WHITE
  )
  _, center_x, center_y = measure_change(frames[0], drawn[0])
  assert center_x == pytest.approx(x, abs=0.05)
  assert center_y == pytest.approx(y, abs=0.05)


@pytest.mark.parametrize('end', [(52.0, 33.4), (41.3, 12.0), (12.5, 9.25)])
def test_a_tail_lies_along_its_segment(end):
  start = np.array([32.6, 29.3])
  frames = np.zeros_like(np.concatenate([GRAY, GRAY]))
  tracks = make_tracks([[start, end]])
  with_tail = draw_tracks(frames, tracks, tail=1000, colors=WHITE)[1, ..., 0]
  without = draw_tracks(frames, tracks, tail=0, colors=WHITE)[1, ..., 0]
  weights = np.where(without == 0, with_tail, 0).astype(float)
  rows, columns = np.nonzero(weights)
  weights = weights[rows, columns]
  offset = np.stack([columns, rows], axis=-1) + 0.5 - start
  direction = (np.array(end) - start) / np.hypot(*(np.array(end) - start))
  along = offset @ direction
  across = offset[:, 0] * direction[1] - offset[:, 1] * direction[0]
  assert np.average(across, weights=weights) == pytest.approx(0, abs=0.05)
  assert np.abs(across).max() < 2
  assert along.min() == pytest.approx(0, abs=2)
  assert np.diff(np.sort(along)).max() < 1.5


def test_hidden_points_are_hollow_and_fainter():
  position = [[[40.5, 30.5]]]
  colors = np.array([[255, 0, 0]], np.uint8)
  dot = draw_tracks(GRAY, make_tracks(position), colors=colors)[0]
  ring = draw_tracks(GRAY, make_tracks(position, [[False]]), colors=colors)[0]
  assert dot[30, 40].tolist() == [255, 0, 0]
  assert ring[30, 40, 0] < 200
  assert measure_change(GRAY[0], ring)[0] < measure_change(GRAY[0], dot)[0]


def test_tails_join_visible_positions_only():
  frames = np.repeat(GRAY, 4, axis=0)
  positions = [[[10.5, 30.5], [30.5, 30.5], [50.5, 30.5], [70.5, 30.5]]]
  visible = [[True, True, False, True]]
  drawn = draw_tracks(frames, make_tracks(positions, visible))[3]
  changed = (drawn != GRAY[0]).any(-1)[30]
  assert changed[15:30].all()
  assert not changed[35:65].any()


def test_tails_end_after_so_many_positions():
  frames = np.repeat(GRAY, 6, axis=0)
  positions = [[[10.5 + 10 * step, 30.5] for step in range(6)]]
  drawn = draw_tracks(frames, make_tracks(positions), tail=2)[5]
  changed = (drawn != GRAY[0]).any(-1)[30]
  assert not changed[:38].any()
  assert changed[48:60].all()


@pytest.mark.parametrize('level', [0, 255])
def test_points_stand_out_on_black_and_on_white(level):
  frames = np.full((1, 60, 80, 3), level, np.uint8)
  for color in make_track_colors(12):
    drawn = draw_tracks(
        frames, make_tracks([[[40.5, 30.5]]]), colors=color[np.newaxis]
    )
    contrast = np.abs(drawn.astype(int) - level).max(axis=(1, 2, 3))
    assert contrast > 100


def test_a_track_keeps_its_color():
  positions = np.stack([np.linspace([10.5, 30.5], [70.5, 30.5], 7)], axis=0)
  drawn = draw_tracks(np.repeat(GRAY, 7, axis=0), make_tracks(positions))
  color = make_track_colors(1)[0]
  for frame, (x, y) in zip(drawn, positions[0].astype(int), strict=True):
    np.testing.assert_array_equal(frame[y, x], color)


def test_colors_are_the_same_for_ever_and_far_apart():
  colors = make_track_colors(64)
  np.testing.assert_array_equal(make_track_colors(16), colors[:16])
  steps = np.abs(np.diff(colors.astype(int), axis=0)).sum(-1)
  assert steps.min() > 100
  assert len(np.unique(colors, axis=0)) == 64
  assert make_track_colors(0).shape == (0, 3)


def test_input_is_not_modified():
  frames = np.repeat(GRAY, 5, axis=0)
  frames.flags.writeable = False
  tracks = make_random_tracks(9, 5, 60, 80)
  before = tracks.positions.copy()
  assert (draw_tracks(frames, tracks) != frames).any()
  np.testing.assert_array_equal(tracks.positions, before)


def test_streaming_draws_the_same_frames():
  frames = np.repeat(GRAY, 5, axis=0)
  tracks = make_random_tracks(9, 5, 60, 80)
  streamed = list(iterate_overlay(iter(frames), tracks, tail=3))
  np.testing.assert_array_equal(streamed, draw_tracks(frames, tracks, tail=3))


def test_many_tracks_in_chunks_draw_the_same(monkeypatch):
  frames = np.repeat(GRAY, 4, axis=0)
  tracks = make_random_tracks(50, 4, 60, 80)
  whole = draw_tracks(frames, tracks)
  monkeypatch.setattr('tapjax.visualization.overlay._CHUNK', 7)
  np.testing.assert_array_equal(draw_tracks(frames, tracks), whole)


@pytest.mark.parametrize('size', [(1, 1), (4000, 20), (3, 500)])
def test_any_frame_size(size):
  frames = np.full((3, *size, 3), 90, np.uint8)
  drawn = draw_tracks(frames, make_random_tracks(20, 3, *size))
  assert (drawn != frames).any()


@pytest.mark.parametrize(
    'bad', [(np.nan, 5), (np.inf, 5), (-np.inf, np.nan), (1e30, -1e30)]
)
def test_positions_far_out_or_not_finite_are_harmless(bad):
  frames = np.repeat(GRAY, 3, axis=0)
  there = [[(40.5, 30.5), bad, (20.5, 10.5)]]
  drawn = draw_tracks(frames, make_tracks(there))
  assert (drawn[0] != GRAY[0]).any()
  if not np.isfinite(bad).all():
    np.testing.assert_array_equal(drawn[1, :5, :5], GRAY[0, :5, :5])


def test_points_outside_leave_the_frame_alone():
  drawn = draw_tracks(GRAY, make_tracks([[[-30.0, 20.0]], [[95.0, 70.0]]]))
  np.testing.assert_array_equal(drawn, GRAY)


def test_no_tracks_and_no_frames():
  np.testing.assert_array_equal(
      draw_tracks(GRAY, make_tracks(np.zeros((0, 1, 2)))), GRAY
  )
  assert draw_tracks(GRAY[:0], make_tracks(np.zeros((2, 0, 2)))).shape[0] == 0


@pytest.mark.parametrize('num_frames', [1, 3])
def test_frames_and_tracks_must_be_as_long(num_frames):
  tracks = make_random_tracks(2, 2, 60, 80)
  with pytest.raises(ValueError, match='frames must be as many'):
    list(iterate_overlay(np.repeat(GRAY, num_frames, axis=0), tracks))


def test_bad_arguments_are_named():
  tracks = make_random_tracks(2, 1, 60, 80)
  with pytest.raises(ValueError, match='tail must be'):
    iterate_overlay(GRAY, tracks, tail=-1)
  with pytest.raises(ValueError, match=r'colors must be uint8 \[2, 3\]'):
    iterate_overlay(GRAY, tracks, colors=np.zeros((3, 3), np.uint8))
  with pytest.raises(ValueError, match='frame 0 is float64'):
    list(iterate_overlay(GRAY / 255, tracks))
