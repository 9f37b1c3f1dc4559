"""Videos that commands read."""

import numpy as np
import pytest

from tapjax.cli import sources
from tapjax.data.procedural import demo


def test_the_demo_clip_is_the_default(monkeypatch):
  clip = demo.make_demo_clip(3, (48, 64))
  monkeypatch.setattr(demo, 'make_demo_clip', lambda: clip)
  source = sources.find_video(None)
  with source.open() as reader:
    frames = np.concatenate(list(reader.read_blocks(2)))
  np.testing.assert_array_equal(frames, clip.frames)
  assert source.info.num_frames == len(frames)
  assert source.name == 'demo'


def test_a_file_can_be_read_twice(clip):
  source = sources.find_video(str(clip))
  videos = []
  for _ in range(2):
    with source.open() as reader:
      videos.append(np.concatenate(list(reader.read_blocks(2))))
  np.testing.assert_array_equal(*videos)
  assert videos[0].shape == (5, source.info.height, source.info.width, 3)


def test_a_missing_file():
  with pytest.raises(FileNotFoundError):
    sources.find_video('none.mp4')
