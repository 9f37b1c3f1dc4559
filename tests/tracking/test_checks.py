"""Checks of what users pass in: what is taken, and how the rest is refused."""

import re
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


COLORS = np.random.default_rng(0).integers(0, 256, (5, 8, 10, 3), np.uint8)
GRAY = COLORS[..., :1].repeat(3, axis=-1)


def follow_advice(check, value, name):
  """Does what the message says, and returns what that comes to."""
  with pytest.raises(ValueError, match=rf'^{name} must') as caught:
    check(value)
  code = re.search(rf'(?:pass |: |\? )(\S*\(*{name}\b.*)$', str(caught.value))
  return eval(code[1], {'numpy': np, name: value})


@pytest.mark.parametrize(
    ('frames', 'expected'),
    [
        (GRAY[..., 0], GRAY),
        (GRAY[..., :1], GRAY),
        (GRAY[:, None, ..., 0], GRAY),
        (COLORS[0], COLORS[:1]),
        (GRAY[0, ..., 0], GRAY[:1]),
        (np.pad(COLORS, ((0, 0),) * 3 + ((0, 1),)), COLORS),
        (np.pad(COLORS[0], ((0, 0),) * 2 + ((0, 1),)), COLORS[:1]),
        (np.moveaxis(COLORS, -1, 1), COLORS),
        (np.moveaxis(COLORS, -1, 0), COLORS),
        (np.moveaxis(COLORS[0], -1, 0), COLORS[:1]),
        (COLORS[None], COLORS),
        (COLORS[None].repeat(2, axis=0), COLORS),
        (np.moveaxis(COLORS, -1, 1)[None], COLORS),
        (np.moveaxis(COLORS, -1, 0)[None], COLORS),
        (COLORS.astype(np.int64), COLORS),
        (COLORS.astype(np.float32), COLORS),
        (COLORS / 255, COLORS),
        ((COLORS / 255).astype(np.float32), COLORS),
        (COLORS / 127.5 - 1, COLORS),
        (COLORS.astype(np.uint16) * 257, COLORS),
    ],
    ids=[
        'gray',
        'gray-channel',
        'gray-channel-first',
        'one-frame',
        'one-gray-frame',
        'rgba',
        'one-rgba-frame',
        'channels-second',
        'channels-first',
        'one-frame-channels-first',
        'batch',
        'batch-of-two',
        'batch-channels-second',
        'batch-channels-first',
        'whole-numbers',
        'floats',
        'from-0-to-1',
        'from-0-to-1-single',
        'from-minus-1-to-1',
        '16-bit',
    ],
)
def test_advice_on_frames_is_right(frames, expected):
  mended = follow_advice(checks.check_frames, frames, 'frames')
  np.testing.assert_array_equal(checks.check_frames(mended), expected)


@pytest.mark.parametrize(
    'frame',
    [
        COLORS[:1],
        np.moveaxis(COLORS[0], -1, 0),
        np.pad(COLORS[0], ((0, 0),) * 2 + ((0, 1),)),
        COLORS[0] / 255,
    ],
    ids=['time-axis', 'channels-first', 'rgba', 'from-0-to-1'],
)
def test_advice_on_one_frame_is_right(frame):
  mended = follow_advice(checks.check_frame, frame, 'frame')
  np.testing.assert_array_equal(checks.check_frame(mended), COLORS[0])


def test_points_in_the_place_of_frames_are_recognized():
  with pytest.raises(ValueError, match=r'\(5, 3\) - are these the points\? fr'):
    checks.check_frames(np.zeros((5, 3), np.float32))


def test_other_arrays_are_told_how_to_become_frames():
  class Tensor:

    def __array__(self, dtype=None, copy=None):
      return COLORS

  tensor = Tensor()
  mended = follow_advice(checks.check_frames, tensor, 'frames')
  np.testing.assert_array_equal(mended, COLORS)
  Tensor.__module__ = 'torch'
  with pytest.raises(ValueError, match=r'pass frames\.cpu\(\)\.numpy\(\)$'):
    checks.check_frames(tensor)


@pytest.mark.parametrize(
    ('frames', 'message'),
    [
        (COLORS > 9, r'a mask\? frames.astype\(numpy.uint8\) \* 255 is'),
        (COLORS * 2.0, 'values are from 0 to 510; bring colors to that range'),
        (np.full((1, 2, 2, 3), np.nan), 'from nan to nan; bring colors'),
        (np.zeros((0, 2, 2, 3)), 'got float64 - bring colors to that range'),
        (np.zeros((1, 2, 2, 3), complex), 'got complex128 - bring colors'),
    ],
    ids=['mask', 'wide', 'nan', 'empty', 'complex'],
)
def test_other_colors_are_described(frames, message):
  with pytest.raises(ValueError, match=message):
    checks.check_frames(frames)


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
        (np.asarray([[0, 1, 2]]), 'must be float .*; got int64 - convert'),
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


@pytest.mark.parametrize(
    ('columns', 'order'),
    [
        ([0, 2, 1], r'\(t, x, y\)'),
        ([2, 1, 0], r'\(x, y, t\)'),
        ([1, 2, 0], r'\(y, x, t\)'),
    ],
    ids=str,
)
def test_other_orders_are_recognized(columns, order):
  points = np.float32([[3, 40, 60], [9, 12, 50]])
  given = points[:, columns]

  def check(given):
    checks.check_queries_inside(given, 10, (48, 64))

  mended = follow_advice(check, given, 'query_points')
  np.testing.assert_array_equal(mended, points)
  with pytest.raises(ValueError, match=f'all lie inside as {order}: pass'):
    check(given)


def test_orders_that_nothing_tells_are_asked_for():
  for points in ([[3, 99, 99]], [[3, 60, 40], [3, 40, 60]]):
    with pytest.raises(ValueError, match=r'is the order \(t, y, x\), in pix'):
      checks.check_queries_inside(np.float32(points), 10, (48, 64))
  # Where the end is unknown, any number may be a time.
  with pytest.raises(ValueError, match=r'is the order \(t, y, x\), in pix'):
    checks.check_queries_inside(np.float32([[60, 40, 90]]), None, (48, 64))


def test_points_of_a_frame_lie_in_it():
  checks.check_points_inside(np.float32([[48, 64], [0, 0]]), (48, 64))
  swapped = np.float32([[60, 40], [10, 40]])
  with pytest.raises(ValueError, match=r'^points_yx must lie in the frame, .y'):
    checks.check_points_inside(swapped, (48, 64))

  def check(points):
    checks.check_points_inside(points, (48, 64))

  mended = follow_advice(check, swapped, 'points_yx')
  np.testing.assert_array_equal(mended, swapped[:, ::-1])
  with pytest.raises(ValueError, match=r'is the order \(y, x\), in pixels'):
    check(np.float32([[60, 70]]))


def test_shares_of_a_frame_are_recognized():
  shares = np.float32([[0.1, 0.9], [1, 0]])
  with pytest.warns(UserWarning, match='all 2 query_points lie in the first'):
    checks.warn_of_shares(shares, (48, 64), 'query_points', 1)
  with pytest.warns(UserWarning, match='height, 48, and width, 64'):
    checks.warn_of_shares(shares, (48, 64), 'query_points', 1)
  for points, size in (
      (shares[:1], (48, 64)),
      (shares * 1.2, (48, 64)),
      (shares, (1, 1)),
      (np.zeros((3, 2), np.float32), (48, 64)),
  ):
    checks.warn_of_shares(points, size, 'query_points', 1)
  with pytest.raises(ValueError, match='from -1 to 1: are they shares'):
    checks.check_queries_inside(np.float32([[0, -0.5, 0.5]]), 10, (48, 64))


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
    ],
)
def test_memory_is_read(text, expected):
  assert checks.check_memory(text) == expected


@pytest.mark.parametrize('memory', ['4', 'GB', '4 gb', '-1MB', 0, 1.5, None])
def test_what_is_no_memory(memory):
  with pytest.raises(ValueError, match='max_memory must be a number of bytes'):
    checks.check_memory(memory)


@pytest.mark.parametrize(
    ('shape', 'hint'),
    [
        ((4, 6, 5), r'gray\? repeat the channel'),
        ((4, 6, 5, 1), r'gray\? repeat the channel'),
        ((4, 6, 5, 4), r'RGBA\? drop the last channel: frames\[..., :3\]'),
        ((4, 3, 6, 5), r'channels first\? pass frames.transpose\(0, 2, 3, 1\)'),
        ((1, 4, 6, 5, 3), r'a batch of one\? pass frames\[0\]'),
        ((2, 4, 6, 5, 3), r'a batch\? pass one video at a time'),
    ],
)
def test_frames_of_a_wrong_shape_come_with_the_mend(shape, hint):
  with pytest.raises(ValueError, match=hint):
    checks.check_frames(np.zeros(shape, np.uint8))


def test_colors_between_zero_and_one_come_with_the_mend():
  frames = np.random.default_rng(0).random((2, 4, 5, 3), np.float32)
  with pytest.raises(ValueError, match=r'pass \(255 \* frames\).round'):
    checks.check_frames(frames)
  with pytest.raises(ValueError, match=r'pass \(127.5 \* \(frames \+ 1\)\)'):
    checks.check_frames(2 * frames - 1)


def test_bfloat16_queries_are_floats():
  points = checks.check_query_points(np.asarray([[0, 1, 2.5]], jnp.bfloat16))
  np.testing.assert_array_equal(points, [[0, 1, 2.5]])
  assert points.dtype == np.float32


def test_whole_numbers_in_an_archive_are_read(tmp_path):
  np.savez(tmp_path / 'q.npz', query_points=np.asarray([[0, 1, 2]]))
  points = checks.read_query_points(tmp_path / 'q.npz')
  assert points.dtype == np.float32
  assert points.tolist() == [[0, 1, 2]]


def test_normalized_queries_are_named():
  points = np.float32([[0, 0.5, 0.2], [1, 0.25, 1.0]])
  with pytest.warns(UserWarning, match='first pixel of 60x40 ones'):
    checks.check_queries_inside(points, 5, (40, 60))
  # One query, or one place, may well be in the first pixel.
  checks.check_queries_inside(points[:1], 5, (40, 60))
  checks.check_queries_inside(points[[0, 0]], 5, (40, 60))
  checks.check_queries_inside(10 * points, 50, (40, 60))


def test_swapped_queries_are_named():
  points = np.float32([[0, 50, 20], [1, 10, 30]])
  with pytest.raises(ValueError, match=r'fit as \(t, x, y\).*\[0, 2, 1\]'):
    checks.check_queries_inside(points, 5, (40, 60))
