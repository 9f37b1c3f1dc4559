"""Limits of the machine that reads pickles without executing them."""

import contextlib
import struct
import tracemalloc

import pytest

from tapjax.checkpoints import pickle_machine
from tests.checkpoints.test_pickles import _load

_BOMBS = {
    'memo index': b'\x80\x02K\x01r\xff\xff\xff\x7fj\xff\xff\xff\x7f.',
    'frame length': b'\x80\x04\x95' + b'\xff' * 8 + b'K\x01.',
    'bytes length': b'\x80\x04\x8e' + b'\xff' * 7 + b'\x7f.',
    'text length': b'\x80\x04\x8d' + b'\xff' * 7 + b'\x7f.',
    'integer length': b'\x80\x02\x8b\xff\xff\xff\x7f.',
    'nested tuples as a key': (
        b'\x80\x04)' + b'2\x86' * 200 + b'\x94}h\x00K\x01s.'
    ),
    'nested lists': b'\x80\x04' + b']' * 1000 + b'a' * 999 + b'.',
    'references': b'\x80\x04]' + b'](2222222222e' * 30 + b'.',
}


@pytest.mark.parametrize('name', _BOMBS)
def test_a_small_file_stays_small(name):
  tracemalloc.start()
  with contextlib.suppress(ValueError):
    _load(_BOMBS[name])
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert peak < 10_000_000


def test_repeated_copies_of_one_text_are_refused():
  text = 'x' * 10_000
  copies = b'\x80\x02c_codecs\nencode\nq\x00X' + struct.pack('<I', len(text))
  copies += text.encode() + b'q\x01X\x06\x00\x00\x00latin1q\x02]('
  copies += b'h\x00h\x01h\x02\x86R' * 1000 + b'e.'
  with pytest.raises(ValueError, match='unpacks to much more'):
    _load(copies)


def test_endless_programs_are_refused(monkeypatch):
  monkeypatch.setattr(pickle_machine, '_MOST_INSTRUCTIONS', 1000)
  with pytest.raises(ValueError, match='more than 1000 instructions'):
    _load(b'\x80\x02' + b'N0' * 500 + b'N.')
  assert _load(b'\x80\x02' + b'N0' * 498 + b'N.') is None
