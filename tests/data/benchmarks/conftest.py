"""Sample files of TAP-Vid, and outputs of its published readers."""

import numpy as np
import pytest


@pytest.fixture(scope='session')
def samples(reference):
  return reference / 'tapvid' / 'samples'


@pytest.fixture(scope='session')
def tapvid_loaders(reference):
  """Outputs of the published readers."""
  with np.load(reference / 'tapvid' / 'golden_loaders.npz') as file:
    return dict(file)
