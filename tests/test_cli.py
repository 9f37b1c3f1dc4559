"""The `tapjax` command as its users meet it: what it writes and refuses."""

import contextlib
import csv
import errno
import os
import pickle
import re
import socket
import subprocess
import sys
from typing import NamedTuple
import warnings

import golden
import imageio_ffmpeg
import numpy as np
import pytest

from tapjax import checkpoints
from tapjax import cli
from tapjax import pretrained
from tapjax import results
from tapjax import video_io
from tapjax.data import demo
from tapjax.models import tapnet

RESULTS = ['tracks.csv', 'tracks.mp4', 'tracks.npz']
STAGES = ['load', 'read', 'encode', 'track', 'draw']


class Answer(NamedTuple):
  """What a run of the command came to."""

  status: int
  out: str
  err: str

  def check_refusal(self, status, message):
    """One line that says what is wrong, and nothing else."""
    assert self.status == status
    assert self.out == ''
    # What bars leave on the screen is beside the point.
    *bars, line = self.err.rstrip('\n').rpartition('\n')
    assert all(piece.count('100%') for piece in bars[0].split('\n') if piece)
    line = line.rpartition('\r')[2]
    assert line.startswith('tapjax: error: ')
    assert re.search(message, line), line
    assert 'Traceback' not in self.err


@pytest.fixture
def run(capsys):
  """Runs the command in this process."""

  def run(*arguments):
    capsys.readouterr()
    status = cli._run(['tapjax', *map(str, arguments)])
    return Answer(status, *capsys.readouterr())

  return run


def make_frames(num, height, width):
  generator = np.random.default_rng(0)
  return generator.integers(0, 255, (num, height, width, 3)).astype(np.uint8)


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
  """A file with a tiny TAP-Net."""
  config = tapnet.TapNetConfig(resolution=(64, 64), channels=(16, 16, 24))
  functions = tapnet.make_functions(config)
  params = golden.make_random_params(functions)
  path = tmp_path_factory.mktemp('weights') / 'tiny.safetensors'
  pretrained.Tracker('tapnet', config, functions, params).save(path)
  return path


@pytest.fixture(scope='module')
def clip(tmp_path_factory):
  path = tmp_path_factory.mktemp('clip') / 'clip.mp4'
  video_io.write_video(path, make_frames(5, 48, 64), 12.5)
  return path


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """An empty working folder."""
  monkeypatch.chdir(tmp_path)
  return tmp_path


@pytest.fixture
def compile_once(weights, monkeypatch):
  """All loads of the tiny weights return one tracker."""
  tracker = _load_once(weights)
  monkeypatch.setattr(pretrained, 'load', lambda *args, **kwargs: tracker)


_LOADED = {}


def _load_once(path):
  if path not in _LOADED:
    _LOADED[path] = pretrained.load(checkpoint=path)
  return _LOADED[path]


def test_tracking_writes_everything(run, clip, weights, folder):
  queries = folder / 'points.csv'
  queries.write_text('t,y,x\n0,10,20\n3,40.5,6\n4,0,64\n')
  answer = run(
      'track',
      f'--video={clip}',
      f'--checkpoint={weights}',
      f'--queries={queries}',
      '--output=new/results',
  )
  assert answer.status == 0
  assert answer.out == (
      'tapnet: 3 points through 5 frames; wrote tracks.npz, tracks.csv, '
      'tracks.mp4 to new/results\n'
  )
  assert sorted(os.listdir('new/results')) == RESULTS
  with np.load('new/results/tracks.npz') as arrays:
    assert arrays['positions'].shape == (3, 5, 2)
    assert np.isfinite(arrays['positions']).all()
    assert arrays['visible'].shape == arrays['occlusion_logits'].shape == (3, 5)
    np.testing.assert_array_equal(
        arrays['query_points'],
        np.float32([[0, 10, 20], [3, 40.5, 6], [4, 0, 64]]),
    )
    assert arrays['frame_rate'] == 12.5
    assert arrays['model'] == 'tapnet'
    # TAP-Net meets its queries, so that these are in pixels of the file.
    for row, (t, y, x) in enumerate(arrays['query_points']):
      np.testing.assert_allclose(
          arrays['positions'][row, int(t)], [x, y], atol=1e-3
      )
  with open('new/results/tracks.csv', newline='') as file:
    assert len(list(csv.DictReader(file))) == 15
  with video_io.open_video('new/results/tracks.mp4') as reader:
    assert reader.info == (48, 64, 12.5, 5)
  bars = re.findall(r'(\w+): 100%\|[^|]*\| (\d+)/(\d+)', answer.err)
  totals = {stage: (int(done), int(total)) for stage, done, total in bars}
  assert list(totals) == STAGES
  assert list(totals.values()) == [(1, 1), (5, 5), (5, 5), (3, 3), (5, 5)]
  assert re.search(r'encode: +0%.*compiling', answer.err)
  assert 'error' not in answer.err


@pytest.mark.usefixtures('compile_once')
@pytest.mark.parametrize(
    'shape', [(1, 48, 64), (2, 1, 1), (2, 7, 9), (2, 4000, 20)], ids=str
)
def test_odd_videos(run, folder, shape):
  video_io.write_video('odd.mp4', make_frames(*shape), 25)
  answer = run('track', '--video=odd.mp4', '--model=tapnet', '--grid=2')
  assert answer.status == 0
  assert f'4 points through {shape[0]} frames' in answer.out
  with np.load('tracks_odd/tracks.npz') as arrays:
    assert arrays['positions'].shape == (4, shape[0], 2)
  drawn = video_io.read_video(folder / 'tracks_odd' / 'tracks.mp4')
  assert drawn.shape == (*shape, 3)


@pytest.mark.usefixtures('compile_once', 'folder')
def test_no_queries_make_whole_files(run, clip):
  with open('none.csv', 'w') as file:
    file.write('t,y,x\n')
  answer = run(
      'track', f'--video={clip}', '--model=tapnet', '--queries=none.csv'
  )
  assert answer.status == 0
  assert sorted(os.listdir('tracks_clip')) == RESULTS


@pytest.mark.usefixtures('compile_once', 'folder')
def test_random_points_follow_the_seed(run, clip):
  points = []
  for seed in (0, 0, 1):
    answer = run(
        'track',
        f'--video={clip}',
        '--model=tapnet',
        '--num_points=4',
        f'--seed={seed}',
    )
    assert answer.status == 0
    with np.load('tracks_clip/tracks.npz') as arrays:
      points.append(arrays['query_points'])
  np.testing.assert_array_equal(points[0], points[1])
  assert (points[0] != points[2]).any()


@pytest.mark.usefixtures('compile_once', 'folder')
def test_demo_reports_its_error(run, monkeypatch):
  clip = demo.make_demo_clip(5, (48, 64))
  monkeypatch.setattr(demo, 'make_demo_clip', lambda: clip)
  answer = run('track', '--model=tapnet')
  assert answer.status == 0
  first, second = answer.out.splitlines()
  assert first.endswith('to tracks_demo')
  assert second.startswith('against the truth: median error ')
  assert sorted(os.listdir('tracks_demo')) == RESULTS


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['trak'], "unknown command 'trak'; use track, live, edit, track-"),
        (['--video=v'], "unknown command '--video=v'"),
        (['track', '--nosuch=1'], "'nosuch' - see tapjax track --help"),
        (['track', '--vide=v.mp4'], 'Did you mean: video'),
        (['track', 'v.mp4'], "unexpected argument 'v.mp4'; flags begin with"),
        (['track', '--queries'], 'Missing value for flag --queries'),
        (['track', '--grid=0'], '--grid=0: 0 is not a positive integer'),
        (['track', '--grid=a'], '--grid=a: invalid'),
        (['track', '--num_points=-3'], 'not a positive integer'),
        (['track', '--num_points=3', '--seed=-1'], 'non-negative'),
        (['track', '--grid=2', '--num_points=3'], 'one of --queries, --grid'),
        (['track', '--grid=2', '--queries=q.csv'], 'one of --queries, --grid'),
        (['track', '--resolution=abc'], "HEIGHT,WIDTH, .*; got 'abc'"),
        (['track', '--resolution=256'], 'must be HEIGHT,WIDTH'),
        (['track', '--resolution=64,64,64'], 'must be HEIGHT,WIDTH'),
        (['track', '--resolution=0,64'], 'two positive integers'),
        (['track', '--resolution='], 'must be HEIGHT,WIDTH'),
        (['models', 'all'], "unexpected argument 'all'"),
        (['models', '--grid=3'], 'Unknown command line flag'),
        (['convert'], '--checkpoint must name the file to read and --output'),
        (['convert', '--checkpoint=a.npy'], '--output that to write'),
    ],
    ids=lambda value: ' '.join(value) if isinstance(value, list) else '',
)
def test_wrong_flags(run, folder, arguments, message):
  run(*arguments).check_refusal(2, message)
  assert not list(folder.iterdir())


def write_picture(path, picture):
  """Writes RGBA pixels as a .png."""
  height, width = picture.shape[:2]
  subprocess.run(
      [
          imageio_ffmpeg.get_ffmpeg_exe(),
          *('-v', 'error', '-f', 'rawvideo', '-pix_fmt', 'rgba'),
          *('-s', f'{width}x{height}', '-i', '-', str(path)),
      ],
      input=picture.tobytes(),
      check=True,
  )


@pytest.mark.usefixtures('compile_once')
@pytest.mark.parametrize('edit', ['color', 'image', 'draw'])
def test_editing_lays_the_edit_on_its_frame(run, clip, weights, folder, edit):
  height, width = (48, 64) if edit == 'draw' else (5, 4)
  picture = np.zeros((height, width, 4), np.uint8)
  picture[...] = [10, 250, 10, 255]
  if edit == 'draw':
    inside = np.zeros((48, 64), bool)
    inside[12:36, 16:48] = True
    picture[~inside] = 0
  write_picture('edit.png', picture)
  chosen = {
      'color': ['--region=16,12,48,36', '--color=10,250,10'],
      'image': ['--region=16,12,48,12,48,36,16,36', '--image=edit.png'],
      'draw': ['--draw=edit.png'],
  }[edit]
  answer = run(
      'edit',
      f'--video={clip}',
      f'--checkpoint={weights}',
      '--frame=2',
      '--num_points=40',
      '--output=new/edited.mp4',
      *chosen,
  )
  assert answer.status == 0, answer.err
  assert 'through 5 frames; wrote new/edited.mp4' in answer.out
  before, after = (video_io.read_video(p) for p in (clip, 'new/edited.mp4'))
  assert after.shape == before.shape
  change = np.abs(after[2].astype(float) - before[2]).mean(-1)
  assert change[:8].mean() < 30
  green = after[2, 18:30, 22:42].mean(axis=(0, 1))
  assert green[1] > 200
  assert green[0] < 60


@pytest.mark.parametrize(
    ('arguments', 'status', 'message'),
    [
        (['--color=1,2,3'], 2, '--region must say where'),
        (['--region=1,1,5,5'], 2, 'one of --image, --draw and --color'),
        (['--region=1,1,5', '--color=1,2,3'], 2, 'two corners or more'),
        (['--region=1,1,5,5', '--color=1,2,300'], 2, 'RED,GREEN,BLUE'),
        (['--region=1,1,5,x', '--color=1,2,3'], 2, '--region must be numbers'),
        (['--region=90,1,99,5', '--color=1,2,3'], 1, 'holds none'),
        (['--region=1,1,5,5', '--image=no.png'], 1, 'no picture file'),
        (['--draw=small.png'], 1, 'must be 64x48 pixels'),
        (['--draw=text.png'], 1, 'not a readable picture'),
        (
            ['--region=1,1,5,5', '--color=1,2,3', '--output=a.avi'],
            1,
            'must end in .mp4',
        ),
    ],
    ids=str,
)
def test_edits_are_refused_before_the_work(
    run, clip, weights, folder, monkeypatch, arguments, status, message
):
  monkeypatch.setattr(pretrained, 'load', refuse_to_load)
  write_picture('small.png', np.zeros((4, 4, 4), np.uint8))
  (folder / 'text.png').write_text('no picture')
  answer = run('edit', f'--video={clip}', f'--checkpoint={weights}', *arguments)
  assert answer.status == status
  assert message in answer.err
  assert len(answer.err.splitlines()) == 1


@pytest.mark.usefixtures('compile_once')
def test_edits_of_frames_that_are_not_there(run, clip, weights, folder):
  answer = run(
      'edit',
      f'--video={clip}',
      f'--checkpoint={weights}',
      *('--region=1,1,5,5', '--color=1,2,3', '--frame=5'),
  )
  assert answer.status == 1
  assert '0 to 4; got 5' in answer.err
  assert not list(folder.iterdir())


def test_help(run):
  answer = run('--help')
  assert answer.status == 0
  assert answer.err == ''
  for name in ('track', 'models', 'convert'):
    assert f'tapjax {name}' in answer.out
    for flag in ('--help', '-h'):
      described = run(name, flag)
      assert described.status == 0
      assert described.err == ''
      assert 'absl' not in described.out
  assert (
      '--num_points: Track this many random points'
      in run('track', '--help').out
  )
  assert run().status == 2


def test_models_lists_every_preset(run):
  answer = run('models')
  assert answer.status == 0
  assert answer.err == ''
  for name in ('tapir', 'bootstapir', 'causal_bootstapir', 'tapnet'):
    assert re.search(rf'^{name} +\d+\.\d M ', answer.out, re.MULTILINE)


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('text.mp4', b'words\n' * 99, 'text.mp4.* is not a video'),
        ('image.png', b'\x89PNG\r\n\x1a\n' + bytes(999), 'image.png.*no video'),
        ('song.mp3', b'ID3\3\0\0\0\0\0\0' + b'\xff\xfb\x90\0' * 99, 'song.mp3'),
        ('empty.mp4', b'', 'empty.mp4.* is empty'),
        ('folder', None, 'is a folder; name one video file'),
        ('missing.mp4', None, 'no video file .*is the path right'),
    ],
    ids=lambda value: value if isinstance(value, str) else '',
)
def test_files_that_are_no_video(run, weights, folder, name, content, message):
  if content is not None:
    (folder / name).write_bytes(content)
  elif name == 'folder':
    (folder / name).mkdir()
  before = sorted(folder.rglob('*'))
  answer = run('track', f'--video={name}', f'--checkpoint={weights}')
  answer.check_refusal(1, message)
  assert answer.err.count('\n') == 1
  assert sorted(folder.rglob('*')) == before


@pytest.mark.usefixtures('compile_once')
def test_videos_cut_short(run, clip, folder):
  data = clip.read_bytes()
  (folder / 'cut.mp4').write_bytes(data[: len(data) * 2 // 3])
  answer = run('track', '--video=cut.mp4', '--model=tapnet')
  answer.check_refusal(1, r'cut\.mp4.* cut short: \d frames .*of about 5')
  assert os.listdir() == ['cut.mp4']


def refuse_to_load(*args, **kwargs):
  pytest.fail('weights were loaded before the flags were checked')


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('q.csv', b'', r'q\.csv must have the columns t, y, x; it is empty'),
        ('q.csv', b'frame,y,x\n0,1,2\n', "it has 'frame', 'y', 'x'"),
        ('q.csv', b'0,nan,2\n', r'q\.csv: query_points must be finite'),
        ('q.csv', b'0,48.5,2\n', '0 <= y <= 48 .*in row 0'),
        ('q.csv', b'-1,4,2\n', '0 <= t, 0 <= y <= 48 .*in row 0'),
        ('q.npz', b'PK\3\4', r'q\.npz must be a \.npz archive'),
        ('q.txt', b'0,1,2\n', r'must be a \.csv or \.npz file'),
        ('none.csv', None, r'no file none\.csv'),
    ],
    ids=['empty', 'names', 'nan', 'outside', 'early', 'cut', 'txt', 'missing'],
)
def test_queries_are_refused_before_the_work(
    run, clip, folder, monkeypatch, name, content, message
):
  monkeypatch.setattr(pretrained, 'load', refuse_to_load)
  if content is not None:
    (folder / name).write_bytes(content)
  before = os.listdir()
  run(
      'track', f'--video={clip}', '--model=tapnet', f'--queries={name}'
  ).check_refusal(1, message)
  assert os.listdir() == before


@pytest.mark.usefixtures('compile_once')
def test_queries_after_the_end_are_refused_before_encoding(run, clip, folder):
  (folder / 'late.csv').write_text('5,1,2\n')
  answer = run(
      'track', f'--video={clip}', '--model=tapnet', '--queries=late.csv'
  )
  answer.check_refusal(1, r'0 <= t <= 4, .*got \(5, 1, 2\)')
  assert 'encode' not in answer.err
  assert os.listdir() == ['late.csv']


@pytest.mark.parametrize(
    ('output', 'message'),
    [
        ('file', 'output must be a folder; file is a file'),
        ('file/deeper', r'file/deeper cannot \(Not a directory\)'),
        ('taken', r'taken/tracks\.npz is a folder where a file belongs'),
    ],
)
def test_outputs_are_refused_before_the_work(
    run, clip, folder, monkeypatch, output, message
):
  monkeypatch.setattr(pretrained, 'load', refuse_to_load)
  (folder / 'file').touch()
  (folder / 'taken' / 'tracks.npz').mkdir(parents=True)
  before = sorted(folder.rglob('*'))
  run(
      'track', f'--video={clip}', '--model=tapnet', f'--output={output}'
  ).check_refusal(1, message)
  assert sorted(folder.rglob('*')) == before


class _Attack:
  """What a hostile file would hold: a call of the shell."""

  def __reduce__(self):
    return os.system, ('touch mark',)


def write_attack(path):
  attack = np.empty((), object)
  attack[()] = {'params': _Attack(), 'state': {}}
  np.save(path, attack, allow_pickle=True)
  assert b'touch mark' in pickle.dumps(attack)


@pytest.mark.parametrize(
    ('name', 'write', 'message'),
    [
        ('none.npy', lambda p, w: None, r'no checkpoint none\.npy'),
        ('cut.st', lambda p, w: p.write_bytes(w[:999]), r'cut\.st .*truncated'),
        ('empty.npy', lambda p, w: p.touch(), r'empty\.npy is empty'),
        ('words.npy', lambda p, w: p.write_text('words'), 'unknown format'),
        ('attack.npy', lambda p, w: write_attack(p), r'attack\.npy: params'),
        ('folder', lambda p, w: p.mkdir(), 'is a folder'),
    ],
)
@pytest.mark.parametrize('command', ['track', 'convert'])
def test_checkpoints_are_refused(
    run, clip, weights, folder, command, name, write, message
):
  write(folder / name, weights.read_bytes())
  before = os.listdir()
  rest = {
      'track': [f'--video={clip}', '--output=new/results'],
      'convert': ['--output=new.npy'],
  }
  answer = run(command, f'--checkpoint={name}', *rest[command])
  answer.check_refusal(1, message)
  assert answer.err.count('\n') == 1
  assert os.listdir() == before


@pytest.mark.parametrize(
    ('flag', 'message'),
    [
        ('--model=tapir', 'must hold weights of tapir; .*those of tapnet'),
        ('--model=tapirr', 'did you mean tapir'),
        ('--resolution=60,64', 'resolution must be multiples of 8'),
    ],
)
def test_flags_that_do_not_fit_the_weights(
    run, clip, weights, folder, flag, message
):
  run(
      'track', f'--video={clip}', f'--checkpoint={weights}', flag
  ).check_refusal(1, message)
  assert not os.listdir(folder)


@pytest.mark.slow
def test_bare_command_tracks_the_demo_clip(run, folder):
  """Offline, with the weights in the package, and says how well."""
  answer = run('track')
  assert answer.status == 0
  assert 'tapir_tiny: ' in answer.out
  error = float(re.search(r'median error ([\d.]+) px', answer.out).group(1))
  assert error < 3
  assert os.listdir(folder) == ['tracks_demo']


@pytest.fixture
def offline(monkeypatch, tmp_path_factory):
  def fail(*args, **kwargs):
    raise socket.gaierror(socket.EAI_NONAME, 'Name or service not known')

  def wait(seconds):
    pytest.fail('waits, though there is no network to wait for')

  monkeypatch.setattr(socket, 'getaddrinfo', fail)
  monkeypatch.setattr('time.sleep', wait)
  monkeypatch.setenv('TAPJAX_CACHE', str(tmp_path_factory.mktemp('cache')))


@pytest.mark.usefixtures('offline')
def test_downloads_without_a_network(run, clip, folder):
  answer = run('track', f'--video={clip}', '--model=bootstapir')
  answer.check_refusal(1, 'cannot be reached .*go online, or download it')
  assert not os.listdir(folder)


@pytest.mark.usefixtures('offline')
def test_flags_are_checked_before_downloads(run, clip):
  run(
      'track', f'--video={clip}', '--model=tapnet', '--resolution=60,64'
  ).check_refusal(1, 'resolution must be multiples of 8')


@pytest.mark.usefixtures('compile_once')
@pytest.mark.parametrize(
    ('stage', 'left'),
    [('load', []), ('write_arrays', []), ('write_overlay', RESULTS[::2])],
)
def test_interrupts(run, clip, folder, monkeypatch, stage, left):
  def interrupt(*args, **kwargs):
    raise KeyboardInterrupt

  owner = pretrained if stage == 'load' else results
  monkeypatch.setattr(owner, stage, interrupt)
  answer = run(
      'track',
      f'--video={clip}',
      '--model=tapnet',
      '--grid=2',
      '--output=new/results',
  )
  answer.check_refusal(130, 'interrupted')
  files = [path.name for path in folder.rglob('*') if path.is_file()]
  assert sorted(files) == left
  assert bool(os.listdir()) == bool(left)


@pytest.mark.usefixtures('compile_once')
@pytest.mark.parametrize(
    ('error', 'message'),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), 'No space left'),
        (MemoryError('Unable to allocate'), 'allocate - choose a smaller'),
    ],
    ids=['disk', 'memory'],
)
def test_full_machines(run, clip, folder, monkeypatch, error, message):
  def fail(*args, **kwargs):
    raise error

  monkeypatch.setattr(results, 'write_arrays', fail)
  answer = run('track', f'--video={clip}', '--model=tapnet', '--grid=2')
  answer.check_refusal(1, message)
  assert not os.listdir(folder)


def test_resolutions_beyond_memory(run, clip, weights, folder):
  answer = run(
      'track',
      f'--video={clip}',
      f'--checkpoint={weights}',
      '--resolution=800000,800000',
  )
  answer.check_refusal(1, 'Out of memory .* choose a smaller --resolution')
  assert not os.listdir(folder)


def test_converting_keeps_weights_and_settings(run, weights, folder):
  answer = run(
      'convert', f'--checkpoint={weights}', '--output=copy.safetensors'
  )
  assert answer == (0, 'tapnet: wrote copy.safetensors\n', '')
  copy = checkpoints.read_native(folder / 'copy.safetensors')
  original = checkpoints.read_native(weights)
  assert copy.metadata == original.metadata
  assert copy.arrays.keys() == original.arrays.keys()
  for name, array in original.arrays.items():
    np.testing.assert_array_equal(copy.arrays[name], array)


@pytest.mark.parametrize(
    ('output', 'message'),
    [
        ('new.bin', r'must end in \.safetensors or \.npy'),
        ('none/new.npy', 'there is no folder none - create it'),
        ('folder.npy', 'is a folder'),
    ],
)
def test_conversions_that_cannot_be_written(
    run, weights, folder, output, message
):
  (folder / 'folder.npy').mkdir()
  run('convert', f'--checkpoint={weights}', f'--output={output}').check_refusal(
      1, message
  )
  assert os.listdir() == ['folder.npy']


@pytest.mark.filterwarnings('default')
def test_warnings_take_a_line(run, weights, folder, monkeypatch):
  load = pretrained.load

  def warn(*args, **kwargs):
    warnings.warn('a word\nof warning', stacklevel=1)
    return load(*args, **kwargs)

  monkeypatch.setattr(pretrained, 'load', warn)
  answer = run('convert', f'--checkpoint={weights}', '--output=new.safetensors')
  assert answer.status == 0
  assert answer.err == 'tapjax: warning: a word; of warning\n'
  assert os.listdir(folder) == ['new.safetensors']


def test_bars_reach_their_total_whatever_a_file_promised(capsys):
  with cli._Progress() as progress:
    blocks = iter(make_frames(6, 1, 1).reshape(3, 2, 1, 1, 3))
    assert len(list(progress.follow('read', blocks, 125))) == 3
  with contextlib.suppress(ValueError), cli._Progress() as progress:
    progress.report('encode', 1, 2)
    raise ValueError
  err = capsys.readouterr().err
  assert re.search(r'read: 100%\|[^|]*\| 6/6', err)
  assert err.endswith('\r')


def test_errors_of_our_own_are_not_hidden(run, weights, monkeypatch):
  def fail(*args, **kwargs):
    raise TypeError('a mistake of the program')

  monkeypatch.setattr(pretrained, 'load', fail)
  with pytest.raises(TypeError, match='mistake'):
    run('convert', f'--checkpoint={weights}', '--output=new.npy')


def test_python_runs_the_package(folder):
  answer = subprocess.run(
      [sys.executable, '-m', 'tapjax', 'track', '--model=tapnet', '--video=no'],
      env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
      capture_output=True,
      check=False,
      text=True,
  )
  Answer(answer.returncode, answer.stdout, answer.stderr).check_refusal(
      1, "no video file 'no'"
  )
  assert answer.stderr.count('\n') == 1
  assert not os.listdir(folder)


@pytest.mark.usefixtures('folder')
def test_following_objects_writes_everything(run, clip, weights):
  answer = run(
      'track-objects',
      f'--video={clip}',
      f'--checkpoint={weights}',
      '--box=10,10,40,30',
      '--box=30,20,60,44',
      '--set=min_visible_share=0',
      '--set=max_points=4',
  )
  assert answer.status == 0, answer.err
  assert answer.out == (
      'tapnet: 2 objects in 5 frames; wrote objects.csv, objects.txt, '
      'objects.mp4 to objects_clip\n'
  )
  names = ['objects.csv', 'objects.mp4', 'objects.txt']
  assert sorted(os.listdir('objects_clip')) == names
  with open('objects_clip/objects.csv', newline='') as file:
    rows = list(csv.DictReader(file))
  assert [float(rows[0][side]) for side in ('left', 'bottom')] == [10, 30]
  with video_io.open_video('objects_clip/objects.mp4') as reader:
    assert reader.info == (48, 64, 12.5, 5)
  assert re.search(r'track: 100%\|[^|]*\| 5/5', answer.err)
  # What was found can be what is looked for.
  answer = run(
      'track-objects',
      f'--video={clip}',
      f'--checkpoint={weights}',
      '--detections=objects_clip/objects.txt',
      '--output=again',
  )
  assert answer.status == 0, answer.err
  assert sorted(os.listdir('again')) == names


@pytest.mark.parametrize(
    ('arguments', 'status', 'message'),
    [
        (['--box=1,1,5,5'], 2, '--video must name the video'),
        (['--video=CLIP', '--box=1,1,5'], 2, 'LEFT,TOP,RIGHT,BOTTOM'),
        (['--video=CLIP', '--box=1,1,99,5'], 2, 'inside of the video, 64x48'),
        (['--video=CLIP', '--box=1,1,x,5'], 2, '--box must be numbers'),
        (
            ['--video=CLIP', '--box=1,1,5,5', '--detections=a.txt'],
            2,
            'one of --detections and --box',
        ),
        (['--video=CLIP', '--set=window'], 2, '--set must be NAME=VALUE'),
        (['--video=CLIP', '--set=windw=3'], 1, 'did you mean window'),
        (['--video=CLIP', '--set=window=x'], 1, 'window must be int'),
        (['--video=CLIP', '--detections=no.txt'], 1, 'there is no file no.txt'),
        (['--video=no.mp4'], 1, 'no.mp4'),
    ],
    ids=str,
)
def test_objects_are_refused_before_the_work(
    run, clip, folder, monkeypatch, arguments, status, message
):
  monkeypatch.setattr(pretrained, 'load', refuse_to_load)
  arguments = [text.replace('CLIP', str(clip)) for text in arguments]
  answer = run('track-objects', *arguments)
  assert answer.status == status
  assert message in answer.err
  assert len(answer.err.splitlines()) == 1
  assert not list(folder.iterdir())


def test_boxes_of_frames_that_are_not_there(run, clip, weights, folder):
  answer = run(
      'track-objects',
      f'--video={clip}',
      f'--checkpoint={weights}',
      '--box=1,1,9,9',
      '--frame=5',
  )
  assert answer.status == 1
  assert '--frame must be one of the 5 frames, 0 to 4; got 5' in answer.err
  assert not list(folder.iterdir())
