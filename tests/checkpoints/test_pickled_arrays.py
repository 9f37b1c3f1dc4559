"""Arrays in pickles."""

import pickle

import numpy as np
import pytest

from tapjax import checkpoints
from tests.checkpoints.test_pickles import _load
from tests.support import torch_format
from tests.support.torch_format import Call
from tests.support.torch_format import Global


@pytest.mark.parametrize(
    ('value', 'message'),
    [
        (torch_format.emit_array((1000,), 'f4', b'1234'), 'needs 4000 bytes'),
        (torch_format.emit_array((2**40, 2**40), 'f4', b''), 'needs'),
        (torch_format.emit_array((-1,), 'f4', b''), 'shape .* malformed'),
        (torch_format.emit_array((True,), 'f4', b'1234'), 'shape .* malformed'),
        (torch_format.emit_array('x', 'f4', b''), 'shape .* malformed'),
        (torch_format.emit_array((1,) * 65, 'i1', b'x'), 'shape .* malformed'),
        (torch_format.emit_array((1,), 'V4', b'1234'), "dtype 'V4' is not"),
        (torch_format.emit_array((1,), 'M8', bytes(8)), "dtype 'M8' is not"),
        (torch_format.emit_array((2,), 'O8', [1]), 'one for each place'),
        (torch_format.emit_array((2,), 'O8', bytes(16)), 'one for each place'),
        (torch_format.emit_array((1,), 'f4', [1]), 'not bytes'),
        (
            Call(
                Global('numpy', 'dtype'),
                ('f4', False, True),
                (3, '<', None, ('a',), {'a': 1}, -1, -1, 0),
            ),
            'structured dtypes',
        ),
        (
            Call(Global('numpy.core.multiarray', 'scalar'), ('f4', b'1234')),
            'dtype',
        ),
        (Call(Global('_codecs', 'encode'), ('x', 'rot13')), 'malformed'),
        (Call(Global('_codecs', 'encode'), ('x',)), 'argument'),
        (torch_format.Persistent('x'), 'outside of the pickle'),
    ],
)
def test_malformed_arrays_are_refused(value, message):
  with pytest.raises(ValueError, match=f'sample.pkl cannot .*{message}'):
    _load(torch_format.emit([value]))


def test_array_subclasses_become_plain_arrays():
  subtype = Global('numpy', 'matrix')
  value = torch_format.emit_array((2,), 'i1', b'\x01\x02', subtype=subtype)
  array = _load(torch_format.emit(value))
  assert type(array) is np.ndarray
  assert array.tolist() == [1, 2]


def test_an_array_inside_itself_is_refused():
  array = np.empty((), object)
  array[()] = [array]
  value = _load(pickle.dumps({'a': array}))
  with pytest.raises(ValueError, match=r'object of numpy\.ndarray'):
    checkpoints.refuse_placeholders(value['a'].item(), 'file', 'a')
