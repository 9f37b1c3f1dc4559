"""Video files: round trips, odd sizes, and every kind of unreadable file."""

import pathlib

import av
import numpy as np
import pytest

from tapjax.media import video as video_files
from tests.support import videos
from tests.support.videos import make_frames


@pytest.fixture(scope='module')
def clip(tmp_path_factory):
  path = tmp_path_factory.mktemp('clip') / 'clip.mp4'
  frames = make_frames(50, 96, 128)
  video_files.write_video(path, frames, 25)
  return path, frames


@pytest.mark.parametrize(
    ('num', 'height', 'width'),
    [
        (3, 1, 1),
        (1, 7, 9),
        (2, 2, 3),
        (2, 4000, 20),
        (5, 101, 155),
        (1, 64, 64),
        (2, 1, 3001),
    ],
)
def test_round_trip_keeps_size_count_and_colors(tmp_path, num, height, width):
  frames = make_frames(num, height, width)
  video_files.write_video(tmp_path / 'v.mp4', frames, 30000 / 1001)
  with video_files.open_video(tmp_path / 'v.mp4') as reader:
    assert reader.info == (height, width, pytest.approx(30000 / 1001), num)
  read = video_files.read_video(tmp_path / 'v.mp4')
  assert read.shape == frames.shape
  assert read.dtype == np.uint8
  assert np.abs(read.astype(int) - frames).mean() < 4


def test_written_video_plays_everywhere(tmp_path):
  video_files.write_video(tmp_path / 'v.mp4', make_frames(3, 33, 47), 25)
  with av.open(str(tmp_path / 'v.mp4')) as container:
    stream = container.streams.video[0]
    context = stream.codec_context
    assert (context.name, context.pix_fmt) == ('h264', 'yuv420p')
    assert (context.width, context.height) == (48, 34)
    # BT.709, television range.
    assert (context.colorspace, context.color_range) == (1, 1)
    assert (context.color_primaries, context.color_trc) == (1, 1)
  content = (tmp_path / 'v.mp4').read_bytes()
  assert content.index(b'moov') < content.index(b'mdat')


def test_blocks_are_the_video_in_pieces(clip):
  path, _ = clip
  with video_files.open_video(path) as reader:
    blocks = list(reader.read_blocks(16))
  assert [len(block) for block in blocks] == [16, 16, 16, 2]
  np.testing.assert_array_equal(
      np.concatenate(blocks), video_files.read_video(path)
  )


def test_leaving_early_ends_cleanly(clip):
  path, frames = clip
  with video_files.open_video(path) as reader:
    first = next(iter(reader))
  assert first.shape == frames.shape[1:]


@pytest.mark.parametrize(
    'name', ['two words.mp4', 'видео ü.mp4', '-dash.mp4', 'a:b %03d.mp4']
)
def test_unusual_names(tmp_path, monkeypatch, name):
  monkeypatch.chdir(tmp_path)
  video_files.write_video(name, make_frames(2, 16, 16), 25)
  assert video_files.read_video(pathlib.Path(name)).shape == (2, 16, 16, 3)
  assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ('name', 'expect'),
    [
        ('rot90', lambda f: np.rot90(f, axes=(1, 2))),
        ('rot180', lambda f: f[:, ::-1, ::-1]),
        ('rot270', lambda f: np.rot90(f, -1, axes=(1, 2))),
        ('hflip', lambda f: f[:, :, ::-1]),
        ('vflip', lambda f: f[:, ::-1]),
        ('transpose', lambda f: f.swapaxes(1, 2)),
    ],
)
def test_rotated_video_is_upright(tmp_path, clip, name, expect):
  path, _ = clip
  videos.set_matrix(tmp_path / 'phone.mp4', path, name)
  read = video_files.read_video(tmp_path / 'phone.mp4')
  np.testing.assert_array_equal(read, expect(video_files.read_video(path)))


def test_frames_keep_their_times_through_files(tmp_path):
  frames = make_frames(9, 32, 48)
  times = [0.0, 0.04, 0.08, 0.5, 0.54, 1.0, 1.1, 3.0, 3.04]
  videos.encode(tmp_path / 'v.mp4', frames, times=times)
  for path in ('v.mp4', 'w.mp4'):
    with video_files.open_video(tmp_path / path) as reader:
      read = np.stack(list(reader))
    assert (np.diff(read.mean(axis=(1, 2, 3))) > 0).all()
    np.testing.assert_allclose(reader.times, times, atol=1e-3)
    if path == 'v.mp4':
      video_files.write_video(
          tmp_path / 'w.mp4', read, reader.info.frame_rate, times=reader.times
      )


def test_times_are_increasing_where_a_file_has_none():
  times = []
  clock = video_files.Clock(10.0, times)
  for time in (None, None, 5.0, 5.5, 5.5, 4.0, None, 7.0):
    clock.add(time)
  np.testing.assert_allclose(times, [0, 0.1, 0.2, 0.7, 0.8, 0.9, 1.0, 2.2])


def test_facts_are_never_read_from_text(tmp_path):
  text = 'Video: Sony A7, 120 fps\nDuration: 02:00:00.00'
  note = 'tapjax frames of height 63 width 95'
  for key in ('title', 'comment', 'description'):
    videos.encode(
        tmp_path / 'v.mp4',
        make_frames(12, 64, 96),
        metadata={key: text, 'artist': note},
    )
    with video_files.open_video(tmp_path / 'v.mp4') as reader:
      assert reader.info == (64, 96, 24, 12)
      assert len(list(reader)) == 12


def test_a_change_of_size_is_an_error_at_its_frame(tmp_path):
  paths = []
  for index, size in enumerate([(64, 96), (96, 160)]):
    paths.append(tmp_path / f'{index}.h264')
    videos.encode(paths[-1], make_frames(5, *size), container='h264')
  both = tmp_path / 'v.h264'
  both.write_bytes(b''.join(path.read_bytes() for path in paths))
  frames = []
  message = 'frame 5 is 160x96, the frames before it are 96x64'
  with (
      pytest.raises(ValueError, match=message),
      video_files.open_video(both) as reader,
  ):
    frames.extend(reader)
  assert len(frames) == 5


def test_soundtrack_longer_than_the_pictures_is_no_error(tmp_path):
  frames = make_frames(10, 32, 48)
  for name in ('v.mp4', 'v.mkv'):
    videos.encode(tmp_path / name, frames, 10, sound=5)
    with video_files.open_video(tmp_path / name) as reader:
      assert len(list(reader)) == len(frames)


def test_video_cut_short_says_how_much_is_left(tmp_path, clip):
  path, _ = clip
  whole = path.read_bytes()
  cut = tmp_path / 'cut.mp4'
  cut.write_bytes(whole[: len(whole) * 2 // 3])
  with pytest.raises(ValueError, match=r'cut\.mp4.*cut short: \d+ fr.* of.*50'):
    video_files.read_video(cut)


def test_video_damaged_inside_is_never_short_in_silence(tmp_path, clip):
  path, _ = clip
  data = bytearray(path.read_bytes())
  middle = len(data) // 2
  data[middle : middle + len(data) // 5] = bytes(len(data) // 5)
  (tmp_path / 'v.mp4').write_bytes(data)
  with pytest.raises(ValueError, match='damaged or cut short'):
    video_files.read_video(tmp_path / 'v.mp4')


def test_video_without_its_index_is_explained(tmp_path):
  videos.encode(tmp_path / 'v.mp4', make_frames(9, 64, 96))
  data = (tmp_path / 'v.mp4').read_bytes()
  (tmp_path / 'v.mp4').write_bytes(data[: len(data) // 2])
  with pytest.raises(ValueError, match='index is missing'):
    video_files.read_video(tmp_path / 'v.mp4')


@pytest.mark.parametrize('count', [1, 2, 3, 4, 9])
@pytest.mark.parametrize('name', ['v.flv', 'v.mkv'])
def test_short_whole_files_are_not_taken_for_cut_ones(tmp_path, name, count):
  codec = 'flv' if name == 'v.flv' else 'libx264'
  videos.encode(tmp_path / name, make_frames(count, 48, 64), codec=codec)
  assert len(video_files.read_video(tmp_path / name)) == count


CUTS = [
    (
        'frag.mp4',
        'libx264',
        'yuv420p',
        {'movflags': 'frag_keyframe+empty_moov'},
    ),
    ('v.mkv', 'libx264', 'yuv420p', {}),
    ('v.webm', 'libvpx', 'yuv420p', {}),
    ('live.webm', 'libvpx', 'yuv420p', {'live': '1'}),
    ('v.avi', 'mjpeg', 'yuvj420p', {}),
    ('v.gif', 'gif', 'rgb8', {}),
    ('v.flv', 'flv', 'yuv420p', {}),
]


@pytest.mark.parametrize(
    ('name', 'codec', 'pixels', 'options'), CUTS, ids=[cut[0] for cut in CUTS]
)
def test_every_container_cut_short_is_refused(
    tmp_path, name, codec, pixels, options
):
  path = tmp_path / name
  frames = make_frames(24, 96, 128)
  videos.encode(
      path, frames, codec=codec, pixels=pixels, container_options=options
  )
  assert len(video_files.read_video(path)) == 24
  whole = path.read_bytes()
  path.write_bytes(whole[: len(whole) * 2 // 3])
  with pytest.raises(ValueError, match='damaged or cut short'):
    video_files.read_video(path)


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('empty.mp4', b'', 'empty'),
        ('note.txt', b'words, words\n' * 40, 'not a video'),
        ('noise.mp4', bytes(range(256)) * 9, 'not a video'),
        (
            'list.mp4',
            b'ffconcat version 1.0\nfile clip.mp4\n',
            'a playlist, not a',
        ),
        ('list.m3u8', b'#EXTM3U\n#EXTINF:5,\nclip.mp4\n', 'a playlist'),
        ('page.mp4', b'<html><head></head></html>', 'a web page, not the'),
        ('lfs.mp4', b'version https://git-lfs.github.com', 'run git lfs pull'),
    ],
)
def test_files_that_are_no_video(tmp_path, clip, name, content, message):
  (tmp_path / 'clip.mp4').write_bytes(clip[0].read_bytes())
  (tmp_path / name).write_bytes(content)
  with pytest.raises(ValueError, match=message) as caught:
    video_files.read_video(tmp_path / name)
  assert name in str(caught.value)
  assert '\n' not in str(caught.value)


def test_sound_alone_is_no_video(tmp_path):
  videos.encode_sound(tmp_path / 'song.m4a')
  with pytest.raises(ValueError, match=r'song\.m4a.*only sound'):
    video_files.read_video(tmp_path / 'song.m4a')


def test_missing_file_and_folder(tmp_path):
  with pytest.raises(FileNotFoundError, match='is the path right'):
    video_files.read_video(tmp_path / 'none.mp4')
  with pytest.raises(ValueError, match=r'is a folder that holds no \.png'):
    video_files.read_video(tmp_path)


def stop_after_two(error):
  yield from make_frames(2, 64, 64)
  raise error


@pytest.mark.parametrize('error', [KeyboardInterrupt, RuntimeError, OSError])
def test_failing_frames_leave_the_folder_as_it_was(tmp_path, error):
  target = tmp_path / 'v.mp4'
  target.write_bytes(b'older')
  with pytest.raises(error):
    video_files.write_video(target, stop_after_two(error()), 25)
  assert list(tmp_path.iterdir()) == [target]
  assert target.read_bytes() == b'older'


@pytest.mark.parametrize(
    ('frames', 'message'),
    [
        (np.zeros((0, 8, 8, 3), np.uint8), 'at least one frame'),
        (np.zeros((2, 8, 8, 3), np.float32), 'frame 0 is float32'),
        (np.zeros((2, 8, 8), np.uint8), r'\[h, w, 3\]; frame 0'),
        (np.zeros((8, 8, 3), np.uint8), 'one frame instead of several'),
        (
            [np.zeros((8, 8, 3), np.uint8), np.zeros((8, 6, 3), np.uint8)],
            'one size.*frame 1',
        ),
    ],
    ids=['none', 'float', 'gray', 'single', 'sizes'],
)
def test_frames_that_cannot_be_written(tmp_path, frames, message):
  with pytest.raises(ValueError, match=message):
    video_files.write_video(tmp_path / 'v.mp4', frames, 25)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('frame_rate', [0, -1, float('nan'), float('inf')])
def test_frame_rates_that_cannot_be(tmp_path, frame_rate):
  with pytest.raises(ValueError, match='frame_rate must be'):
    video_files.write_video(
        tmp_path / 'v.mp4', make_frames(1, 8, 8), float(frame_rate)
    )


def test_places_that_cannot_be_written_to(tmp_path):
  frames = make_frames(1, 8, 8)
  with pytest.raises(FileNotFoundError, match='make it first'):
    video_files.write_video(tmp_path / 'none' / 'v.mp4', frames, 25)
  with pytest.raises(ValueError, match=r'end in \.mp4'):
    video_files.write_video(tmp_path / 'v.avi', frames, 25)
  (tmp_path / 'd.mp4').mkdir()
  with pytest.raises(ValueError, match='is a folder'):
    video_files.write_video(tmp_path / 'd.mp4', frames, 25)
