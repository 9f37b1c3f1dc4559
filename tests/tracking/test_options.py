"""Choices of a call of `track` that are refused."""

import jax
import pytest

from tapjax.tracking.options import Options


def test_no_devices_are_refused():
  with pytest.raises(ValueError, match=r'devices must be a list .*got \[\] - '):
    Options(devices=[])


def test_devices_of_jax_are_taken():
  assert Options(devices=jax.devices()[:1]).devices == jax.devices()[:1]
  assert Options().devices is None
