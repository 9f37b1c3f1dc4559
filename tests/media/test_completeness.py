"""Files that end before their container does, byte by byte."""

import pytest

from tapjax.media import completeness

# An EBML header of 4 bytes, then a segment of 8 that holds one element of 6.
HEADER = b'\x1a\x45\xdf\xa3\x84head'
SEGMENT = b'\x18\x53\x80\x67\x88'
ELEMENT = b'\xec\x86______'


def is_cut(tmp_path, content):
  path = tmp_path / 'file'
  path.write_bytes(content)
  return completeness.is_cut_short(path)


def test_a_whole_file_is_whole(tmp_path):
  assert not is_cut(tmp_path, HEADER + SEGMENT + ELEMENT)
  # A live recording does not know the length of its segment.
  endless = SEGMENT[:-1] + b'\xff'
  assert not is_cut(tmp_path, HEADER + endless + ELEMENT)


@pytest.mark.parametrize('missing', [1, 5, 7, 8])
def test_a_segment_that_ends_early_is_cut(tmp_path, missing):
  whole = HEADER + SEGMENT + ELEMENT
  assert is_cut(tmp_path, whole[:-missing])


def test_an_element_that_ends_early_is_cut(tmp_path):
  endless = SEGMENT[:-1] + b'\xff'
  assert is_cut(tmp_path, HEADER + endless + ELEMENT[:-1])


def test_gifs_end_with_a_trailer(tmp_path):
  assert not is_cut(tmp_path, b'GIF89a......;')
  assert not is_cut(tmp_path, b'GIF89a......;\0\0')
  assert is_cut(tmp_path, b'GIF89a......')


def test_other_files_are_left_to_ffmpeg(tmp_path):
  assert not is_cut(tmp_path, b'')
  assert not is_cut(tmp_path, b'\0\0\0\x20ftypisom')
