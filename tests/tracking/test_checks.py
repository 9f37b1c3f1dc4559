"""Checks of what users pass in: what is taken, and how the rest is refused."""

import zipfile

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from tapjax.tracking import checks


def test_frames_are_taken_as_they_are():
  frames = np.zeros((2, 4, 6, 3), np.uint8)
  assert checks.check_frames(frames) is frames
  assert isinstance(checks.check_frames(jnp.asarray(frames)), np.ndarray)


@pytest.mark.parametrize(
    ('frames', 'message'),
    [
        ([[0]], 'got list - read a file with tapjax.read_video'),
        ('video.mp4', 'got str'),
        (None, 'got NoneType'),
        (np.zeros((2, 4, 6, 3)), 'must be uint8 in 0 to 255; got float64'),
        (np.zeros((2, 4, 6, 3), np.int64), 'got int64'),
        (np.zeros((2, 5, 6, 7), np.uint8), r'got \(2, 5, 6, 7\)$'),
        (np.zeros(6, np.uint8), r'must be \[t, h, w, 3\]; got \(6,\)$'),
        (np.zeros((0, 4, 6, 3), np.uint8), 'at least one pixel of one frame'),
        (np.zeros((2, 4, 0, 3), np.uint8), 'at least one pixel of one frame'),
    ],
    ids=[
        'list',
        'path',
        'none',
        'float',
        'signed',
        'seven-channels',
        'flat',
        'no-frames',
        'no-pixels',
    ],
)
def test_frames_are_refused(frames, message):
  with pytest.raises(ValueError, match=message) as caught:
    checks.check_frames(frames)
  assert str(caught.value).startswith('frames must')


def test_points_in_the_place_of_frames_are_recognized():
  with pytest.raises(ValueError, match=r'\(5, 3\) - are these the points\? fr'):
    checks.check_frames(np.zeros((5, 3), np.float32))


@pytest.mark.parametrize(
    'points',
    [
        [[0.0, 1, 2]],
        np.asarray([[0, 1, 2]], np.float64),
        np.asarray([[0, 1, 2]], np.float16),
        jnp.asarray([[0.0, 1.0, 2.0]]),
        jnp.asarray([[0.0, 1.0, 2.0]], jnp.bfloat16),
        np.asarray([[0, 1, 2]], ml_dtypes.bfloat16),
    ],
    ids=['list', 'double', 'half', 'jax', 'jax-bfloat16', 'bfloat16'],
)
def test_query_points_become_float32(points):
  checked = checks.check_query_points(points)
  assert isinstance(checked, np.ndarray)
  assert checked.dtype == np.float32
  np.testing.assert_array_equal(checked, [[0, 1, 2]])


@pytest.mark.parametrize(
    'points', [[], np.zeros((0, 3)), np.zeros((0, 3), int)], ids=repr
)
def test_no_query_points_are_fine(points):
  checked = checks.check_query_points(points)
  assert checked.shape == (0, 3)
  assert checked.dtype == np.float32


@pytest.mark.parametrize(
    ('points', 'message'),
    [
        (
            np.asarray([[0, 1, 2]]),
            'must be float .*; got int64 - pass numpy',
        ),
        (np.asarray([[0, 1, 2j]]), 'must be float .*; got complex128'),
        ([['0', '1', '2']], 'must be float.*got <U1 - pass numbers, one row'),
        ('p.csv', r"must be float \[n, 3\], .*; got 'p.csv' - pass numbers"),
        (None, 'must be float .*; got None - pass numbers, one row per point'),
        ({'t': 0}, "must be float .*; got {'t': 0} - pass numbers"),
        (np.zeros(3), r'must be \[n, 3\].*; got \(3,\) - one row per point'),
        (
            np.zeros((2, 2)),
            r'must.* numpy.insert\(query_points, 0, 0, axis=1\)',
        ),
        (np.zeros((1, 2, 3)), r'must be \[n, 3\].*without a batch axis'),
        (
            [[0.0, 1, 2], [0, np.nan, 2], [0, 1, np.inf]],
            r'must be finite; got \[0.0, nan, 2.0\] in row 1 \(2 such rows\)',
        ),
        ([[0, 1e39, 2]], r'must be finite; got \[0.0, 1e\+39, 2.0\] in row 0'),
    ],
    ids=[
        'int',
        'complex',
        'text',
        'path',
        'none',
        'dict',
        'flat',
        'pairs',
        'batch',
        'nan',
        'overflow',
    ],
)
def test_query_points_are_refused(points, message):
  with pytest.raises(ValueError, match=f'query_points {message}'):
    checks.check_query_points(points)


@pytest.mark.parametrize(
    ('point', 'inside'),
    [
        ((0, 0, 0), True),
        ((9, 48, 64), True),
        ((4.5, 24, 64), True),
        ((-0.1, 1, 1), False),
        ((9.1, 1, 1), False),
        ((0, -0.5, 1), False),
        ((0, 48.1, 1), False),
        ((0, 1, 64.1), False),
    ],
    ids=str,
)
def test_queries_lie_in_the_video(point, inside):
  points = np.asarray([[0, 9, 9], point], np.float32)
  if inside:
    checks.check_queries_inside(points, 10, (48, 64))
    return
  with pytest.raises(ValueError, match=r'in row 1 \(1 such rows\)') as caught:
    checks.check_queries_inside(points, 10, (48, 64))
  assert '0 <= t <= 9, 0 <= y <= 48 and 0 <= x <= 64' in str(caught.value)


def test_queries_lie_in_a_video_whose_end_is_unknown():
  checks.check_queries_inside(np.float32([[1e6, 1, 1]]), None, (48, 64))
  for point in ([-1, 1, 1], [0, 49, 1]):
    with pytest.raises(ValueError, match='with 0 <= t, 0 <= y <= 48'):
      checks.check_queries_inside(np.float32([point]), None, (48, 64))


def test_resolutions_are_two_integers():
  assert checks.check_resolution([64, np.int64(128)]) == (64, 128)


@pytest.mark.parametrize(
    'resolution',
    [256, '64', (64,), (64, 64, 3), (0, 64), (64, -8), (64.0, 64), None],
    ids=repr,
)
def test_resolutions_are_refused(resolution):
  with pytest.raises(ValueError, match=r'resolution must be \(height, width\)'):
    checks.check_resolution(resolution)


def test_chunks_hold_at_least_one():
  checks.check_chunks(None, None)
  checks.check_chunks(1, np.int64(2))
  with pytest.raises(ValueError, match=r'query_chunk .* above 0; got True'):
    checks.check_chunks(True, 1)
  with pytest.raises(ValueError, match=r'query_chunk .* above 0; got 0'):
    checks.check_chunks(0, 1)
  with pytest.raises(ValueError, match=r'frame_chunk .* above 0; got -1'):
    checks.check_chunks(None, -1)
  with pytest.raises(ValueError, match=r'query_chunk .* above 0; got 2\.5'):
    checks.check_chunks(2.5, 1)


@pytest.mark.parametrize(
    ('text', 'points'),
    [
        ('t,y,x\n0,10,20\n3,5.5,6\n', [[0, 10, 20], [3, 5.5, 6]]),
        ('0,10,20\n3,5.5,6', [[0, 10, 20], [3, 5.5, 6]]),
        ('x, T ,y\r\n20,0,10\r\n', [[0, 10, 20]]),
        ('\n0,10,20\n\n\n3,5.5,6\n\n', [[0, 10, 20], [3, 5.5, 6]]),
        ('\ufefft,y,x\n0,10,20\n', [[0, 10, 20]]),
        ('"t","y","x"\n"0","1e1"," 20 "\n', [[0, 10, 20]]),
        ('t,y,x\n', np.zeros((0, 3))),
    ],
    ids=['header', 'plain', 'order', 'blank', 'bom', 'quoted', 'none'],
)
def test_tables_of_points(tmp_path, text, points):
  path = tmp_path / 'points.csv'
  path.write_bytes(text.encode())
  read = checks.read_query_points(path)
  assert read.dtype == np.float32
  np.testing.assert_array_equal(read, points)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('', 'must have the columns t, y, x; it is empty'),
        ('\n\n', 'it is empty'),
        ('frame,y,x\n0,1,2\n', "columns t, y, x, .*it has 'frame', 'y', 'x'"),
        ('t;y;x\n0;1;2\n', "separated by commas; it has 't;y;x'"),
        ('t,y,x,z\n0,1,2,3\n', 'it has'),
        ('t,t,x\n0,1,2\n', 'it has'),
        ('0,1,2,3\n', "three numbers t, y, x a line; line 1 is '0,1,2,3'"),
        ('t,y,x\n\n0,1\n', "line 3 is '0,1'"),
        ('t,y,x\n0,1,two\n', "line 2 is '0,1,two'"),
        ('t,y,x\n0,1,\n', "line 2 is '0,1,'"),
        ('t,y,x\n0,1,2\nnan,1,2\n', r'must be finite; got \[nan, .* in row 1'),
        ('0,1,1e999\n', 'must be finite'),
        ('0,1,\x002\n', 'points.csv must'),
    ],
    ids=[
        'empty',
        'blank',
        'names',
        'semicolons',
        'four-names',
        'twice',
        'four',
        'two',
        'word',
        'missing',
        'nan',
        'infinite',
        'zero-byte',
    ],
)
def test_tables_are_refused(tmp_path, text, message):
  path = tmp_path / 'points.csv'
  path.write_text(text)
  with pytest.raises(ValueError, match=message) as caught:
    checks.read_query_points(path)
  assert str(path) in str(caught.value)


def test_tables_that_are_no_text(tmp_path):
  (tmp_path / 'points.csv').write_bytes(bytes(range(256)))
  with pytest.raises(
      ValueError, match=r'points\.csv must be a \.csv text file'
  ):
    checks.read_query_points(tmp_path / 'points.csv')


@pytest.mark.parametrize('dtype', [np.int64, np.uint8, np.float64])
def test_whole_numbers_are_read_from_either_file(tmp_path, dtype):
  points = np.asarray([[0, 1, 2], [3, 4, 5]], dtype)
  np.savez(tmp_path / 'points.npz', query_points=points)
  np.savetxt(tmp_path / 'points.csv', points, '%d', ',')
  for name in ('points.npz', 'points.csv'):
    read = checks.read_query_points(tmp_path / name)
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, points)


@pytest.mark.parametrize('name', ['points.npz', 'points.NPZ'])
def test_archives_of_points(tmp_path, name):
  with (tmp_path / name).open('wb') as file:
    np.savez(file, query_points=np.asarray([[0, 1, 2.5]]), other=np.zeros(3))
  read = checks.read_query_points(tmp_path / name)
  np.testing.assert_array_equal(read, np.float32([[0, 1, 2.5]]))


@pytest.mark.parametrize(
    ('arrays', 'message'),
    [
        ({'points': np.zeros((1, 3))}, 'must have an array .*; it has points'),
        ({}, 'must have an array query_points .*; it has none'),
        ({'query_points': np.zeros((1, 3), bool)}, 'must be float .* got bool'),
        ({'query_points': np.zeros(3)}, r'must be \[n, 3\]'),
        ({'query_points': np.full((1, 3), np.nan)}, 'must be finite'),
        ({'query_points': np.asarray([{}])}, 'of numbers; it cannot be read'),
    ],
    ids=['name', 'none', 'bool', 'flat', 'nan', 'pickle'],
)
def test_archives_are_refused(tmp_path, arrays, message):
  path = tmp_path / 'points.npz'
  np.savez(path, **arrays)
  with pytest.raises(ValueError, match=message) as caught:
    checks.read_query_points(path)
  assert str(path) in str(caught.value)


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_damaged_archives_are_read_or_refused(tmp_path, save):
  """Whatever byte is wrong or missing, the error names the file."""
  path = tmp_path / 'points.npz'
  save(path, query_points=np.linspace(0, 1, 60).reshape(20, 3))
  data = path.read_bytes()
  damaged = [data[:size] for size in range(0, len(data), 23)]
  damaged += [
      data[:place] + bytes([byte]) + data[place + 1 :]
      for place in range(0, len(data), 3)
      for byte in (0, 255, data[place] ^ 1)
  ]
  for content in damaged:
    path.write_bytes(content)
    try:
      checks.read_query_points(path)
    except ValueError as error:
      assert str(path) in str(error)  # noqa: PT017


def test_archives_of_other_kinds(tmp_path):
  path = tmp_path / 'points.npz'
  with path.open('wb') as file:
    np.save(file, np.zeros((1, 3)))
  with pytest.raises(ValueError, match=r'must be a \.npz archive; it is cut'):
    checks.read_query_points(path)
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('query_points.npy', 'words')
  with pytest.raises(ValueError, match=r'points\.npz'):
    checks.read_query_points(path)


def test_point_files_that_are_not_there(tmp_path):
  (tmp_path / 'folder.csv').mkdir()
  for name in ('none.csv', 'folder.csv'):
    with pytest.raises(FileNotFoundError, match=name):
      checks.read_query_points(tmp_path / name)
  with pytest.raises(ValueError, match=r'\.csv or \.npz file; got .*note\.txt'):
    checks.read_query_points(tmp_path / 'note.txt')


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('4GB', 4 * 10**9),
        (4e9, 4 * 10**9),
        ('1.5 MB', 1_500_000),
        ('2GiB', 2**31),
        ('9B', 9),
        ('4000000000', 4 * 10**9),
        ('4e9', 4 * 10**9),
    ],
)
def test_memory_is_read(text, expected):
  assert checks.check_memory(text) == expected


@pytest.mark.parametrize(
    'memory',
    ['GB', '4 gb', '-1MB', '0.5B', '9' * 400 + 'B', 0, 1.5, True, None],
    ids=lambda memory: str(memory)[:5],
)
def test_what_is_no_memory(memory):
  with pytest.raises(ValueError, match='max_memory must be a number of bytes'):
    checks.check_memory(memory)
