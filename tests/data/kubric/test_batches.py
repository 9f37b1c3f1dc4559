"""Kubric's videos from files to batches: formats, order, errors."""

import dataclasses
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from tapjax import parallel
from tapjax.data.kubric import batches as kubric_batches
from tapjax.data.kubric.batches import KubricConfig
from tapjax.data.kubric.batches import make_kubric_draw
from tapjax.data.kubric.files import MoviVideos
from tapjax.data.kubric.query_choices import CropWindow
from tapjax.data.kubric.query_choices import MoviTrackConfig
from tapjax.data.kubric.tracks import make_tracks
from tests.support import movi_writer


@pytest.fixture(scope='module')
def cotracker(records, tmp_path_factory):
  return movi_writer.write_cotracker(tmp_path_factory.mktemp('ct'), records)


def make_config(root, **changes):
  config = KubricConfig(
      root=str(root),
      name=movi_writer.NAME,
      resolution=(16, 16),
      batch_size=2,
      tracks=MoviTrackConfig(num_points=12, stride=1),
      num_workers=0,
  )
  return dataclasses.replace(config, **changes)


def make_mesh(count=1):
  return parallel.make_mesh(jax.devices()[:count])


@pytest.mark.parametrize(
    'kind', ['movi', pytest.param('cotracker', marks=pytest.mark.slow)]
)
def test_batches(request, kind):
  root = request.getfixturevalue(kind)
  config = make_config(root, format=kind)
  example = make_kubric_draw(config, 0, make_mesh())(0)
  assert example.video.shape == (2, 6, 16, 16, 3)
  assert np.abs(example.video).max() <= 1 + 1e-6
  assert example.query_points.shape == (2, 12, 3)
  assert example.target_points.shape == (2, 12, 6, 2)
  frames = np.asarray(example.query_points[..., 0]).astype(int)
  own = np.take_along_axis(
      np.asarray(example.target_points), frames[..., None, None], axis=2
  )[:, :, 0]
  np.testing.assert_allclose(own, example.query_points[..., :0:-1], atol=0.05)
  hidden = np.take_along_axis(
      np.asarray(example.occluded), frames[..., None], axis=2
  )
  assert not hidden.any()
  seen = np.asarray(example.target_points)[~np.asarray(example.occluded)]
  assert seen.min() >= 0
  assert seen.max() <= 16


def test_finished_tracks_keep_their_place(cotracker, records):
  config = make_config(
      cotracker, format='cotracker', random_crop=False, resolution=(64, 16)
  )
  clip = kubric_batches.open_clips(config).read(1, np.random.default_rng(0))
  written = make_tracks(
      records[1],
      CropWindow(0, 0, 32, 32),
      (32, 32),
      MoviTrackConfig(num_points=40, stride=1),
      np.random.default_rng(1),
  )
  expected = written.target_points * np.asarray([0.5, 2])
  distances = np.abs(clip.target_points[:, None] - expected[None])
  assert distances.max(axis=(2, 3)).min(axis=1).max() < 1e-3
  np.testing.assert_array_equal(clip.frames, records[1].video)


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['movi', 'cotracker'])
def test_batches_depend_on_step_and_seed_alone(request, kind):
  root = request.getfixturevalue(kind)
  config = make_config(root, format=kind)
  straight = make_kubric_draw(config, 3, make_mesh())
  batches = [straight(step) for step in range(6)]
  threads = dataclasses.replace(config, num_workers=2)
  resumed = make_kubric_draw(threads, 3, make_mesh(2))
  for step in (4, 5):  # In the middle of the second epoch.
    again = resumed(step)
    # Programs for one and for two devices round differently.
    np.testing.assert_allclose(again.video, batches[step].video, atol=1e-6)
    for ours, theirs in zip(again[1:], batches[step][1:], strict=True):
      np.testing.assert_array_equal(ours, theirs)
  other = make_kubric_draw(config, 4, make_mesh())(0)
  assert (np.asarray(other.video) != np.asarray(batches[0].video)).any()
  # Every epoch has every video once, in another order.
  drawn = []

  class Recorder:

    def __init__(self, config):
      self._clips = open_clips(config)

    def __len__(self):
      return len(self._clips)

    def read(self, index, generator):
      drawn.append(index)
      return self._clips.read(index, generator)

  open_clips = kubric_batches.open_clips
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(kubric_batches, 'open_clips', Recorder)
    draw = make_kubric_draw(config, 3, make_mesh())
    for step in range(5):
      draw(step)
  assert sorted(drawn[:5]) == sorted(drawn[5:]) == list(range(5))
  assert drawn[:5] != drawn[5:]


@pytest.mark.slow
def test_recoloring_and_cropping_can_be_left_out(movi, records):
  config = make_config(
      movi, random_crop=False, recolor=False, resolution=(32, 32), batch_size=5
  )
  example = make_kubric_draw(config, 0, make_mesh())(0)
  videos = np.stack([record.video for record in records]) / 127.5 - 1
  for video in np.asarray(example.video):
    assert np.abs(videos - video).max(axis=(1, 2, 3, 4)).min() < 1e-6
  shorter = dataclasses.replace(config, num_frames=4)
  example = make_kubric_draw(shorter, 0, make_mesh())(0)
  assert example.video.shape[1] == example.target_points.shape[2] == 4
  assert example.query_points[..., 0].max() <= 3


def test_what_is_wrong_with_files_is_told(movi, tmp_path):
  with pytest.raises(ValueError, match='--set data'):
    kubric_batches.open_clips(KubricConfig())
  with pytest.raises(FileNotFoundError, match='movi_e-train'):
    MoviVideos(str(tmp_path), movi_writer.NAME, 'train')
  with pytest.raises(FileNotFoundError, match='it has train, validation'):
    MoviVideos(str(movi), movi_writer.NAME, 'test')
  with pytest.raises(FileNotFoundError, match='0000/0000'):
    kubric_batches.open_clips(make_config(tmp_path, format='cotracker'))
  with pytest.raises(ValueError, match='multiple of the 2 devices'):
    make_kubric_draw(make_config(movi, batch_size=3), 0, make_mesh(2))
  folder = movi / movi_writer.NAME / '1.0.0'
  first, second = sorted(folder.glob('*-train.*'))
  copy = tmp_path / first.name
  copy.write_bytes(first.read_bytes())
  with pytest.raises(FileNotFoundError, match='2 shards like'):
    MoviVideos(str(tmp_path), movi_writer.NAME, 'train')
  (tmp_path / second.name).write_bytes(second.read_bytes()[:-9])
  with pytest.raises(ValueError, match='is a download incomplete'):
    MoviVideos(str(tmp_path), movi_writer.NAME, 'train')
  data = bytearray(second.read_bytes())
  data[200:9000] = bytes(8800)
  (tmp_path / second.name).write_bytes(data)
  videos = MoviVideos(str(tmp_path), movi_writer.NAME, 'train')
  videos.read(0)
  with pytest.raises(ValueError, match='record 3'):
    videos.read(3)


@pytest.mark.slow
def test_remote_folders_need_tensorflow():
  code = (
      'import sys; sys.modules["tensorflow"] = None\n'
      'from tapjax.data.kubric.files import MoviVideos\n'
      'try: MoviVideos("gs://bucket/tfds", "movi_e/256x256", "train")\n'
      'except ImportError as error: print(error)'
  )
  output = subprocess.run(
      [sys.executable, '-c', code],
      env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
      capture_output=True,
      text=True,
      check=True,
  ).stdout
  assert 'pip install tensorflow-cpu' in output


@pytest.mark.slow
def test_points_of_the_first_frame_or_the_middle(cotracker):
  config = make_config(
      cotracker,
      format='cotracker',
      queries='first_or_middle',
      random_crop=False,
  )
  clips = kubric_batches.open_clips(config)
  clip = clips.read(1, np.random.default_rng(0))
  assert len(clip.query_points) == 12
  seen = ~clip.occluded
  assert (seen[:, 0] | seen[:, 3]).all()
  frames = clip.query_points[:, 0].astype(int)
  np.testing.assert_array_equal(frames, seen.argmax(axis=1))
  own = clip.target_points[np.arange(12), frames]
  np.testing.assert_allclose(own, clip.query_points[:, :0:-1])
  # Points of both frames may be there twice, and no more than that.
  many = dataclasses.replace(
      config, tracks=MoviTrackConfig(num_points=81, stride=1)
  )
  with pytest.raises(ValueError, match=r'81 points visible.*100 in a row'):
    kubric_batches.open_clips(many).read(1, np.random.default_rng(0))


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['movi', 'cotracker'])
def test_profile(kind, request):
  root = request.getfixturevalue(kind)
  profile = kubric_batches.profile_input(make_config(root, format=kind), 2, 0)
  assert profile.num_examples == 2
  assert min(profile.read, profile.tracks, profile.device) > 0
  assert profile.per_core == pytest.approx(1 / (profile.read + profile.tracks))
