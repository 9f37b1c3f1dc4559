import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from tapjax.models.taptr.config import TAPTRV2
from tapjax.models.taptr.coordinates import normalized_to_pixels
from tapjax.models.taptr.coordinates import pixels_to_normalized


@pytest.mark.parametrize('ends', ['centers', 'edges'])
def test_coordinates_are_counted_from_the_ends(ends):
  config = dataclasses.replace(TAPTRV2, ends=ends)
  corners = {
      'centers': [[0.5, 0.5], [511.5, 511.5]],
      'edges': [[0.0, 0.0], [512.0, 512.0]],
  }
  normalized = pixels_to_normalized(jnp.asarray(corners[ends]), config)
  np.testing.assert_allclose(normalized, [[0, 0], [1, 1]], atol=1e-7)
  back = normalized_to_pixels(normalized, config)
  np.testing.assert_allclose(back, corners[ends], atol=1e-4)
