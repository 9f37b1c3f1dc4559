"""Runs of the command in this process, and inputs for them."""

import pathlib
import re
from typing import NamedTuple

import numpy as np
import pytest

from tests.support import videos


class Answer(NamedTuple):
  """Status and output of a run of the command."""

  status: int
  out: str
  err: str

  def check_refusal(self, status, message):
    """One line that says what is wrong, and nothing else."""
    assert self.status == status
    assert self.out == ''
    # What bars leave on the screen is beside the point.
    *bars, line = self.err.rstrip('\n').rpartition('\n')
    assert all(piece.count('100%') for piece in bars[0].split('\n') if piece)
    line = line.rpartition('\r')[2]
    assert line.startswith('tapjax: error: ')
    assert re.search(message, line), line
    assert 'Traceback' not in self.err


def make_frames(num, height, width):
  generator = np.random.default_rng(0)
  return generator.integers(0, 255, (num, height, width, 3)).astype(np.uint8)


def write_picture(path, picture):
  """Writes RGBA pixels as a .png."""
  videos.encode_picture(pathlib.Path(path), picture, 'png', 'rgba')


def refuse_to_load(*args, **kwargs):
  pytest.fail('weights were loaded before the flags were checked')
