"""Tracks of the demo clip, against its pictures and brute force."""

import numpy as np
import pytest

from tapjax.data.procedural import demo
from tapjax.types import Tracks

RESOLUTION = (256, 256)


@pytest.fixture(scope='module')
def clip():
  return demo.make_demo_clip()


def find_layer(layers, x, y, time):
  """Returns the nearest layer at a pixel position, and its point."""
  for depth in reversed(range(len(layers))):
    center, matrix = demo.compute_pose(layers[depth], time, RESOLUTION)
    point = np.linalg.inv(matrix) @ (np.array([x, y]) - center)
    if demo.measure_inside(layers[depth], point[np.newaxis])[0] > 0:
      return depth, point
  raise AssertionError


def mark_texture(layer, point):
  """Adds a soft spot at a point of the plane, dark on bright ground."""
  size = layer.texture.shape[0]
  grid = np.indices((size, size))[::-1].transpose(1, 2, 0) / 2
  offset = (grid - point + size / 4) % (size / 2) - size / 4
  spot = 50 * np.exp(-np.square(offset).sum(-1) / 4)[..., np.newaxis]
  if np.average(layer.texture.mean(-1), weights=spot[..., 0]) > 128:
    spot = -spot
  return layer._replace(texture=(layer.texture + spot).astype(np.float32))


def test_clip_is_what_it_promises(clip):
  assert clip.frames.shape == (48, 256, 256, 3)
  assert 30 <= len(clip.query_points) <= 40
  assert clip.target_points.shape == (len(clip.query_points), 48, 2)
  assert 0.1 < clip.occluded.mean() < 0.5
  assert (clip.query_points[:, 0] > 0).sum() >= 9
  assert (clip.query_points[:, 0] == 0).sum() >= 9


def test_queries_are_visible_and_on_their_track(clip):
  for (time, y, x), target, occluded in zip(
      clip.query_points, clip.target_points, clip.occluded, strict=True
  ):
    np.testing.assert_allclose(target[int(time)], [x, y], rtol=1e-6)
    assert not occluded[int(time)]


@pytest.mark.slow
def test_marked_texture_is_seen_at_the_true_position_or_not_at_all(clip):
  layers = demo.make_layers(RESOLUTION)
  seen = hidden = 0
  for row in range(0, len(clip.query_points), 3):
    time, y, x = clip.query_points[row]
    depth, point = find_layer(layers, x, y, int(time))
    marked = list(layers)
    marked[depth] = mark_texture(layers[depth], point)
    _, clearance = demo.trace_point(layers, depth, point, 48, RESOLUTION)
    for frame in range(0, 48, 6):
      x, y = clip.target_points[row, frame]
      if not (8 < x < 248 and 8 < y < 248) or abs(clearance[frame]) < 8:
        continue  # The spot is cut by a border or an outline.
      picture = demo.render_frame(tuple(marked), frame, RESOLUTION)
      change = (picture.astype(float) - clip.frames[frame]).sum(-1)
      top, left = int(y) - 7, int(x) - 7
      change = change[top : top + 15, left : left + 15]
      if clip.occluded[row, frame]:
        hidden += 1
        assert not change.any()
      else:
        seen += 1
        rows, columns = np.indices(change.shape) + 0.5
        weight = change / change.sum()
        assert left + (weight * columns).sum() == pytest.approx(x, abs=0.1)
        assert top + (weight * rows).sum() == pytest.approx(y, abs=0.1)
  assert seen >= 15
  assert hidden >= 3


def test_occlusion_agrees_with_brute_force(clip):
  """Occluded positions show another layer, or are outside of the frame."""
  layers = demo.make_layers(RESOLUTION)
  for row, (time, y, x) in enumerate(clip.query_points):
    own, point = find_layer(layers, x, y, int(time))
    for frame in range(48):
      x, y = clip.target_points[row, frame].astype(float)
      outside = not (0 < x < 256 and 0 < y < 256)
      covered = outside or find_layer(layers, x, y, frame)[0] != own
      assert covered == clip.occluded[row, frame]
      if not covered:
        # It is the very same point of the plane.
        np.testing.assert_allclose(
            find_layer(layers, x, y, frame)[1], point, atol=1e-3
        )


def test_clip_is_the_same_every_time_and_longer_ones_go_on(clip):
  again = demo.make_demo_clip(num_frames=8)
  np.testing.assert_array_equal(again.frames, clip.frames[:8])


@pytest.mark.parametrize(
    ('num_frames', 'resolution'), [(1, (256, 256)), (3, (64, 100))]
)
def test_other_lengths_and_sizes(num_frames, resolution):
  clip = demo.make_demo_clip(num_frames, resolution)
  assert clip.frames.shape == (num_frames, *resolution, 3)
  assert len(clip.query_points) >= 12
  assert (clip.query_points[:, 1:] < resolution).all()
  assert (clip.query_points >= 0).all()


def test_pictures_are_free_of_aliasing():
  """Four times as many samples per pixel give almost the same picture."""
  layers = demo.make_layers(RESOLUTION)
  once = demo.render_frame(layers, 20, (256, 256)).astype(float)
  fine = demo.render_frame(layers, 20, (512, 512)).astype(float)
  fine = fine.reshape(256, 2, 256, 2, 3).mean(axis=(1, 3))
  assert np.abs(once - fine).mean() < 2
  assert np.quantile(np.abs(once - fine), 0.99) < 12


def test_sizes_that_cannot_be():
  with pytest.raises(ValueError, match='num_frames must be at least 1'):
    demo.make_demo_clip(num_frames=0)
  with pytest.raises(ValueError, match=r'resolution at least \(32, 32\)'):
    demo.make_demo_clip(resolution=(8, 256))


def test_error_is_that_of_the_tracks():
  clip = demo.make_demo_clip(8)
  shifted = clip.target_points + np.asarray([3.0, 0.0], np.float32)
  text = demo.describe_error(clip, Tracks(shifted, ~clip.occluded, None, None))
  assert 'median error 3.00 px' in text
  assert '100% within 4 px' in text
  assert 'right in 100%' in text
  wrong = demo.describe_error(
      clip, Tracks(clip.target_points + 5, clip.occluded, None, None)
  )
  assert '0% within 4 px' in wrong
  assert 'right in 0%' in wrong
