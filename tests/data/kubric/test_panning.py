"""Augmentation by a panning and zooming camera, and by mirroring."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tapjax.data.kubric import panning
from tapjax.types import Example

pytestmark = pytest.mark.usefixtures('quick_compilation')

HEIGHT, WIDTH, NUM_FRAMES = 40, 60, 5
STILL = panning.PanningConfig(
    largest_padding=0,
    smallest_zoom=1.0,
    largest_zoom=1.0,
    zoom_change=0.0,
    drift=0.0,
    flip=0.0,
)


def make_example():
  """A video whose colors encode the position of a pixel: x, y and frame."""
  x = (jnp.arange(WIDTH) + 0.5) / WIDTH
  y = (jnp.arange(HEIGHT) + 0.5) / HEIGHT
  frame = jnp.stack(
      [
          jnp.broadcast_to(x[None], (HEIGHT, WIDTH)),
          jnp.broadcast_to(y[:, None], (HEIGHT, WIDTH)),
          jnp.ones((HEIGHT, WIDTH)),
      ],
      axis=-1,
  )
  generator = np.random.default_rng(0)
  points = generator.uniform([2, 2], [58, 38], (30, 1, 2)).astype(np.float32)
  points = np.repeat(points, NUM_FRAMES, axis=1)
  frames = np.arange(30) % NUM_FRAMES
  return Example(
      video=jnp.repeat(frame[None], NUM_FRAMES, axis=0),
      query_points=jnp.asarray(
          np.concatenate(
              [frames[:, None], points[:, 0, ::-1]], axis=-1, dtype=np.float32
          )
      ),
      target_points=jnp.asarray(points),
      occluded=jnp.zeros((30, NUM_FRAMES), bool),
  )


def pan(seed, config):
  example = make_example()
  pan_example = jax.jit(panning.pan_example, static_argnums=2)
  return example, pan_example(jax.random.key(seed), example, config)


def read_colors(video, points):
  """Interpolates a video at points (x, y)."""
  x, y = np.clip(points - 0.5, 0, [WIDTH - 1.001, HEIGHT - 1.001]).T
  left, top = np.floor(x).astype(int), np.floor(y).astype(int)
  right, down = (x - left)[:, None], (y - top)[:, None]
  upper = (1 - right) * video[top, left] + right * video[top, left + 1]
  lower = (1 - right) * video[top + 1, left] + right * video[top + 1, left + 1]
  return (1 - down) * upper + down * lower


@pytest.mark.parametrize('seed', range(4))
def test_points_keep_their_colors(seed):
  """After padding, zoom, drift and mirroring, to a tenth of a pixel."""
  config = panning.PanningConfig(largest_padding=8, zoom_change=0.2, drift=4.0)
  before, after = pan(seed, config)
  assert (np.asarray(after.target_points != before.target_points)).any()
  colors = np.asarray(before.target_points[:, 0]) / [WIDTH, HEIGHT]
  compared = 0
  for t in range(NUM_FRAMES):
    points = np.asarray(after.target_points[:, t])
    inside = ((points > 1) & (points < [WIDTH - 1, HEIGHT - 1])).all(axis=1)
    read = read_colors(np.asarray(after.video[t]), points[inside])
    limit = 0.1 / HEIGHT
    np.testing.assert_allclose(read[:, :2], colors[inside], atol=limit)
    compared += inside.sum()
  assert compared > 20


@pytest.mark.parametrize('seed', range(3))
def test_outside_is_occluded_and_queries_are_on_their_points(seed):
  config = panning.PanningConfig(largest_zoom=1.5, smallest_zoom=1.5, drift=9.0)
  _, after = pan(seed, config)
  points = np.asarray(after.target_points)
  outside = ((points < 0) | (points > [WIDTH, HEIGHT])).any(axis=-1)
  assert outside.any()
  np.testing.assert_array_equal(after.occluded, outside)
  for (t, y, x), track, hidden in zip(
      np.asarray(after.query_points), points, outside, strict=True
  ):
    np.testing.assert_allclose(track[int(t)], [x, y], atol=1e-4)
    assert not hidden[int(t)] or hidden.all()
    assert not hidden.all() or t == NUM_FRAMES - 1


def test_what_was_no_frame_is_black():
  """For frames smaller than the crop and its spare pixels."""
  config = dataclasses.replace(STILL, largest_padding=30)
  shares = []
  for seed in range(6):
    _, after = pan(seed, config)
    blue = np.asarray(after.video[..., 2])
    # Frames are white in blue; between the two, edges are a pixel wide.
    shares.append((blue < -0.99).mean())
    assert ((blue < -0.99) | (blue > 0.99)).mean() > 0.85
  assert max(shares) > 0.02


def test_the_camera_drifts_smoothly():
  """The first crop is centered on the visible points."""
  example = make_example()
  config = panning.PanningConfig(
      smallest_zoom=1.5, largest_zoom=2.0, largest_padding=0
  )
  seen = example.occluded.at[1:, 0].set(True)
  middle = np.asarray([30.0, 20.0], np.float32)
  example = example._replace(
      occluded=seen,
      target_points=example.target_points.at[0].set(middle[None]),
  )
  draw_camera = jax.jit(panning.draw_camera, static_argnums=2)
  for seed in range(5):
    camera = draw_camera(jax.random.key(seed), example, config)
    start = middle * camera.zoom[0] - camera.corner[0]
    np.testing.assert_allclose(start, middle, atol=1.01)
    zoom = np.asarray(camera.zoom)
    assert (zoom > 1.4).all()
    # A fifth of the largest change at most, and rounding to whole pixels.
    assert np.abs(np.diff(zoom, axis=0)).max() < 0.05 + 1 / HEIGHT


def test_a_mirror_twice_is_no_mirror():
  example = make_example()
  flips = jnp.asarray([True, True])
  once = panning.flip_example(example, flips)
  np.testing.assert_array_equal(once.video, example.video[:, ::-1, ::-1])
  np.testing.assert_allclose(
      once.target_points,
      np.asarray([WIDTH, HEIGHT]) - np.asarray(example.target_points),
      rtol=1e-6,
  )
  twice = panning.flip_example(once, flips)
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), twice, example
  )


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'smallest_zoom': 2.0}, 'smallest_zoom must be positive'),
        ({'drift': -1.0}, 'drift must be at least 0'),
        ({'flip': 1.5}, 'flip must be a probability'),
    ],
    ids=str,
)
def test_settings_that_cannot_be(changes, message):
  with pytest.raises(ValueError, match=message):
    panning.PanningConfig(**changes)
