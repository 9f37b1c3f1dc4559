import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest

from tapjax import checkpoints
from tests.support import torch_format
from tests.support.torch_format import Call
from tests.support.torch_format import Global


@pytest.fixture
def archive():
  return torch_format.Archive()


@pytest.fixture
def path(tmp_path):
  return tmp_path / 'weights.pt'


def test_reference_sample(reference):
  folder = reference / 'point_transformer'
  arrays = checkpoints.read_torch_checkpoint(folder / 'sample_checkpoint.pth')
  with np.load(folder / 'sample_checkpoint_expected.npz') as expected:
    assert list(arrays) == [key for key in expected.files if key != 'meta']
    for name, array in arrays.items():
      assert array.dtype == expected[name].dtype or name == 'bf16'
      np.testing.assert_array_equal(
          array.astype(expected[name].dtype), expected[name]
      )


_DTYPES = [
    *('float64', 'float32', 'float16', 'int64', 'int32', 'int16', 'int8'),
    *('uint8', 'bool', ml_dtypes.bfloat16),
]


@pytest.mark.parametrize('dtype', _DTYPES)
@pytest.mark.parametrize('shape', [(), (5,), (2, 0, 3), (2, 3, 4)])
def test_every_dtype(archive, path, dtype, shape):
  array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
  archive.write(path, {'w': archive.add(array)})
  read = checkpoints.read_torch_checkpoint(path)['w']
  assert read.dtype == array.dtype
  np.testing.assert_array_equal(read, array)


def test_views_share_one_storage(archive, path):
  archive.storages['0'] = np.arange(12, dtype='<f4').tobytes()
  tensor = torch_format.make_tensor
  kind = ('0', 'FloatStorage', 12)
  archive.write(
      path,
      {
          'all': tensor(*kind, shape=(3, 4), strides=(4, 1)),
          'transposed': tensor(*kind, shape=(4, 3), strides=(1, 4)),
          'column': tensor(*kind, offset=1, shape=(3,), strides=(4,)),
          'last': tensor(*kind, offset=11),
          'expanded': tensor(*kind, offset=2, shape=(5,), strides=(0,)),
          'one row': tensor(*kind, shape=(1, 4), strides=(2**62, 1)),
      },
  )
  arrays = checkpoints.read_torch_checkpoint(path)
  whole = np.arange(12, dtype=np.float32).reshape(3, 4)
  np.testing.assert_array_equal(arrays['all'], whole)
  np.testing.assert_array_equal(arrays['transposed'], whole.T)
  np.testing.assert_array_equal(arrays['column'], whole[:, 1])
  np.testing.assert_array_equal(arrays['last'], 11)
  np.testing.assert_array_equal(arrays['expanded'], [2] * 5)
  np.testing.assert_array_equal(arrays['one row'], whole[:1])
  assert np.shares_memory(arrays['all'], arrays['transposed'])
  assert not arrays['expanded'].flags.writeable


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'shape': (13,), 'strides': (1,)}, 'reaches number 12 of a storage'),
        ({'shape': (2, 4), 'strides': (9, 1)}, 'reaches number 12'),
        ({'offset': 12}, 'reaches number 12'),
        ({'offset': -1}, 'malformed'),
        ({'offset': None}, 'malformed'),
        ({'shape': (3,), 'strides': (-1,)}, 'malformed'),
        ({'shape': (-3,), 'strides': (1,)}, 'malformed'),
        ({'shape': (3,), 'strides': ()}, '1 axes, 0 strides'),
        ({'shape': [3], 'strides': (1,)}, 'malformed'),
        ({'shape': (2**40,), 'strides': (0,)}, 'larger than the file'),
        ({'shape': (2**62,) * 4, 'strides': (0,) * 4}, 'larger than the file'),
        ({'length': 11}, 'needs 44 stored bytes'),
        ({'length': 2**70}, 'stored bytes'),
        ({'kind': 'DoubleStorage'}, 'needs 96 stored bytes'),
        ({'kind': 'QInt8Storage'}, r"unknown storage: 'torch\.QInt8Storage"),
        ({'key': '7'}, "entry 'archive/data/7', which is missing"),
        ({'key': '../data.pkl'}, 'which is missing'),
    ],
)
def test_tensors_stay_inside_of_their_storage(archive, path, changes, message):
  archive.storages['0'] = bytes(48)
  settings = {'key': '0', 'kind': 'FloatStorage', 'length': 12, **changes}
  archive.write(path, {'w': torch_format.make_tensor(**settings)})
  with pytest.raises(ValueError, match=rf'weights\.pt cannot .*{message}'):
    checkpoints.read_torch_checkpoint(path)


def test_parameters_are_read_as_tensors(archive, path):
  parameter = Call(
      Global('torch._utils', '_rebuild_parameter'),
      (archive.add(np.ones(2)), True, Call(torch_format.ORDERED_DICT)),
  )
  archive.write(path, {'w': parameter})
  arrays = checkpoints.read_torch_checkpoint(path)
  np.testing.assert_array_equal(arrays['w'], [1, 1])


def test_sections(archive, path):
  namespace = Call(Global('argparse', 'Namespace'), (), {'lr': 1e-4})
  tensors = [archive.add(np.array(value)) for value in range(5)]
  root = {
      'model': {'w': tensors[0]},
      'state_dict': {'w': tensors[1], 'head': {'b': {'c': tensors[2]}}},
      'args': namespace,
      'optimizer': {'state': {0: {'step': tensors[3]}}},
      'epoch': 3,
  }
  archive.write(path, root)
  read = checkpoints.read_torch_checkpoint
  assert list(read(path)) == ['w', 'head/b/c']
  assert read(path)['w'] == 1
  assert read(path, section='model')['w'] == 0
  with pytest.raises(ValueError, match=r"got 'ema' - it has 'model', 'state_"):
    read(path, section='ema')
  with pytest.raises(ValueError, match=r"section must name .* got 'epoch'"):
    read(path, section='epoch')
  with pytest.raises(ValueError, match='optimizer has a malformed name: of ty'):
    read(path, section='optimizer')
  archive.write(path, {'ema_model': {'w': tensors[4]}, **root})
  assert read(path)['w'] == 4
  archive.write(path, {'net': {'w': tensors[4]}, 'epoch': 3})
  with pytest.raises(ValueError, match="got None - it has 'net'"):
    read(path)


def test_the_attribute_of_a_lightning_module_is_dropped(archive, path):
  tensor = archive.add(np.zeros(2, np.float32))
  archive.write(path, {'state_dict': {'model.a.b': tensor, 'model.c': tensor}})
  assert list(checkpoints.read_torch_checkpoint(path)) == ['a.b', 'c']
  archive.write(path, {'state_dict': {'model.a.b': tensor, 'c': tensor}})
  assert list(checkpoints.read_torch_checkpoint(path)) == ['model.a.b', 'c']


def test_lightning_files_may_hold_anything_elsewhere(archive, path):
  callback = Global('lightning.pytorch.callbacks', 'ModelCheckpoint')
  root = {
      'state_dict': Call(
          torch_format.ORDERED_DICT,
          (),
          {'_metadata': {'': {'version': 1}}},
      ),
      'callbacks': {callback: {'best': Call(Global('torch', 'Size'), ((1,),))}},
      'hooks': [Call(Global('os', 'system'), (f'touch {path}.marker',))],
  }
  archive.write(path, root)
  assert checkpoints.read_torch_checkpoint(path) == {}
  assert not path.with_name('weights.pt.marker').exists()


@pytest.mark.parametrize(
    'value',
    [
        Call(Global('os', 'system'), ('touch marker',)),
        Call(Global('torch._utils', '_rebuild_tensor_v9'), (1,)),
        1.0,
        'text',
        [1],
        None,
    ],
)
def test_a_section_holds_tensors_only(archive, path, value):
  archive.write(
      path, {'state_dict': {'good': archive.add(np.ones(2)), 'w': value}}
  )
  with pytest.raises(ValueError, match="'w' in state_dict must be a tensor"):
    checkpoints.read_torch_checkpoint(path)


def test_nests_of_dicts_do_not_explode(path):
  # Each dict holds the one before it twice: 2**60 paths lead to the first.
  content = b'\x80\x02}q\x000' + b''.join(
      b'}(X\x01\x00\x00\x00ah%cX\x01\x00\x00\x00bh%cuq%c0' % (i, i, i + 1)
      for i in range(60)
  )
  content += b'}X\x0a\x00\x00\x00state_dicth<s.'
  with zipfile.ZipFile(path, 'w') as file:
    file.writestr('archive/data.pkl', content)
  with pytest.raises(ValueError, match='nests dicts too deeply or repeats one'):
    checkpoints.read_torch_checkpoint(path)


def test_compressed_entries_are_refused(archive, path):
  archive.storages['0'] = bytes(10_000_000)
  tensor = torch_format.make_tensor('0', 'ByteStorage', 10_000_000)
  archive.write(path, {'w': tensor}, compression=zipfile.ZIP_DEFLATED)
  assert path.stat().st_size < 100_000
  with pytest.raises(ValueError, match='is compressed'):
    checkpoints.read_torch_checkpoint(path)


def test_entries_that_share_their_bytes_are_refused(archive, path):
  archive.storages['0'] = bytes(10_000)
  archive.write(path, {'w': archive.add(np.ones(1))})
  content = path.read_bytes()
  # The directory claims that every entry is as large as the file.
  start = content.rindex(b'PK\x05\x06')
  begin = struct.unpack('<I', content[start + 16 : start + 20])[0]
  directory = bytearray(content[begin:start])
  position = 0
  while (position := directory.find(b'PK\x01\x02', position)) >= 0:
    struct.pack_into('<II', directory, position + 20, 9000, 9000)
    position += 4
  path.write_bytes(content[:begin] + bytes(directory) + content[start:])
  with pytest.raises(ValueError, match='together larger than the archive'):
    checkpoints.read_torch_checkpoint(path)


@pytest.mark.filterwarnings('ignore:Duplicate name')
def test_ambiguous_archives_are_refused(path):
  with zipfile.ZipFile(path, 'w') as file:
    file.writestr('a/data.pkl', torch_format.emit({}))
    file.writestr('a/data.pkl', torch_format.emit({}))
  with pytest.raises(ValueError, match='two entries of the same name'):
    checkpoints.read_torch_checkpoint(path)
  with zipfile.ZipFile(path, 'w') as file:
    file.writestr('a/data.pkl', torch_format.emit({}))
    file.writestr('b/data.pkl', torch_format.emit({}))
  with pytest.raises(ValueError, match=r'one entry data\.pkl; got 2'):
    checkpoints.read_torch_checkpoint(path)


def test_other_zip_files_are_refused(path):
  with path.open('wb') as file:
    np.savez(file, a=np.zeros(3))
  with pytest.raises(ValueError, match=r'one entry data\.pkl; got 0'):
    checkpoints.read_torch_checkpoint(path)


def test_legacy_files_say_how_to_mend_them(path):
  path.write_bytes(
      b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.'
  )
  with pytest.raises(ValueError, match=r'legacy .* torch\.save\(torch\.load'):
    checkpoints.read_torch_checkpoint(path)


def test_big_endian_files_are_refused(archive, path):
  archive.write(path, {'w': archive.add(np.ones(1))}, byteorder=b'big')
  with pytest.raises(ValueError, match='must be little-endian'):
    checkpoints.read_torch_checkpoint(path)


def _make_sample(archive, path):
  tensors = {name: archive.add(np.arange(4.0)) for name in ('a', 'b')}
  archive.write(path, {'state_dict': tensors, 'epoch': 3})
  return path.read_bytes()


def test_truncated_files_are_refused(archive, path):
  content = _make_sample(archive, path)
  for length in range(0, len(content), 5):
    path.write_bytes(content[:length])
    with pytest.raises(ValueError, match=r'weights\.pt'):
      checkpoints.read_torch_checkpoint(path)


def test_flipped_bytes_give_arrays_or_a_value_error(archive, path):
  content = _make_sample(archive, path)
  random = np.random.default_rng(0)
  refused = 0
  for _ in range(250):
    damaged = bytearray(content)
    damaged[random.integers(len(content))] = random.integers(256)
    path.write_bytes(damaged)
    message = 'weights.pt'
    try:
      checkpoints.read_torch_checkpoint(path)
    except ValueError as error:
      refused += 1
      message = str(error)
    assert 'weights.pt' in message
  assert refused > 50
