"""Features of `tapir_tiny`."""

import dataclasses

import haiku as hk
import jax
import numpy as np
import pytest

from tapjax.models.tapir_tiny.config import TAPIR_TINY
from tapjax.models.tapir_tiny.network import TapirTiny


@pytest.mark.parametrize('radius', [0, 2])
def test_the_stem_is_returned_where_its_patches_are_compared(radius):
  config = dataclasses.replace(TAPIR_TINY, stem_support_radius=radius)
  encode = hk.transform(
      lambda frame: TapirTiny(config, 'cpu').encode_frame(frame)
  )
  frame = jax.ShapeDtypeStruct((48, 64, 3), np.float32)
  params = jax.eval_shape(encode.init, jax.random.key(0), frame)
  grids = jax.eval_shape(encode.apply, params, None, frame)
  assert grids.coarse.shape[:2] == (6, 8)
  assert grids.fine.shape[:2] == (12, 16)
  if radius:
    assert grids.stem.shape == (24, 32, config.channels[0])
  else:
    assert grids.stem is None
