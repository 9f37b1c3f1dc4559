"""Containers and codecs that are read: the table of docs/media.md."""

import pathlib
import re

import numpy as np
import pytest

from tapjax.media import video as video_files
from tests.support import videos

PAGE = pathlib.Path(__file__).parents[2] / 'docs' / 'media.md'
# (file, codec, pixels, size, mean error) of each line.
KINDS = [
    ('v.mp4', 'libx264', 'yuv420p', (64, 96), 4),
    ('v.mov', 'prores_ks', 'yuva444p10le', (64, 96), 4),
    ('v.mov', 'jpeg2000', 'yuv422p', (64, 96), 6),
    ('v.mov', 'qtrle', 'argb', (64, 96), 1),
    ('v.mp4', 'libx265', 'yuv420p10le', (64, 96), 6),
    ('v.mp4', 'libsvtav1', 'yuv420p', (64, 96), 8),
    ('v.mkv', 'ffv1', 'bgr0', (65, 97), 1),
    ('v.mkv', 'ffv1', 'gray16le', (64, 96), 80),
    ('v.webm', 'libvpx', 'yuv420p', (64, 96), 8),
    ('v.webm', 'libvpx-vp9', 'yuva420p', (64, 96), 8),
    ('v.avi', 'mjpeg', 'yuvj420p', (64, 96), 6),
    ('v.avi', 'mpeg4', 'yuv420p', (64, 96), 8),
    ('v.avi', 'rawvideo', 'yuv420p', (64, 96), 4),
    ('v.mpg', 'mpeg2video', 'yuv420p', (64, 96), 8),
    ('v.ts', 'libx264', 'yuv420p', (64, 96), 4),
    ('v.mxf', 'mpeg2video', 'yuv420p', (64, 96), 8),
    ('v.dv', 'dvvideo', 'yuv420p', (576, 720), 4),
    ('v.wmv', 'wmv2', 'yuv420p', (64, 96), 8),
    ('v.flv', 'flv', 'yuv420p', (64, 96), 8),
    ('v.rm', 'rv20', 'yuv420p', (64, 96), 8),
    ('v.nut', 'ffv1', 'yuv444p', (64, 96), 4),
    ('v.y4m', 'wrapped_avframe', 'yuv420p', (64, 96), 4),
    ('v.gif', 'gif', 'rgb8', (64, 96), 25),
    ('v.apng', 'apng', 'rgb24', (64, 96), 1),
    ('v.h264', 'libx264', 'yuv420p', (64, 96), 4),
    ('v.hevc', 'libx265', 'yuv420p', (64, 96), 6),
    ('v.mjpeg', 'mjpeg', 'yuvj420p', (64, 96), 6),
]


@pytest.mark.parametrize(
    ('name', 'codec', 'pixels', 'size', 'tolerance'),
    KINDS,
    ids=[f'{kind[0]}-{kind[1]}' for kind in KINDS],
)
def test_every_kind_is_read_whole(
    tmp_path, name, codec, pixels, size, tolerance
):
  frames = videos.make_frames(10, *size)
  path = tmp_path / name
  rate = 25 if name == 'v.dv' else 24
  videos.encode(path, frames, rate, codec=codec, pixels=pixels)
  with video_files.open_video(path) as reader:
    read = np.stack(list(reader))
    assert 0.9 * rate < reader.info.frame_rate < 1.1 * rate
  assert read.shape == frames.shape
  assert np.abs(read.astype(int) - frames).mean() < tolerance
  assert len(reader.times) == 10
  np.testing.assert_allclose(np.diff(reader.times), 1 / rate, atol=0.011)


def test_the_page_lists_every_kind():
  page = PAGE.read_text(encoding='utf-8')
  listed = re.findall(r'^\| `(\S+)` \| `(\S+)` \| `(\S+)` \|', page, re.M)
  assert listed == [
      (f'.{name.split(".")[1]}', codec, pixels)
      for name, codec, pixels, _, _ in KINDS
  ]
