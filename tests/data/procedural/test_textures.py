"""Random textures and outlines."""

import jax
import numpy as np
import pytest

from tapjax.data.procedural import textures

shape_noise = jax.jit(textures.shape_noise)


def shape(**changes):
  white = jax.random.normal(jax.random.key(0), (64, 64))
  settings = {'falloff': 1.5, 'corner': 4.0, 'stretch': 1.0, 'angle': 0.0}
  return np.asarray(shape_noise(white, **{**settings, **changes}))


def measure_roughness(noise, axis):
  return np.abs(noise - np.roll(noise, 1, axis)).mean()


def test_noise_is_normalized_and_periodic():
  noise = shape()
  assert abs(noise.mean()) < 1e-5
  np.testing.assert_allclose(noise.std(), 1, rtol=1e-4)
  # The seam is as smooth as the rest.
  seam = np.abs(noise[0] - noise[-1]).mean()
  assert seam < 2 * measure_roughness(noise, 0)


def test_steeper_spectra_are_smoother():
  rough, smooth = (shape(falloff=falloff) for falloff in (0.5, 3.0))
  assert measure_roughness(smooth, 0) < 0.5 * measure_roughness(rough, 0)


def test_noise_is_stretched_across_its_direction():
  noise = shape(stretch=4.0)
  ratio = measure_roughness(noise, 0) / measure_roughness(noise, 1)
  turned = shape(stretch=4.0, angle=np.pi / 2)
  other = measure_roughness(turned, 0) / measure_roughness(turned, 1)
  assert max(ratio, other) > 1.5
  np.testing.assert_allclose(ratio * other, 1, rtol=0.5)


@pytest.mark.slow
def test_outlines_hold_their_center_and_end_in_the_grid():
  make = jax.jit(textures.make_outline, static_argnums=1)
  for seed in range(3):
    outline = np.asarray(make(jax.random.key(seed), 24))
    assert outline[11:13, 11:13].min() > 0
    border = np.concatenate(
        [outline[0], outline[-1], outline[:, 0], outline[:, -1]]
    )
    assert border.max() < 0
