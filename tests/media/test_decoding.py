"""Frames of a stream, with their times and their damage."""

import numpy as np

from tapjax.media import containers
from tapjax.media import decoding
from tests.support import videos


def decode(path):
  with containers.open_container(path) as (container, stream):
    return list(decoding.iterate_frames(container, stream, path))


def test_frames_come_in_order_with_their_times(tmp_path):
  frames = videos.make_frames(9, 48, 64)
  path = tmp_path / 'a.mp4'
  videos.encode(path, frames, 10)
  found = decode(path)
  assert [item.damage for item in found] == [''] * 9
  np.testing.assert_allclose(
      [item.time for item in found], np.arange(9) / 10, atol=1e-6
  )
  means = [item.frame.mean() for item in found]
  np.testing.assert_allclose(means, frames.mean(axis=(1, 2, 3)), atol=3)


def test_a_file_cut_short_has_frames_that_are_missing(tmp_path):
  path = tmp_path / 'a.mkv'
  videos.encode(path, videos.make_frames(40, 48, 64), 10)
  content = path.read_bytes()
  path.write_bytes(content[: len(content) // 2])
  found = decode(path)
  whole = [item for item in found if item.frame is not None]
  assert 0 < len(whole) < 40
  assert found[-1].frame is None
  assert 'cut short' in found[-1].damage
