"""Color augmentation: single changes, and their combination for clips."""

import dataclasses

import numpy as np
import pytest

from tapjax.data.point_odyssey import color_augmentation as colors

NEVER = colors.ColorConfig(
    **dict.fromkeys(
        (field.name for field in dataclasses.fields(colors.ColorConfig)), 0.0
    )
)
KINDS = (
    'noise',
    'blur',
    'structure',
    'shift',
    'brightness',
    'gamma',
    'hue',
    'compression',
)


@pytest.fixture(scope='module')
def frame():
  """A smooth picture with edges and many colors."""
  y, x = np.meshgrid(np.arange(40), np.arange(56), indexing='ij')
  channels = [4 * x + 10, 5 * y + 20, 128 + 90 * np.sin(x / 5) * np.cos(y / 4)]
  picture = np.stack(channels, axis=-1).astype(np.uint8)
  picture[10:20, 30:40] = [250, 10, 60]
  return picture


@pytest.mark.parametrize('kind', KINDS)
def test_each_kind_changes_all_frames_alike(kind, frame):
  config = dataclasses.replace(NEVER, clip=1.0, **{kind: 1.0})
  for seed in range(5):
    generator = np.random.default_rng(seed)
    clip = colors.recolor_clip(np.stack([frame] * 3), config, generator)
    assert clip.dtype == np.uint8
    assert clip.shape == (3, *frame.shape)
    np.testing.assert_array_equal(clip[1:], clip[:1].repeat(2, axis=0))
    difference = np.abs(clip[0].astype(int) - frame).mean()
    # Something happens, and the picture is still there.
    assert 0 < difference < 60
  if kind == 'noise':
    # A deviation between the roots of 10 and 50.
    noise = clip[0].astype(float) - frame
    assert 3.0 < noise[frame > 30].std() < 7.3


def test_most_clips_are_changed(frame):
  clip = frame[None]
  changed = [
      not np.array_equal(
          clip,
          colors.recolor_clip(
              clip, colors.ColorConfig(), np.random.default_rng(seed)
          ),
      )
      for seed in range(60)
  ]
  # 0.8, times the chance of any kind at all, 0.96.
  assert 0.6 < np.mean(changed) < 0.92
  again = [
      colors.recolor_clip(clip, colors.ColorConfig(), np.random.default_rng(7))
      for _ in range(2)
  ]
  np.testing.assert_array_equal(*again)


def test_filters_weigh_neighbors(frame):
  kernel = np.zeros((3, 3))
  kernel[1, 2] = 1
  shifted = colors.filter_frame(frame, kernel)
  np.testing.assert_array_equal(shifted[:, :-1], frame[:, 1:])
  np.testing.assert_array_equal(shifted[:, -1], frame[:, -2])
  flat = np.full((9, 9, 3), 77, np.uint8)
  for _ in range(5):
    side = 5
    line = colors.make_line(side, [0, 1], [4, 3])
    assert line.sum() == pytest.approx(1)
    np.testing.assert_array_equal(colors.filter_frame(flat, line), flat)
  spot = flat.copy()
  spot[4, 4] = 255
  np.testing.assert_array_equal(colors.take_median(spot), flat)


@pytest.mark.parametrize('index', range(4))
def test_hue_is_that_of_opencv(index, frame):
  cv2 = pytest.importorskip('cv2')
  hue, saturation, value = [
      (0.0, 0.0, 0.0),
      (13.0, 0.0, 0.0),
      (0.0, -25.0, 0.0),
      (-7.0, 20.0, 15.0),
  ][index]
  hsv = cv2.cvtColor(frame.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
  hsv[..., 0] = (hsv[..., 0] + 2 * hue) % 360
  hsv[..., 1] = np.clip(hsv[..., 1] + saturation / 255, 0, 1)
  hsv[..., 2] = np.clip(hsv[..., 2] + value / 255, 0, 1)
  expected = 255 * cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
  answer = colors.shift_hue(frame, hue / 180, saturation, value)
  np.testing.assert_allclose(answer, expected, atol=0.51)


@pytest.mark.parametrize('clip_limit', [1.2, 2.0])
def test_equalization_is_that_of_opencv(clip_limit, frame):
  cv2 = pytest.importorskip('cv2')
  lab = cv2.cvtColor(frame, cv2.COLOR_RGB2LAB)
  lightness = np.asarray(lab[..., 0])
  equalizer = cv2.createCLAHE(clipLimit=clip_limit, tileGridSize=(8, 8))
  expected = equalizer.apply(lightness)
  answer = colors._equalize(lightness, clip_limit)
  np.testing.assert_allclose(answer, expected, atol=0.51)
  # OpenCV rounds L*a*b* to 8 bits on the way, also where it has to be limited.
  lab[..., 0] = expected
  picture = cv2.cvtColor(lab, cv2.COLOR_LAB2RGB).astype(int)
  answer = colors.equalize_lightness(frame, clip_limit)
  assert np.abs(answer - picture).mean() < 5


def test_lab_is_that_of_opencv(frame):
  cv2 = pytest.importorskip('cv2')
  expected = cv2.cvtColor(frame.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
  lab = colors._to_lab(frame)
  np.testing.assert_allclose(lab, expected, atol=0.6)
  np.testing.assert_allclose(colors._from_lab(lab).astype(int), frame, atol=1)


def test_an_impossible_probability():
  with pytest.raises(ValueError, match='hue must be a probability'):
    colors.ColorConfig(hue=1.5)
