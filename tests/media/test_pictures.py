"""Pictures: kinds, sizes, orientation, folders and patterns."""

import numpy as np
import pytest

from tapjax.media import pictures
from tapjax.media import sources
from tapjax.media import video as video_files
from tests.support import videos

KINDS = [
    ('p.png', 'png', 'rgb24', 0),
    ('p.jpg', 'mjpeg', 'yuvj444p', 6),
    ('p.tif', 'tiff', 'rgb24', 0),
    ('p.bmp', 'bmp', 'bgr24', 0),
]


@pytest.mark.parametrize(('name', 'codec', 'pixels', 'tolerance'), KINDS)
@pytest.mark.parametrize('size', [(1, 1), (7, 9), (480, 640), (1080, 1920)])
def test_pictures_of_every_size_are_read(
    tmp_path, name, codec, pixels, tolerance, size
):
  image = videos.make_frames(1, *size)[0]
  videos.encode_picture(tmp_path / name, image, codec, pixels)
  read = pictures.read_picture(tmp_path / name)
  assert read.shape == (*size, 4)
  assert (read[..., 3] == 255).all()
  error = np.abs(read[..., :3].astype(int) - image)
  assert error.mean() <= tolerance
  # Neither name nor pattern matters.
  odd = tmp_path / 'a%03d [1].dat'
  (tmp_path / name).rename(odd)
  np.testing.assert_array_equal(pictures.read_picture(odd), read)


def test_sixteen_bits_are_reduced_to_eight(tmp_path):
  image = videos.make_frames(1, 32, 48)[0]
  for name, codec, pixels in (
      ('p.png', 'png', 'rgb48be'),
      ('p.tif', 'tiff', 'rgb48le'),
  ):
    deep = image.astype(np.uint16) * 257
    videos.encode_picture(tmp_path / name, deep, codec, pixels)
    read = pictures.read_picture(tmp_path / name)[..., :3].astype(int)
    assert np.abs(read - image).max() <= 1


@pytest.mark.parametrize('orientation', range(1, 9))
def test_exif_orientation_is_honoured(tmp_path, orientation):
  from PIL import Image
  from PIL import ImageOps

  image = videos.make_frames(1, 48, 64)[0]
  path = tmp_path / 'p.jpg'
  videos.encode_picture(path, image, 'mjpeg', 'yuvj444p')
  flat = pictures.read_picture(path)[..., :3]
  path.write_bytes(videos.add_exif(path.read_bytes(), orientation))
  with Image.open(path) as picture:
    assert picture.getexif()[0x0112] == orientation
  exif = Image.Exif()
  exif[0x0112] = orientation
  turned = Image.fromarray(flat)
  turned.info['exif'] = exif.tobytes()
  turned.getexif()[0x0112] = orientation
  expected = np.asarray(ImageOps.exif_transpose(turned))
  np.testing.assert_array_equal(pictures.read_picture(path)[..., :3], expected)


@pytest.mark.parametrize(('name', 'codec', 'pixels', '_'), KINDS)
def test_pictures_cut_short_are_refused(tmp_path, name, codec, pixels, _):
  path = tmp_path / name
  generator = np.random.default_rng(0)
  image = generator.integers(0, 256, (96, 128, 3), np.uint8)
  videos.encode_picture(path, image, codec, pixels)
  content = path.read_bytes()
  path.write_bytes(content[: len(content) * 3 // 5])
  with pytest.raises(ValueError, match='not a readable picture'):
    pictures.read_picture(path)


def write_sequence(folder, count, pattern='frame_{}.png'):
  frames = videos.make_frames(count, 32, 48)
  for index, frame in enumerate(frames):
    path = folder / pattern.format(index + 8)
    videos.encode_picture(path, frame, 'png', 'rgb24')
  return frames


def test_folders_patterns_and_pictures_are_videos(tmp_path):
  frames = write_sequence(tmp_path, 5)
  (tmp_path / 'notes.txt').write_text('no picture')
  (tmp_path / '.hidden.png').write_bytes(b'no picture')
  for place in (tmp_path, tmp_path / 'frame_%d.png', tmp_path / '*.png'):
    with video_files.open_video(place) as reader:
      assert reader.info == (32, 48, 25, 5)
      np.testing.assert_array_equal(np.stack(list(reader)), frames)
      np.testing.assert_allclose(reader.times, np.arange(5) / 25)
    assert video_files.get_name(place) == tmp_path.name
  one = tmp_path / 'frame_9.png'
  np.testing.assert_array_equal(video_files.read_video(one), frames[1:2])
  assert video_files.get_name(one) == 'frame_9'


def test_animated_pictures_are_videos(tmp_path):
  frames = videos.make_frames(4, 32, 48)
  path = tmp_path / 'anim.png'
  videos.encode(path, frames, codec='apng', pixels='rgb24', container='apng')
  np.testing.assert_array_equal(video_files.read_video(path), frames)


def test_a_picture_of_another_size_is_an_error(tmp_path):
  write_sequence(tmp_path, 3)
  image = videos.make_frames(1, 16, 16)[0]
  videos.encode_picture(tmp_path / 'frame_9.png', image, 'png', 'rgb24')
  with pytest.raises(ValueError, match='frame 1 is 16x16, the frames before'):
    video_files.read_video(tmp_path)


def test_folders_of_other_kinds_say_what_they_hold(tmp_path):
  for index in range(3):
    (tmp_path / f'{index}.exr').write_bytes(b'v/1')
  (tmp_path / 'readme.txt').write_text('words')
  message = r'holds no \.png, .*; it has 3 \.exr, 1 \.txt'
  with pytest.raises(ValueError, match=message):
    video_files.read_video(tmp_path)
  with pytest.raises(ValueError, match=message):
    sources.find_source(str(tmp_path))
