"""Video files: round trips, odd sizes, and every kind of unreadable file."""

import pathlib
import subprocess

import imageio_ffmpeg
import numpy as np
import pytest

from tapjax.media import video as video_files


def make_frames(num, height, width):
  """Smooth moving colors with a brightness that grows over time."""
  t, y, x = np.ogrid[:num, :height, :width]
  waves = [
      60 * np.sin(x / 20 + t / 3 + c) * np.cos(y / 15 + c) for c in range(3)
  ]
  frames = np.stack(waves, axis=-1) + 70 + 100 * t[..., np.newaxis] / num
  return frames.astype(np.uint8)


def run_ffmpeg(*arguments):
  subprocess.run(
      [imageio_ffmpeg.get_ffmpeg_exe(), '-v', 'error', '-y', *arguments],
      check=True,
      stdin=subprocess.DEVNULL,
  )


def write_with_sound(path, source):
  """A video with its index at the start and a longer soundtrack."""
  run_ffmpeg(
      *('-i', str(source), '-f', 'lavfi', '-i', 'sine=d=5', '-c:v', 'copy'),
      *('-movflags', '+faststart', str(path)),
  )


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
  result = subprocess.run(
      [imageio_ffmpeg.get_ffmpeg_exe(), '-i', str(tmp_path / 'v.mp4')],
      capture_output=True,
      check=False,
  )
  assert b'h264' in result.stderr
  assert b'yuv420p(tv, bt709' in result.stderr
  assert b'48x34' in result.stderr


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


def test_rotated_video_is_upright(tmp_path, clip):
  path, frames = clip
  run_ffmpeg(
      *('-display_rotation', '90', '-i', str(path), '-c', 'copy'),
      str(tmp_path / 'phone.mp4'),
  )
  read = video_files.read_video(tmp_path / 'phone.mp4')
  expected = np.rot90(frames, axes=(1, 2))
  assert read.shape == expected.shape
  assert np.abs(read.astype(int) - expected).mean() < 4


def test_uneven_frame_times_keep_every_frame_in_order(tmp_path, clip):
  path, frames = clip
  run_ffmpeg(
      *('-i', str(path), '-vf', 'setpts=N*(1+N/9)/25/TB', '-fps_mode', 'vfr'),
      *('-bf', '0', '-enc_time_base', '1/90000', str(tmp_path / 'uneven.mp4')),
  )
  read = video_files.read_video(tmp_path / 'uneven.mp4')
  assert read.shape == frames.shape
  assert (np.diff(read.mean(axis=(1, 2, 3))) > 0).all()


@pytest.mark.parametrize(
    ('suffix', 'settings', 'tolerance'),
    [
        ('gif', [], 25),  # 256 colors.
        ('webm', ['-c:v', 'libvpx', '-b:v', '2M', '-cpu-used', '8'], 4),
        ('avi', ['-c', 'copy'], 4),
        ('mkv', ['-c', 'copy'], 4),
        ('ts', ['-c', 'copy'], 4),
    ],
)
def test_other_containers(tmp_path, clip, suffix, settings, tolerance):
  path, frames = clip
  other = tmp_path / f'v.{suffix}'
  run_ffmpeg('-i', str(path), *settings, str(other))
  read = video_files.read_video(other)
  assert read.shape == frames.shape
  assert np.abs(read.astype(int) - frames).mean() < tolerance


def test_soundtrack_longer_than_the_pictures_is_no_error(tmp_path, clip):
  path, frames = clip
  write_with_sound(tmp_path / 'v.mp4', path)
  with video_files.open_video(tmp_path / 'v.mp4') as reader:
    assert reader.info.num_frames == 125
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


def test_video_without_its_index_is_explained(tmp_path, clip):
  path, _ = clip
  run_ffmpeg('-i', str(path), '-c', 'copy', str(tmp_path / 'v.mp4'))
  data = (tmp_path / 'v.mp4').read_bytes()
  (tmp_path / 'v.mp4').write_bytes(data[: len(data) // 2])
  with pytest.raises(ValueError, match='index is missing'):
    video_files.read_video(tmp_path / 'v.mp4')


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('empty.mp4', b'', 'empty'),
        ('note.txt', b'words, words\n' * 40, 'is no video'),
        ('noise.mp4', bytes(range(256)) * 9, 'not a video'),
        ('list.mp4', b'ffconcat version 1.0\nfile clip.mp4\n', 'no video'),
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
  run_ffmpeg('-f', 'lavfi', '-i', 'sine=d=1', str(tmp_path / 'song.m4a'))
  with pytest.raises(ValueError, match=r'song\.m4a.*only sound'):
    video_files.read_video(tmp_path / 'song.m4a')


def test_missing_file_and_folder(tmp_path):
  with pytest.raises(FileNotFoundError, match='is the path right'):
    video_files.read_video(tmp_path / 'none.mp4')
  with pytest.raises(ValueError, match='is a folder'):
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
