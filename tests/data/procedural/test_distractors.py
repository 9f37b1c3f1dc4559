"""Rectangles, colors and blur that training videos get."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tapjax.data.procedural import distractors
from tapjax.types import Example

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures('quick_compilation'),
]

NOTHING = distractors.DistractorConfig(
    cover=0.0, replace=0.0, recolor=0.0, blur=0.0, largest_side=9
)
SIZE = (24, 32)


def make_example(num_frames=6, num_points=40):
  keys = jax.random.split(jax.random.key(1))
  points = jax.random.uniform(keys[0], (num_points, 1, 2), minval=0.5)
  points = points * jnp.asarray([30.0, 22]).reshape(1, 1, 2)
  points = jnp.repeat(points, num_frames, axis=1)
  frames = jnp.arange(num_points) % num_frames
  return Example(
      video=jax.random.uniform(keys[1], (num_frames, *SIZE, 3), minval=-1.0),
      query_points=jnp.concatenate(
          [frames[:, None].astype(float), jnp.flip(points[:, 0], axis=-1)], -1
      ),
      target_points=points,
      occluded=jnp.zeros((num_points, num_frames), bool),
  )


def distract(seed, **settings):
  example = make_example()
  config = dataclasses.replace(NOTHING, **settings)
  function = jax.jit(distractors.add_distractors, static_argnums=2)
  return example, function(jax.random.key(seed), example, config)


def test_nothing_is_changed_by_chance_of_zero():
  before, after = distract(0)
  jax.tree.map(np.testing.assert_array_equal, before, after)


@pytest.mark.parametrize('kind', ['cover', 'replace'])
def test_covered_points_are_hidden_and_no_others(kind):
  shares = []
  for seed in range(4):
    before, after = distract(seed, **{kind: 1.0})
    changed = np.asarray(jnp.any(before.video != after.video, axis=-1))
    # The first frame is left alone; all others get something.
    assert not changed[0].any()
    assert changed[1:].any(axis=(1, 2)).all()
    x, y = np.floor(np.asarray(before.target_points)).astype(int).T
    expected = changed[np.arange(6)[:, None], y, x].T
    np.testing.assert_array_equal(after.occluded, expected)
    shares.append(changed[1:].mean())
    # Queries are on frames that show them: their own, or the first such.
    own = np.asarray(before.query_points[:, 0]).astype(int)
    moved = expected[np.arange(len(own)), own]
    start = np.where(moved, np.argmin(expected, axis=1), own)
    np.testing.assert_array_equal(after.query_points[:, 0], start)
    assert moved.any()
    np.testing.assert_array_equal(
        after.query_points[:, 1:], before.query_points[:, 1:]
    )
  # Up to ten rectangles of up to nine pixels a side.
  assert 0.02 < np.mean(shares) < 0.5


def test_rectangles_have_one_color_or_that_of_another_frame():
  before, after = distract(3, cover=1.0, most_rectangles=1)
  for old, new in zip(before.video[1:], after.video[1:], strict=True):
    inside = np.asarray(jnp.any(old != new, axis=-1))
    rows, columns = np.nonzero(inside)
    assert inside[np.ix_(np.unique(rows), np.unique(columns))].all()
    colors = np.unique(np.asarray(new)[inside], axis=0)
    assert len(colors) == 1
    np.testing.assert_allclose(
        colors[0], np.asarray(old)[inside].mean(axis=0), atol=1e-5
    )
  before, after = distract(
      3,
      replace=1.0,
      most_rectangles=1,
      brightness=0.0,
      contrast=0.0,
      saturation=0.0,
      hue=0.0,
      smallest_side=3,
  )
  video = np.asarray(before.video)
  inside = np.any(video[2] != np.asarray(after.video[2]), axis=-1)
  rows, columns = (np.unique(axis) for axis in np.nonzero(inside))
  patch = np.asarray(after.video[2])[np.ix_(rows, columns)]
  windows = np.lib.stride_tricks.sliding_window_view(
      video, patch.shape[:2], axis=(1, 2)
  )
  differences = np.abs(np.moveaxis(windows, 3, -1) - patch).max((-3, -2, -1))
  assert differences.min() < 1e-5


def test_points_that_are_never_seen_begin_on_the_last_frame():
  example = make_example(3, 2)
  covered = jnp.ones((3, *SIZE), bool)
  hidden = distractors.hide_points(example, covered)
  assert hidden.occluded.all()
  np.testing.assert_array_equal(hidden.query_points[:, 0], 2)
  outside = example._replace(target_points=example.target_points + 99)
  same = distractors.hide_points(outside, covered)
  jax.tree.map(np.testing.assert_array_equal, same, outside)


def test_colors_of_frames():
  video = make_example().video
  one = jnp.ones(6)
  same = distractors.recolor_frames(video, one, one, one, 0 * one)
  np.testing.assert_allclose(same, video, atol=1e-6)
  # A third of a circle moves every channel to the next.
  turned = distractors.recolor_frames(video, one, one, one, one / 3)
  np.testing.assert_allclose(turned, jnp.roll(video, 1, axis=-1), atol=1e-5)
  gray = distractors.recolor_frames(video, one, one, 0 * one, 0.2 * one)
  np.testing.assert_allclose(gray[..., 0], gray[..., 2], atol=1e-5)
  flat = distractors.recolor_frames(video, one, 0 * one, one, 0 * one)
  assert np.ptp(np.asarray(flat), axis=(1, 2, 3)).max() < 1e-5
  dark = distractors.recolor_frames(video, one / 2, one, one, 0 * one)
  np.testing.assert_allclose((dark + 1) * 2, video + 1, atol=1e-5)
  _, after = distract(0, recolor=1.0)
  assert 0.05 < float(jnp.abs(after.video - video).mean()) < 0.5
  assert not after.occluded.any()


@pytest.mark.parametrize('deviation', [0.1, 1.3])
def test_blur_is_a_gaussian(deviation):
  video = make_example(2).video
  blurred = distractors.blur_frames(video, jnp.asarray(deviation))
  steps = np.arange(-5, 6)
  weights = np.exp(-np.square(steps / deviation) / 2)
  weights /= weights.sum()
  padded = np.pad(
      np.asarray(video), ((0, 0), (5, 5), (5, 5), (0, 0)), mode='reflect'
  )
  windows = np.lib.stride_tricks.sliding_window_view(padded, (11, 11), (1, 2))
  expected = np.einsum('thwcab,a,b->thwc', windows, weights, weights)
  np.testing.assert_allclose(blurred, expected, atol=1e-5)


@pytest.mark.parametrize(
    'settings',
    [{'cover': 2.0}, {'smallest_side': 0}, {'most_rectangles': 0}],
    ids=str,
)
def test_impossible_settings(settings):
  with pytest.raises(ValueError, match=next(iter(settings))):
    distractors.DistractorConfig(**settings)
