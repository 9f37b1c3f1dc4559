"""`tapjax track` as its users meet it: files, refusals, interrupts."""

import csv
import errno
import os
import re
import socket

import numpy as np
import pytest

from tapjax import pretrained
from tapjax.data.procedural import demo
from tapjax.media import track_files
from tapjax.media import video as video_files
from tests.cli.command_runs import make_frames
from tests.cli.command_runs import refuse_to_load

RESULTS = ['tracks.csv', 'tracks.mp4', 'tracks.npz']
STAGES = ['load', 'read', 'encode', 'track', 'draw']


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
  with video_files.open_video('new/results/tracks.mp4') as reader:
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
  video_files.write_video('odd.mp4', make_frames(*shape), 25)
  answer = run('track', '--video=odd.mp4', '--model=tapnet', '--grid=2')
  assert answer.status == 0
  assert f'4 points through {shape[0]} frames' in answer.out
  with np.load('tracks_odd/tracks.npz') as arrays:
    assert arrays['positions'].shape == (4, shape[0], 2)
  drawn = video_files.read_video(folder / 'tracks_odd' / 'tracks.mp4')
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
@pytest.mark.slow
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
    ],
    ids=lambda value: ' '.join(value) if isinstance(value, list) else '',
)
def test_wrong_flags(run, folder, arguments, message):
  run(*arguments).check_refusal(2, message)
  assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('text.mp4', b'words\n' * 99, 'text.mp4.* is not a video'),
        ('image.png', b'\x89PNG\r\n\x1a\n' + bytes(999), 'not a readable pic'),
        ('song.mp3', b'ID3\3\0\0\0\0\0\0' + b'\xff\xfb\x90\0' * 99, 'song.mp3'),
        ('empty.mp4', b'', 'empty.mp4.* is empty'),
        ('folder', None, 'is a folder that holds no .png, .*; it is empty'),
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

  owner = pretrained if stage == 'load' else track_files
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

  monkeypatch.setattr(track_files, 'write_arrays', fail)
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


@pytest.mark.parametrize('command', ['track', 'edit', 'live', 'track-objects'])
def test_a_budget_is_a_number_of_bytes(run, clip, command):
  chosen = ['--region=1,1,9,9', '--color=1,2,3'] if command == 'edit' else []
  run(command, f'--video={clip}', '--max_memory=', *chosen).check_refusal(
      1, 'max_memory must be a number of bytes'
  )
