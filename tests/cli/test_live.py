"""`tapjax live`, with pictures as they appear."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tapjax import pretrained
from tapjax.cli import main
from tapjax.live import recording
from tapjax.live import run as live
from tapjax.media import video as video_files
from tests.live.test_run import make_frames
from tests.live.test_run import make_tracker
from tests.live.test_run import read_arrays
from tests.live.test_run import write_picture


@pytest.fixture
def command(monkeypatch, tmp_path, capsys):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(pretrained, 'load', lambda *a, **k: make_tracker())

  def run(*arguments):
    status = main.run_command(['tapjax', 'live', *arguments])
    return status, *capsys.readouterr()

  return run


def test_command(command, tmp_path):
  frames = make_frames(4)
  (tmp_path / 'in').mkdir()
  for index, frame in enumerate(frames):
    write_picture(tmp_path / 'in' / f'{index}.png', frame)
  status, out, err = command(
      '--video=in',
      '--grid=2',
      '--patience=0',
      '--window=off',
      '--max_memory=200MB',
      '--output=out',
  )
  assert status == 0, err
  assert out == (
      'causal_tapir: 4 points through 4 frames, 0 of them damaged; wrote '
      'tracks.npz, tracks.csv, tracks.mp4 to out\n'
  )
  assert 'track: ' in err
  arrays = read_arrays(tmp_path / 'out')
  assert arrays['positions'].shape == (4, 4, 2)
  assert arrays['frame_rate'] == 25
  status, out, err = command('--video=in', '--max_memory=20MB')
  assert (status, out) == (1, '')
  assert 'max_memory must be at least' in err.splitlines()[-1]
  (tmp_path / 'in' / '2.png').write_bytes(b'torn')
  status, out, err = command(
      '--video=in',
      '--num_points=2',
      '--patience=0',
      '--damaged=stop',
      '--output=stopped',
  )
  assert status == 1
  assert 'frame 2 is damaged' in err.splitlines()[-1]
  assert read_arrays(tmp_path / 'stopped')['positions'].shape == (2, 2, 2)


@pytest.mark.slow
@pytest.mark.parametrize('how', [signal.SIGKILL, signal.SIGINT])
def test_killed_and_interrupted_commands(command, tmp_path, how):
  """The first is resumed to the same files, the second writes what it has."""
  frames = make_frames(40)
  (tmp_path / 'in').mkdir()
  for index, frame in enumerate(frames):
    write_picture(tmp_path / 'in' / f'{index}.png', frame)
  make_tracker().save(tmp_path / 'weights.safetensors')
  arguments = [
      'live',
      '--video=in',
      '--checkpoint=weights.safetensors',
      '--grid=2',
      '--save_every=5',
      '--output=out',
  ]
  process = subprocess.Popen(
      [sys.executable, '-m', 'tapjax', *arguments, '--patience=300'],
      env={**os.environ, 'PYTHONPATH': str(pathlib.Path(__file__).parents[2])},
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      text=True,
      start_new_session=True,
  )
  state = tmp_path / 'out' / recording.FOLDER / 'state.json'
  deadline = time.monotonic() + 300
  while not state.is_file() or '"next_frame": 5,' in state.read_text():
    assert time.monotonic() < deadline
    time.sleep(0.01)
  os.killpg(process.pid, how)  # As a terminal does.
  out, _ = process.communicate(timeout=300)
  if how == signal.SIGINT:
    assert process.returncode == 0
    assert 'wrote tracks.npz, tracks.csv, tracks.mp4 to out' in out
    num_frames = read_arrays(tmp_path / 'out')['positions'].shape[1]
    drawn = video_files.read_video(tmp_path / 'out' / 'tracks.mp4')
    assert 10 <= num_frames == len(drawn)
    return
  assert process.returncode == -signal.SIGKILL
  assert os.listdir('out') == [recording.FOLDER]
  status, _, err = command(*arguments[1:], '--patience=0', '--resume')
  assert status == 0, err
  assert 'going on from frame' in err
  assert sorted(os.listdir('out')) == sorted(live.RESULTS)
  status, _, err = command(*arguments[1:-1], '--patience=0', '--output=whole')
  assert status == 0, err
  ours, theirs = (read_arrays(tmp_path / name) for name in ('out', 'whole'))
  assert ours.keys() == theirs.keys()
  for name in ('positions', 'occlusion_logits', 'uncertainty_logits'):
    # Another process may have compiled with other optimizations.
    np.testing.assert_allclose(ours[name], theirs[name], atol=2e-3)


@pytest.mark.parametrize(
    ('arguments', 'status', 'message'),
    [
        ([], 2, '--video must name'),
        (['--video=none.mp4'], 1, "no video file 'none.mp4'"),
        (['--video=in', '--damaged=hide'], 2, 'skip|stop'),
        (['--video=in', '--threshold=1.5'], 2, 'threshold'),
        (['--video=in', '--grid=2', '--num_points=2'], 2, 'choose points by'),
        (['--video=in', '--save_every=0'], 2, 'positive'),
        (['--video=in', '--patience=0'], 1, 'no whole frame came from in'),
        (['--video=in', '--queries=q.csv'], 1, 'no file q.csv'),
    ],
    ids=str,
)
def test_bad_input(command, tmp_path, arguments, status, message):
  (tmp_path / 'in').mkdir()
  got, out, err = command(*arguments)
  assert got == status
  assert out == ''
  assert message in err.splitlines()[-1]
  assert [path.name for path in tmp_path.iterdir()] == ['in']
