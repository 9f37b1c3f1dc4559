"""Containers: what is opened, and what is known before decoding."""

import types

import pytest

from tapjax.media import containers
from tests.support import videos


def test_addresses_are_not_files():
  assert containers.is_address('rtsp://host/path')
  assert containers.is_address('file:///a.mp4')
  assert not containers.is_address('C:/videos/a.mp4')
  assert not containers.is_address('a.mp4')


def test_what_is_no_file(tmp_path):
  with pytest.raises(FileNotFoundError, match='no picture file'):
    containers.check_file(tmp_path / 'none.png', 'picture')
  with pytest.raises(ValueError, match='is a folder'):
    containers.check_file(tmp_path)
  (tmp_path / 'empty').touch()
  with pytest.raises(ValueError, match='is empty'):
    containers.check_file(tmp_path / 'empty')


def test_size_and_length_are_known_before_decoding(tmp_path):
  path = tmp_path / 'a.mp4'
  videos.encode(path, videos.make_frames(7, 48, 64), 12)
  with containers.open_container(path) as (container, stream):
    rate = containers.get_frame_rate(container, stream)
    assert rate == 12
    assert containers.count_frames(container, stream, rate) == 7
    assert (stream.height, stream.width) == (48, 64)
    assert containers.get_written_size(container) is None


def test_sizes_that_were_written_are_read():
  container = types.SimpleNamespace(metadata={containers.SIZE_KEY: '47x63'})
  assert containers.get_written_size(container) == (47, 63)
  container.metadata = {containers.SIZE_KEY: 'large'}
  assert containers.get_written_size(container) is None


def test_the_clock_of_a_container_is_no_frame_rate():
  stream = types.SimpleNamespace(
      average_rate=90000, guessed_rate=25, duration=10
  )
  container = types.SimpleNamespace(duration=10)
  assert containers.get_frame_rate(container, stream) == 25
  stream.average_rate = stream.guessed_rate = None
  assert containers.get_frame_rate(container, stream) > 0
