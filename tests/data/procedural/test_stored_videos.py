"""Stored videos: pixels of drawn clips agree with their points."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tapjax import parallel
from tapjax.data.procedural.stored_videos import develop_clip
from tapjax.data.procedural.stored_videos import draw_clip
from tapjax.data.procedural.stored_videos import make_stored_draw
from tapjax.data.procedural.stored_videos import read_stored_video
from tapjax.data.procedural.stored_videos import StoredConfig
from tapjax.data.procedural.stored_videos import StoredVideo
from tapjax.data.procedural.stored_videos import write_stored_videos
from tapjax.ops.sampling import read_at_time
from tests.support.narrow import SCENE

HEIGHT, WIDTH, FRAMES, POINTS = 32, 32, 6, 40
CONFIG = StoredConfig(
    batch_size=2,
    num_frames=4,
    longest_step=2,
    resolution=(24, 20),
    recolor=False,
    num_points=16,
)
KINDS = {
    'consecutive': CONFIG,
    'drifting': dataclasses.replace(CONFIG, drift_zoom=0.6, drift_turn=1.8),
    'scattered': dataclasses.replace(CONFIG, frames='scattered'),
}


def make_stored(seed=0):
  """A video whose colors encode time and position, with random points."""
  generator = np.random.default_rng(seed)
  t, y, x = np.meshgrid(
      np.arange(FRAMES) * 40,
      np.arange(HEIGHT) * 6,
      np.arange(WIDTH) * 6,
      indexing='ij',
  )
  targets = generator.uniform(0.5, 31.5, (POINTS, FRAMES, 2))
  return StoredVideo(
      np.stack([t, y, x], axis=-1).astype(np.uint8),
      targets.astype(np.float32),
      generator.random((POINTS, FRAMES)) < 0.3,
  )


def read_points(example):
  """Returns the colors of a clip at points, as values of the stored video."""
  num_points, num_frames, _ = example.target_points.shape
  times = np.broadcast_to(
      np.arange(num_frames)[None, :, None], (num_points, num_frames, 1)
  )
  points = np.concatenate([times, example.target_points[..., ::-1]], axis=-1)
  colors = read_at_time(
      jnp.asarray(example.video),
      jnp.asarray(points.reshape(-1, 3), jnp.float32),
  )
  colors = 127.5 * (np.asarray(colors) + 1)
  return colors.reshape(num_points, num_frames, 3)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('seed', range(4))
def test_points_stay_on_what_they_show(kind, seed):
  config = KINDS[kind]
  stored = make_stored()
  clip = draw_clip(stored, config, np.random.default_rng(seed))
  example = jax.tree.map(np.asarray, develop_clip(clip, config))
  seen = ~example.occluded
  assert seen.any()
  colors = read_points(example)
  frames = np.rint(colors[..., 0] / 40).astype(int)
  # Every frame of a clip is one of the video's, as a whole.
  numbers = np.median(frames, axis=0).astype(int)
  targets = stored.target_points[:, numbers]
  true = np.stack([targets[..., 1], targets[..., 0]], axis=-1) * 6 - 3
  # Which point of the video a row is was not kept: one has to fit all frames.
  # Half a pixel would be 3; near borders, which are held, it may be as much.
  errors = np.max(np.abs(colors[:, None, :, 1:] - true[None]), axis=-1)
  inside = (
      np.all(
          (example.target_points > 1)
          & (example.target_points < np.asarray(config.resolution[::-1]) - 1),
          axis=-1,
      )
      & seen
  )
  worst = np.max(np.where(inside[:, None], errors, 0), axis=-1)
  in_video = np.all((targets > 1) & (targets < 31), axis=(-2, -1))
  for row in np.flatnonzero(inside.any(axis=1)):
    best = np.argmin(worst[row])
    if in_video[best]:
      assert worst[row, best] < 1.5


@pytest.mark.parametrize('kind', KINDS)
def test_queries_are_visible_on_their_frames(kind):
  config = dataclasses.replace(KINDS[kind], num_points=2 * POINTS)
  for seed in range(4):
    clip = draw_clip(make_stored(), config, np.random.default_rng(seed))
    rows = np.arange(2 * POINTS)
    frames = clip.query_points[:, 0].astype(int)
    assert not clip.occluded[rows, frames].any()
    np.testing.assert_array_equal(
        clip.query_points[:, :0:-1], clip.target_points[rows, frames]
    )
    assert np.all(clip.query_points[:, 1:] >= 0)
    assert np.all(clip.query_points[:, 1:] < config.resolution)


def test_consecutive_frames_share_their_warp():
  clip = draw_clip(make_stored(), CONFIG, np.random.default_rng(1))
  np.testing.assert_array_equal(clip.to_video, clip.to_video[:1].repeat(4, 0))
  steps = np.diff(clip.frames[:, 0, 0, 0].astype(int))
  assert len(set(steps)) == 1
  assert abs(steps[0]) in (40, 80)


def test_drift_grows_evenly():
  turns, zooms = [], []
  for seed in range(20):
    clip = draw_clip(
        make_stored(), KINDS['drifting'], np.random.default_rng(seed)
    )
    x, y = np.moveaxis(clip.to_video[:, :, 0].astype(float), 1, 0)
    for values, found in (
        (np.unwrap(np.arctan2(y, x)), turns),
        (np.log(np.hypot(x, y)), zooms),
    ):
      steps = np.diff(values)
      np.testing.assert_allclose(steps, steps[0], atol=1e-5)
      found.append(abs(np.sum(steps)))
  assert 0.9 < max(turns) <= 1.8
  assert 0.3 < max(zooms) <= 0.6


def test_batches_depend_on_their_step_alone(tmp_path):
  for number in range(3):
    stored = make_stored(number)
    np.savez(tmp_path / f'{number:06}.npz', **stored._asdict())
  config = dataclasses.replace(CONFIG, folder=str(tmp_path))
  mesh = parallel.make_mesh(jax.devices()[:2])
  first = make_stored_draw(config, 0, mesh)
  second = make_stored_draw(config, 0, mesh)
  second(0)
  for a, b in zip(first(5), second(5), strict=True):
    np.testing.assert_array_equal(a, b)
  assert first(5).video.shape == (2, 4, 24, 20, 3)
  assert not np.array_equal(first(5).video, first(6).video)


@pytest.mark.slow
@pytest.mark.usefixtures('quick_compilation')
def test_writing_goes_on_where_it_was(tmp_path):
  write_stored_videos(tmp_path, range(2), SCENE, seed=4)
  before = read_stored_video(tmp_path / '000001.npz')
  (tmp_path / '000000.npz').unlink()
  done = []
  write_stored_videos(tmp_path, range(2), SCENE, 4, lambda: done.append(1))
  assert len(done) == 2
  write_stored_videos(tmp_path / 'other', [1], SCENE, seed=4)
  again = read_stored_video(tmp_path / 'other' / '000001.npz')
  for a, b in zip(before, again, strict=True):
    np.testing.assert_array_equal(a, b)
  assert sorted(path.name for path in tmp_path.glob('*.npz')) == [
      '000000.npz',
      '000001.npz',
  ]


def test_bad_settings(tmp_path):
  mesh = parallel.make_mesh(jax.devices()[:1])
  config = StoredConfig(folder=str(tmp_path))
  with pytest.raises(ValueError, match='must hold stored videos; there are no'):
    make_stored_draw(config, 0, mesh)
  long = dataclasses.replace(CONFIG, num_frames=FRAMES + 1)
  with pytest.raises(ValueError, match='num_frames must be at most that of'):
    draw_clip(make_stored(), long, np.random.default_rng(0))
  with pytest.raises(ValueError, match='num_points must be at least 1; got 0'):
    StoredConfig(num_points=0)
  with pytest.raises(ValueError, match='zoom must be two growing numbers'):
    StoredConfig(zoom=(2.0, 1.0))
