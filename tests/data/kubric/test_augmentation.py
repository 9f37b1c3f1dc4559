"""Crops and colors, against stored outputs of the published pipeline."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tapjax.data.kubric import augmentation
from tapjax.data.kubric.query_choices import CropWindow

ATOL = 2e-5


@pytest.fixture(scope='module')
def stored(reference):
  with np.load(reference / 'tapvid' / 'golden_augmentation.npz') as file:
    return dict(file)


def make_colors(settings):
  return augmentation.Colors(
      np.float32(settings['delta']),
      np.float32(settings['saturation']),
      np.float32(settings['contrast']),
      np.float32(settings['hue']),
      np.bool_(settings['coin_augment'] < 0.8),
      np.bool_(settings['coin_drop'] < 0.2),
  )


@pytest.mark.parametrize('case', range(4))
def test_colors(stored, case):
  settings = json.loads(str(stored['meta']))['settings'][f'case{case}']
  video = jax.jit(augmentation.change_colors)(
      stored['video_in'], make_colors(settings)
  )
  expected = stored[f'case{case}/video_out']
  np.testing.assert_allclose(video, expected, atol=ATOL)


@pytest.mark.slow
def test_every_step_of_the_colors(stored):
  settings = json.loads(str(stored['meta']))['settings']['case0']
  video = (jnp.asarray(stored['video_in']) + 1) / 2
  steps = (
      ('brightness', augmentation.add_brightness, 'delta'),
      ('saturation', augmentation.scale_saturation, 'saturation'),
      ('contrast', augmentation.scale_contrast, 'contrast'),
      ('hue', augmentation.shift_hue, 'hue'),
  )
  for name, change, setting in steps:
    video = change(video, jnp.float32(settings[setting]))
    expected = stored[f'case0/after_{name}']
    np.testing.assert_allclose(video, expected, atol=ATOL, err_msg=name)


@pytest.mark.slow
def test_gray_and_negative_pixels_keep_their_value():
  video = jnp.asarray([[[[0.5, 0.5, 0.5], [-0.2, -0.1, -0.3]]]])
  saturated = augmentation.scale_saturation(video, jnp.float32(1.3))
  np.testing.assert_allclose(saturated[0, 0], [[0.5] * 3, [-0.1] * 3])
  turned = augmentation.shift_hue(video, jnp.float32(1 / 3))
  np.testing.assert_allclose(
      turned[0, 0], [[0.5] * 3, [-0.3, -0.2, -0.1]], atol=1e-6
  )


def test_resized_crop(stored):
  frames = np.round((stored['video_in'] + 1) * 127.5).astype(np.uint8)
  resized = jax.jit(augmentation.resize_crop, static_argnums=2)(
      frames, np.asarray([3, 6, 61, 50]), (40, 24)
  )
  np.testing.assert_allclose(
      (resized + 1) * 127.5, stored['resize/to_40x24'], atol=127.5 * ATOL
  )


@pytest.mark.parametrize('case', ['nocrop', 'crop', 'pad', 'vflip'])
def test_resized_crop_as_published(reference, case):
  with np.load(reference / 'tapvid' / 'golden_kubric.npz') as file:
    settings = json.loads(str(file[f'{case}/settings']))
    record, expected = file['record/video'], file[f'{case}/video']
  crop = settings['window'] or (0, 0, *record.shape[1:3])
  resized = jax.jit(
      functools.partial(
          augmentation.resize_crop,
          resolution=tuple(settings['train_size']),
          as_published=True,
      )
  )(record, np.asarray(crop))
  if case == 'vflip':
    resized = resized[:, ::-1]
  np.testing.assert_allclose(resized, expected, atol=2e-6)


def measure(crops):
  top, left, bottom, right = np.asarray(crops, float).T
  height, width = bottom - top, right - left
  return {
      'height': height,
      'width': width,
      'area_fraction': height * width / 256**2,
      'aspect': width / height,
      'y0': top,
      'x0': left,
  }


def test_crops_are_distributed_as_published(stored):
  generator = np.random.default_rng(0)
  drawn = [augmentation.draw_crop((256, 256), generator) for _ in range(4000)]
  ours = measure(drawn)
  theirs = measure(stored['crop_stats/windows_sample'])
  for name, values in ours.items():
    places = np.sort(np.concatenate([values, theirs[name]]))
    first = np.searchsorted(np.sort(values), places, 'right') / len(values)
    second = np.searchsorted(np.sort(theirs[name]), places, 'right')
    distance = np.abs(first - second / len(theirs[name])).max()
    # Kolmogorov and Smirnov's bound for one chance in ten thousand.
    assert distance < 2.23 * (1 / len(values) + 1 / len(theirs[name])) ** 0.5
    mean, std, low, *_, high = stored[f'crop_stats/{name}']
    assert abs(values.mean() - mean) < 4 * std * len(values) ** -0.5, name
    assert low <= values.min(), name
    assert values.max() <= high, name


@pytest.mark.parametrize('resolution', [(7, 9), (64, 64), (40, 400)], ids=str)
def test_crops_fit(resolution):
  generator = np.random.default_rng(1)
  for _ in range(100):
    crop = augmentation.draw_crop(resolution, generator)
    assert isinstance(crop, CropWindow)
    assert 0 <= crop.top < crop.bottom <= resolution[0]
    assert 0 <= crop.left < crop.right <= resolution[1]
    area = (crop.bottom - crop.top) * (crop.right - crop.left)
    assert area >= 0.3 * resolution[0] * resolution[1]


def test_how_often_colors_change():
  generator = np.random.default_rng(2)
  drawn = [augmentation.draw_colors(generator) for _ in range(2000)]
  assert np.mean([colors.is_changed for colors in drawn]) == pytest.approx(
      0.8, abs=0.04
  )
  assert np.mean([colors.is_gray for colors in drawn]) == pytest.approx(
      0.2, abs=0.04
  )
  shifts = np.asarray([colors.brightness for colors in drawn])
  assert 0.12 < np.abs(shifts).max() <= 32 / 255
