import hypothesis
from hypothesis import strategies
import ml_dtypes
import numpy as np
import pytest

from tapjax import checkpoints
from tapjax.checkpoints import Source

_SOURCES = {
    'conv|w': Source('conv.weight', (2, 3, 1, 0)),
    'conv|b': Source('conv.bias'),
    'flat|w': Source('flat.weight', (1, 0), leading=1),
}
_SHAPES = {'conv|w': (3, 5, 2, 4), 'conv|b': (4,), 'flat|w': (6, 7)}


def _make_published():
  random = np.random.default_rng(0)
  return {
      'conv.weight': random.normal(size=(4, 2, 3, 5)).astype(np.float32),
      'conv.bias': random.normal(size=4).astype(np.float32),
      'flat.weight': random.normal(size=(1, 7, 6)).astype(np.float32),
  }


def _convert(published, **settings):
  return checkpoints.convert_arrays(
      published, _SOURCES, _SHAPES, origin='weights.pt', **settings
  )


def test_no_axes_keep_the_order():
  array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
  sources = {'ours': Source('theirs')}
  converted = checkpoints.convert_arrays(
      {'theirs': array}, sources, {'ours': (2, 3, 4)}, origin='file'
  )
  np.testing.assert_array_equal(converted['ours'], array)
  back = checkpoints.invert_arrays(converted, sources)
  np.testing.assert_array_equal(back['theirs'], array)


def test_axes_go_from_the_file_order_to_ours():
  published = _make_published()
  ours = _convert(published)
  assert {name: array.shape for name, array in ours.items()} == _SHAPES
  for out, into, y, x in [(0, 0, 0, 0), (3, 1, 2, 4), (1, 0, 2, 3)]:
    assert ours['conv|w'][y, x, into, out] == (
        published['conv.weight'][out, into, y, x]
    )
  assert ours['flat|w'][5, 2] == published['flat.weight'][0, 2, 5]
  assert all(array.flags.c_contiguous for array in ours.values())


def test_inversion_gives_the_published_arrays_back():
  published = _make_published()
  inverted = checkpoints.invert_arrays(_convert(published), _SOURCES)
  assert inverted.keys() == published.keys()
  for name, array in published.items():
    np.testing.assert_array_equal(inverted[name], array)
    assert inverted[name].flags.c_contiguous


@hypothesis.given(
    axes=strategies.integers(0, 5).flatmap(
        lambda rank: strategies.permutations(range(rank))
    ),
    leading=strategies.integers(0, 2),
)
def test_any_order_of_axes_round_trips(axes, leading):
  source = Source('theirs', tuple(axes), leading)
  shape = tuple(range(1, len(axes) + 1))
  ours = {'ours': np.arange(np.prod(shape, dtype=int)).reshape(shape)}
  published = checkpoints.invert_arrays(ours, {'ours': source})
  assert published['theirs'].ndim == len(axes) + leading
  back = checkpoints.convert_arrays(
      published, {'ours': source}, {'ours': shape}, origin='file'
  )
  np.testing.assert_array_equal(back['ours'], ours['ours'])


@pytest.mark.parametrize(
    ('stored', 'kept'),
    [
        ('float16', 'float32'),
        (ml_dtypes.bfloat16, 'float32'),
        ('float32', 'float32'),
        ('>f4', 'float32'),
        ('float64', 'float32'),
        ('int32', 'int32'),
        ('int64', 'int64'),
        ('bool', 'bool'),
    ],
)
def test_floats_become_float32_and_integers_stay(stored, kept):
  published = {'w': np.array([0, 1, 2]).astype(stored)}
  converted = checkpoints.convert_arrays(
      published, {'w': Source('w')}, {'w': (3,)}, origin='file'
  )
  assert converted['w'].dtype == np.dtype(kept)
  np.testing.assert_array_equal(converted['w'], published['w'])
  assert not np.shares_memory(converted['w'], published['w'])


def test_a_mismatch_is_reported_in_full():
  published = _make_published()
  published['conv.bias'] = np.zeros(5, np.float32)
  published['flat.weight_2'] = published.pop('flat.weight')
  with pytest.raises(checkpoints.CheckpointMismatchError) as caught:
    _convert(published)
  assert str(caught.value) == (
      'weights.pt does not fit the model, which needs 3 arrays;'
      ' the file has 3\n'
      '  1 missing: flat.weight\n'
      '  1 unexpected: flat.weight_2\n'
      '  1 of another shape: conv.bias: expected (4,), got (5,)\n'
      'Is this the checkpoint of another model or preset?'
  )


def test_a_permuted_shape_is_a_mismatch_in_the_order_of_the_file():
  published = _make_published()
  published['conv.weight'] = published['conv.weight'].transpose(2, 3, 1, 0)
  with pytest.raises(
      ValueError, match=r'expected \(4, 2, 3, 5\), got \(3, 5, 2, 4\)'
  ):
    _convert(published)


def test_missing_leading_axes_are_a_mismatch():
  published = _make_published()
  published['flat.weight'] = published['flat.weight'][0]
  with pytest.raises(ValueError, match=r'expected \(1, 7, 6\), got \(7, 6\)'):
    _convert(published)


def test_long_lists_of_names_are_cut():
  extra = {f'extra{index}': np.zeros(1) for index in range(20)}
  with pytest.raises(ValueError, match=r'20 unexpected: .*extra7 and 12 more'):
    _convert(_make_published() | extra)


def test_ignored_patterns_excuse_unused_arrays_only():
  published = _make_published()
  counter = {'bn.num_batches_tracked': np.array(3)}
  with pytest.raises(ValueError, match=r'1 unexpected: bn\.num_batches'):
    _convert(published | counter)
  ignored = ['*.num_batches_tracked', 'conv.*']
  converted = _convert(published | counter, ignored=ignored)
  assert converted.keys() == _SHAPES.keys()
  del published['conv.bias']
  with pytest.raises(ValueError, match=r'1 missing: conv\.bias'):
    _convert(published, ignored=ignored)


@pytest.mark.parametrize('value', [np.nan, np.inf, 1e300])
def test_numbers_that_are_not_finite_are_refused(value):
  published = _make_published()
  published['conv.bias'] = np.array([0, 1, 2, value])
  with pytest.raises(ValueError, match=r'1 not finite: conv\.bias'):
    _convert(published)


@pytest.mark.parametrize('dtype', ['complex64', 'object', 'S1'])
def test_other_dtypes_are_refused(dtype):
  published = _make_published()
  published['conv.bias'] = np.zeros(4).astype(dtype)
  with pytest.raises(ValueError, match=r'conv\.bias must hold real numbers'):
    _convert(published)


def test_mistakes_in_the_tables_are_not_blamed_on_the_file():
  def convert(sources, shapes):
    checkpoints.convert_arrays({}, sources, shapes, origin='file')

  with pytest.raises(ValueError, match=r'sources and shapes .* differ in b'):
    convert({'a': Source('x')}, {'a': (), 'b': ()})
  with pytest.raises(ValueError, match='only once; repeated: x'):
    convert({'a': Source('x'), 'b': Source('x')}, {'a': (), 'b': ()})
  with pytest.raises(ValueError, match=r'axes must permute the 2 axes'):
    convert({'a': Source('x', (0, 0))}, {'a': (1, 2)})


def test_inversion_is_strict():
  with pytest.raises(checkpoints.CheckpointMismatchError, match='1 missing: b'):
    checkpoints.invert_arrays({'a': np.zeros(1)}, {'b': Source('x')})
