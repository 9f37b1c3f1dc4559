"""Records and messages of TensorFlow, read without it."""

import numpy as np

from tapjax.data.kubric import tf_records
from tests.support import movi_writer


def test_messages():
  features = {
      'words': [b'', b'\x00\xff'],
      'floats': np.asarray([1.5, -2], np.float32),
      'integers': np.asarray([0, 1, 127, 128, 70000, 2**40]),
  }
  parsed = tf_records.parse_example(movi_writer.encode_example(features))
  assert parsed['words'] == features['words']
  np.testing.assert_array_equal(parsed['floats'], features['floats'])
  np.testing.assert_array_equal(parsed['integers'], features['integers'])
  assert tf_records.parse_example(b'') == {}
