"""Exported clips: round trips, and resuming a killed export."""

import csv
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tapjax.data.benchmarks.point_tracks import PointTracks
from tapjax.data.point_odyssey import clip_export
from tapjax.data.point_odyssey import exported_clips
from tapjax.data.point_odyssey.clip_augmentation import AugmentationConfig
from tapjax.data.point_odyssey.clip_batches import ClipDataConfig
from tapjax.data.point_odyssey.clip_batches import make_clip_draw
from tapjax.data.point_odyssey.clips import ClipConfig
from tapjax.data.point_odyssey.clips import TrainingClip
from tapjax.data.point_odyssey.color_augmentation import ColorConfig
from tapjax.data.point_odyssey.files import PointAnnotations
from tapjax.data.point_odyssey.generated import SceneVideo
from tapjax.data.point_odyssey.generated import write_scene

ROOT = pathlib.Path(__file__).parents[3]
CLIPS = ClipConfig(num_frames=4, num_points=6, crop=(32, 48), strides=(1, 2))

MILD = AugmentationConfig(
    resize=(60, 84), largest_padding=4, smallest_scale=0.7
)


def write_split(split, num_scenes=1, num_points=40):
  """Scenes of noise that moves by one pixel per frame."""
  for index in range(num_scenes):
    generator = np.random.default_rng(index)
    wide = generator.integers(0, 256, (60, 120, 3), np.uint8)
    positions = generator.uniform(4, 52, (1, num_points, 2))
    positions = positions.repeat(24, axis=0)
    positions[..., 0] += np.arange(24)[:, None]
    seen = np.ones((24, num_points), bool)
    scene = SceneVideo(
        np.stack([wide[:, 30 - t : 114 - t] for t in range(24)]),
        np.ones((24, 60, 84), np.uint8),
        PointAnnotations(positions.astype(np.float32), seen, seen),
    )
    split.mkdir(exist_ok=True)
    write_scene(split / f'scene_{index}', scene)


@pytest.fixture
def split(tmp_path):
  write_split(tmp_path / 'split')
  return tmp_path / 'split'


@pytest.fixture
def without_processes(monkeypatch):
  """Runs the work in this process, without the start of others."""

  def run(config, root, rows):
    sent = []
    share = [index for row in rows for index in row]
    clip_export._work(config, root, share, sent.append)
    for message in sent:
      if isinstance(message, OSError):
        raise message
      yield message

  monkeypatch.setattr(clip_export, '_run_processes', run)


def make_config(split, **settings):
  config = clip_export.ExportConfig(
      root=str(split), clips=CLIPS, augmentation=MILD
  )
  return dataclasses.replace(config, **settings)


def read_all(folder):
  return {
      str(path.relative_to(folder)): path.read_bytes()
      for path in folder.rglob('*')
      if path.is_file() and path.suffix != '.lock'
  }


@pytest.mark.usefixtures('without_processes')
def test_clips_are_written_counted_and_read(split, tmp_path):
  config = make_config(split)
  seen = []
  progress = clip_export.export_clips(config, tmp_path / 'pod', seen.append)
  # Starts 0 to 20 with every frame, and 0 to 16 with every second.
  assert progress.total == progress.done == 20
  assert seen[0].done == 0
  assert seen[-1] == progress
  root = tmp_path / 'pod' / 'ae_4_6_32x48'
  folders = exported_clips.list_exported_clips(root)
  assert len(folders) == progress.written >= 5
  with open(f'{root}.csv', encoding='utf-8', newline='') as file:
    rejected = list(csv.reader(file))
  assert len(rejected) == progress.reasons.total() > 0
  assert set(progress.reasons) == {reason for _, reason, _ in rejected}
  assert {int(path.name) for path in folders}.isdisjoint(
      int(row[0]) for row in rejected
  )

  generator = np.random.default_rng(0)
  # A clip is that of its number, except for frames that its video loses.
  clips = clip_export.find_clips(split, CLIPS)
  read = exported_clips.read_exported_clip(folders[3], CLIPS, generator)
  made = clip_export.make_clip(
      clips, int(folders[3].name), config, clip_export.read_annotations
  )
  np.testing.assert_allclose(
      read.tracks.positions, made.tracks.positions, atol=1e-4
  )
  np.testing.assert_array_equal(read.tracks.visible, made.tracks.visible)
  np.testing.assert_array_equal(read.tracks.valid, made.tracks.valid)
  with np.load(folders[3] / 'track.npz') as file:
    assert file.files == ['track_g']
    assert file['track_g'].shape == (4, 6, 4)
    assert file['track_g'].dtype == np.float32
  assert read.frames.shape == (4, 32, 48, 3)

  # They serve as the data of a training, with the same protocol as scenes.
  data = ClipDataConfig(
      root=str(root), batch_size=2, clips=CLIPS, num_workers=0
  )
  draw = make_clip_draw(data.root, data, None, 3)
  batch = draw(1)
  assert batch.frames.shape == (2, 4, 32, 48, 3)
  assert batch.target_points.shape == (2, 6, 4, 2)
  np.testing.assert_array_equal(batch.frames, draw(1).frames)
  everything = [
      exported_clips.read_exported_clip(folder, CLIPS, generator)
      for folder in folders
  ]
  known = {clip.frames.tobytes(): clip.tracks for clip in everything}
  for frames, positions in zip(batch.frames, batch.target_points, strict=True):
    np.testing.assert_allclose(
        positions - 0.5, known[frames.tobytes()].positions, atol=1e-5
    )
  # Colors are changed once more.
  colored = make_clip_draw(data.root, data, data.augmentation, 3)
  changes = [
      np.any(colored(step).frames != draw(step).frames) for step in range(3)
  ]
  assert any(changes)


@pytest.mark.usefixtures('without_processes')
def test_what_is_there_is_not_done_again(split, tmp_path, monkeypatch):
  config = make_config(split)
  folder = tmp_path / 'pod'
  first = clip_export.export_clips(config, folder)
  before = read_all(folder)
  root = folder / config.name
  # As a process leaves it that is killed while it writes clips and notes.
  finished = exported_clips.list_exported_clips(root)
  victim = finished[2]
  (victim / 'rgb.mp4').rename(root / 'moved.mp4')
  for file in victim.iterdir():
    file.unlink()
  victim.rmdir()
  unfinished = root / f'.{victim.name}.0123abcd.part'
  unfinished.mkdir()
  (root / 'moved.mp4').rename(unfinished / 'rgb.mp4')
  notes = pathlib.Path(f'{root}.csv')
  notes.write_bytes(notes.read_bytes()[:-5])
  tried = []
  make = clip_export.make_clip

  def watch(clips, index, *rest):
    tried.append(index)
    return make(clips, index, *rest)

  monkeypatch.setattr(clip_export, 'make_clip', watch)
  assert clip_export.export_clips(config, folder) == first
  assert read_all(folder) == before
  last_rejected = int(list(csv.reader(notes.open()))[-1][0])
  assert sorted(tried) == sorted([int(victim.name), last_rejected])

  with pytest.raises(ValueError, match='differ in seed'):
    clip_export.export_clips(make_config(split, seed=1), folder)
  lock = clip_export.filelock.FileLock(folder / f'.{config.name}.lock')
  with lock, pytest.raises(ValueError, match='another is running'):
    clip_export.export_clips(config, folder)


@pytest.mark.usefixtures('without_processes')
def test_failures_are_counted_by_reason(split, tmp_path):
  config = make_config(split)
  for number in (0, 1):
    (split / 'scene_0' / 'rgbs' / f'rgb_{number:05}.jpg').write_bytes(b'no')
  progress = clip_export.export_clips(config, tmp_path / 'pod')
  # One clip of each stride begins there, and is tried again next time.
  assert progress.reasons['unreadable'] == 2
  again = clip_export.export_clips(config, tmp_path / 'pod')
  assert again == progress
  names = [json.loads(p.read_text()) for p in (tmp_path / 'pod').glob('*.json')]
  assert names[0]['scenes'] == {'scene_0': 20}
  for path in (split / 'scene_0' / 'rgbs').iterdir():
    path.write_bytes(b'no')
  with pytest.raises(OSError, match='20 clips in a row were unreadable'):
    clip_export.export_clips(config, tmp_path / 'other')


def test_clips_that_are_mostly_not_valid_are_rejected(tmp_path, monkeypatch):
  tracks = PointTracks(
      np.zeros((6, 4, 2)), np.ones((6, 4), bool), np.zeros((6, 4), bool)
  )
  tracks.valid[:, :1] = True
  frames = np.zeros((4, 32, 48, 3), np.uint8)
  for name, answer in (
      ('read_clip', None),
      ('make_training_clip', TrainingClip(frames, tracks)),
  ):
    monkeypatch.setattr(clip_export, name, lambda *_, answer=answer: answer)
  config = make_config(tmp_path)
  clips = [(tmp_path, np.arange(4))]
  args = (clips, 0, config, lambda _: None)
  with pytest.raises(clip_export.ClipRejectedError, match='6 valid positions'):
    clip_export.make_clip(*args)
  tracks.valid[:, :2] = True
  assert clip_export.make_clip(*args).tracks is tracks


def test_order_is_random_but_some_of_a_scene_in_a_row():
  clips = [
      (pathlib.Path(name), np.arange(2)) for name in 'abc' for _ in range(40)
  ]
  rows = clip_export.order_clips(clips, 5)
  assert sorted(i for row in rows for i in row) == list(range(120))
  assert sorted(map(len, rows)) == [8] * 3 + [16] * 6
  for row in rows:
    assert len({i // 40 for i in row}) == 1
    assert row != sorted(row)
  assert (
      rows
      == clip_export.order_clips(clips, 5)
      != clip_export.order_clips(clips, 6)
  )


def run_export(split, workdir, **kwargs):
  settings = [
      f'root={split}',
      'clips.num_frames=4',
      'clips.num_points=6',
      'clips.crop=(32,48)',
      'clips.strides=(1,2)',
      'augmentation.resize=(60,84)',
      'augmentation.largest_padding=4',
      'augmentation.smallest_scale=0.7',
      'num_processes=4',
  ]
  command = [sys.executable, '-m', 'experiments.run', '--task=export_clips']
  command += [f'--workdir={workdir}', *(f'--set={s}' for s in settings)]
  return subprocess.Popen(
      command,
      cwd=ROOT,
      env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      start_new_session=True,
      **kwargs,
  )


@pytest.mark.slow
@pytest.mark.heavy
def test_a_killed_export_ends_like_an_undisturbed_one(tmp_path):
  """Kills an export with four processes, and resumes it."""
  split = tmp_path / 'split'
  write_split(split, num_scenes=8)
  whole, killed = tmp_path / 'whole', tmp_path / 'killed'
  with run_export(split, whole) as process:
    output, errors = process.communicate(timeout=300)
  assert process.returncode == 0, errors
  assert 'clip/s' in errors

  root = killed / 'ae_4_6_32x48'
  with run_export(split, killed) as process:
    while process.poll() is None:
      if len(exported_clips.list_exported_clips(root)) >= 3:
        os.killpg(process.pid, signal.SIGKILL)
      time.sleep(0.005)
  assert process.returncode == -signal.SIGKILL
  finished = exported_clips.list_exported_clips(root)
  total = len(exported_clips.list_exported_clips(whole / root.name))
  assert 3 <= len(finished) < total
  times = {path: path.stat().st_mtime_ns for path in finished}

  with run_export(split, killed) as process:
    resumed, errors = process.communicate(timeout=300)
  assert process.returncode == 0, errors
  assert resumed == output
  # The same clips, to the byte, and those that were there were left alone.
  assert read_all(killed) == read_all(whole)
  assert {path: path.stat().st_mtime_ns for path in times} == times


@pytest.mark.slow
def test_a_process_that_dies_is_told(split, tmp_path, monkeypatch):
  """Finished clips are kept, and processes without a parent end."""
  monkeypatch.setattr(clip_export, '_serve', _die)
  with pytest.raises(OSError, match='ended early, with status 3'):
    clip_export.export_clips(make_config(split, num_processes=1), tmp_path)


def _die(*_):
  os._exit(3)


def test_color_settings_reach_the_export(tmp_path):
  config = make_config(tmp_path, augmentation=None)
  assert config.name == 'ae_4_6_32x48'
  with pytest.raises(ValueError, match='--set root=DIR'):
    clip_export.export_clips(make_config(tmp_path / 'none'), tmp_path)
  with pytest.raises(ValueError, match='num_processes must be at least 1'):
    make_config(tmp_path, num_processes=0)
  default = clip_export.ExportConfig()
  assert default.name == 'ae_36_128_384x512'
  assert default.augmentation.color == ColorConfig()
  assert default.clips.strides == (1, 2, 4)
