"""Inputs of every command: folders, patterns, pictures, times, budgets."""

import csv

import numpy as np
import pytest

from tapjax import pretrained
from tapjax.media import video as video_files
from tests.cli.command_runs import refuse_to_load
from tests.support import videos


@pytest.fixture
def sequence(folder):
  """A folder of five pictures, numbered from 8 on without zeros."""
  frames = videos.make_frames(5, 48, 64)
  (folder / 'seq').mkdir()
  for index, frame in enumerate(frames):
    videos.encode_picture(
        folder / 'seq' / f'{index + 8}.png', frame, 'png', 'rgb24'
    )
  return frames


@pytest.mark.usefixtures('compile_once')
@pytest.mark.parametrize('place', ['seq', 'seq/%d.png'])
def test_track_reads_pictures(run, sequence, place):
  answer = run('track', f'--video={place}', '--model=tapnet', '--grid=2')
  assert answer.status == 0
  assert answer.out.endswith('to tracks_seq\n')
  drawn = video_files.read_video('tracks_seq/tracks.mp4')
  assert drawn.shape == sequence.shape


@pytest.mark.usefixtures('compile_once', 'sequence')
def test_track_reads_one_picture(run):
  answer = run('track', '--video=seq/9.png', '--model=tapnet', '--grid=2')
  assert answer.status == 0
  assert '4 points through 1 frames' in answer.out
  assert answer.out.endswith('to tracks_9\n')


@pytest.mark.usefixtures('compile_once', 'sequence')
def test_edit_reads_pictures(run):
  answer = run(
      'edit',
      '--video=seq',
      '--model=tapnet',
      '--region=5,5,30,30',
      '--color=255,0,0',
  )
  assert answer.status == 0
  assert len(video_files.read_video('edit_seq.mp4')) == 5


@pytest.mark.usefixtures('compile_once', 'sequence')
def test_objects_are_tracked_in_pictures(run):
  answer = run(
      'track-objects', '--video=seq', '--model=tapnet', '--box=5,5,30,30'
  )
  assert answer.status == 0
  assert len(video_files.read_video('objects_seq/objects.mp4')) == 5


@pytest.mark.parametrize(
    ('command', 'flags'),
    [
        ('track', []),
        ('live', []),
        ('edit', ['--region=1,1,9,9', '--color=1,2,3']),
        ('track-objects', []),
    ],
)
def test_folders_of_other_kinds_are_refused_at_once(
    run, folder, monkeypatch, command, flags
):
  monkeypatch.setattr(pretrained, 'load', refuse_to_load)
  (folder / 'shot').mkdir()
  for index in range(12):
    (folder / 'shot' / f'shot.{index:04}.dpx').write_bytes(b'SDPX')
  run(command, '--video=shot', *flags).check_refusal(
      1, r"'shot' is a folder that holds no \.png, .*; it has 12 \.dpx"
  )


@pytest.mark.usefixtures('compile_once')
def test_times_of_frames_reach_every_result(run, folder):
  times = [0, 0.04, 0.08, 0.5, 0.54, 2]
  videos.encode(folder / 'v.mp4', videos.make_frames(6, 48, 64), times=times)
  answer = run('track', '--video=v.mp4', '--model=tapnet', '--grid=2')
  assert answer.status == 0
  with np.load('tracks_v/tracks.npz') as arrays:
    np.testing.assert_allclose(arrays['times'], times, atol=1e-3)
  with open('tracks_v/tracks.csv', newline='') as file:
    for row in csv.DictReader(file):
      assert abs(float(row['times']) - times[int(row['frame'])]) < 1e-3
  with video_files.open_video('tracks_v/tracks.mp4') as reader:
    assert len(list(reader)) == 6
    np.testing.assert_allclose(reader.times, times, atol=1e-3)


@pytest.mark.usefixtures('compile_once')
@pytest.mark.parametrize(
    'command',
    [
        ['track'],
        ['edit', '--region=1,1,99,99', '--color=9,9,9'],
        ['track-objects', '--box=1,1,99,99'],
    ],
    ids=['track', 'edit', 'track-objects'],
)
def test_budgets_below_a_frame_are_refused(run, folder, command):
  # Gray frames are small files, whatever their size.
  gray = np.full((1, 2160, 3840, 3), 90, np.uint8)
  video_files.write_video(folder / '4k.mp4', gray, 24)
  answer = run(
      *command, '--video=4k.mp4', '--model=tapnet', '--max_memory=200MB'
  )
  answer.check_refusal(
      1, r'max_memory must be at least \d+ MB for frames of 3840x2160; got 200'
  )
  assert 'read' not in answer.err


@pytest.mark.parametrize('address', ['rtsp://127.0.0.1:9/a', 'http://[::1]:9/'])
@pytest.mark.parametrize('command', ['track', 'live'])
def test_addresses_without_a_server_are_one_line(run, command, address):
  run(command, f'--video={address}').check_refusal(
      1, 'cannot be read: .* - is the address right'
  )
