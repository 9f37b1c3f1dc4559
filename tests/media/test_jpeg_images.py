"""Videos as JPEG images."""

import pytest

from tapjax.media.jpeg_images import read_jpeg_images
from tests.support import videos


@pytest.fixture
def video(tmp_path):
  path = tmp_path / 'a.mp4'
  videos.encode(path, videos.make_frames(20, 48, 64), 20)
  return path


@pytest.mark.parametrize(('rate', 'count'), [(20, 20), (10, 10), (40, 40)])
def test_frames_are_dropped_or_repeated(video, rate, count):
  images = read_jpeg_images(video, rate, 100)
  assert len(images) == pytest.approx(count, abs=1)
  for image in images:
    assert image.startswith(b'\xff\xd8')
    assert image.rstrip(b'\0').endswith(b'\xff\xd9')


def test_no_more_than_wanted_are_read(video):
  images = read_jpeg_images(video, 20, 100)
  assert read_jpeg_images(video, 20, 7) == images[:7]


def test_missing_and_unreadable_files(tmp_path):
  with pytest.raises(FileNotFoundError):
    read_jpeg_images(tmp_path / 'none.mp4', 20, 1)
  (tmp_path / 'a.mp4').write_bytes(b'no video at all')
  with pytest.raises(ValueError, match='not a video'):
    read_jpeg_images(tmp_path / 'a.mp4', 20, 1)
