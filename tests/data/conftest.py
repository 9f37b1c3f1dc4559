"""Stored outputs that tests of several folders compare with."""

import numpy as np
import pytest


@pytest.fixture(scope='session')
def pips_loaders(reference):
  """Outputs of the loaders of PIPs++."""
  path = reference / 'pips2' / 'golden_loaders_synthetic.npz'
  with np.load(path) as file:
    return dict(file)
