"""Likely fixes of frames and points, through the checks that name them."""

import re

import numpy as np
import pytest

from tapjax.tracking import checks

COLORS = np.random.default_rng(0).integers(0, 256, (5, 8, 10, 3), np.uint8)
GRAY = COLORS[..., :1].repeat(3, axis=-1)


def follow_advice(check, value, name):
  """Does what the message says, and returns what that comes to."""
  with pytest.raises(ValueError, match=rf'^{name} must') as caught:
    check(value)
  code = re.search(rf'(?:pass |: |\? )(\S*\(*{name}\b.*)$', str(caught.value))
  return eval(code[1], {'numpy': np, name: value})


@pytest.mark.parametrize(
    ('frames', 'expected'),
    [
        (GRAY[..., 0], GRAY),
        (GRAY[..., :1], GRAY),
        (GRAY[:, None, ..., 0], GRAY),
        (COLORS[0], COLORS[:1]),
        (GRAY[0, ..., 0], GRAY[:1]),
        (np.pad(COLORS, ((0, 0),) * 3 + ((0, 1),)), COLORS),
        (np.pad(COLORS[0], ((0, 0),) * 2 + ((0, 1),)), COLORS[:1]),
        (np.moveaxis(COLORS, -1, 1), COLORS),
        (np.moveaxis(COLORS, -1, 0), COLORS),
        (np.moveaxis(COLORS[0], -1, 0), COLORS[:1]),
        (COLORS[None], COLORS),
        (COLORS[None].repeat(2, axis=0), COLORS),
        (np.moveaxis(COLORS, -1, 1)[None], COLORS),
        (np.moveaxis(COLORS, -1, 0)[None], COLORS),
        (COLORS.astype(np.int64), COLORS),
        (COLORS.astype(np.float32), COLORS),
        (COLORS / 255, COLORS),
        ((COLORS / 255).astype(np.float32), COLORS),
        (COLORS / 127.5 - 1, COLORS),
        (COLORS.astype(np.uint16) * 257, COLORS),
    ],
    ids=[
        'gray',
        'gray-channel',
        'gray-channel-first',
        'one-frame',
        'one-gray-frame',
        'rgba',
        'one-rgba-frame',
        'channels-second',
        'channels-first',
        'one-frame-channels-first',
        'batch',
        'batch-of-two',
        'batch-channels-second',
        'batch-channels-first',
        'whole-numbers',
        'floats',
        'from-0-to-1',
        'from-0-to-1-single',
        'from-minus-1-to-1',
        '16-bit',
    ],
)
def test_advice_on_frames_is_right(frames, expected):
  mended = follow_advice(checks.check_frames, frames, 'frames')
  np.testing.assert_array_equal(checks.check_frames(mended), expected)


@pytest.mark.parametrize(
    'frame',
    [
        COLORS[:1],
        np.moveaxis(COLORS[0], -1, 0),
        np.pad(COLORS[0], ((0, 0),) * 2 + ((0, 1),)),
        COLORS[0] / 255,
    ],
    ids=['time-axis', 'channels-first', 'rgba', 'from-0-to-1'],
)
def test_advice_on_one_frame_is_right(frame):
  mended = follow_advice(checks.check_frame, frame, 'frame')
  np.testing.assert_array_equal(checks.check_frame(mended), COLORS[0])


def test_other_arrays_are_told_how_to_become_frames():
  class Tensor:

    def __array__(self, dtype=None, copy=None):
      return COLORS

  tensor = Tensor()
  mended = follow_advice(checks.check_frames, tensor, 'frames')
  np.testing.assert_array_equal(mended, COLORS)
  Tensor.__module__ = 'torch'
  with pytest.raises(ValueError, match=r'pass frames\.cpu\(\)\.numpy\(\)$'):
    checks.check_frames(tensor)


@pytest.mark.parametrize(
    ('frames', 'message'),
    [
        (COLORS > 9, r'a mask\? frames.astype\(numpy.uint8\) \* 255 is'),
        (COLORS * 2.0, 'values are from 0 to 510; bring colors to that range'),
        (np.full((1, 2, 2, 3), np.nan), 'from nan to nan; bring colors'),
        (np.zeros((0, 2, 2, 3)), 'got float64 - bring colors to that range'),
        (np.zeros((1, 2, 2, 3), complex), 'got complex128 - bring colors'),
    ],
    ids=['mask', 'wide', 'nan', 'empty', 'complex'],
)
def test_other_colors_are_described(frames, message):
  with pytest.raises(ValueError, match=message):
    checks.check_frames(frames)


@pytest.mark.parametrize(
    ('columns', 'order'),
    [
        ([0, 2, 1], r'\(t, x, y\)'),
        ([2, 1, 0], r'\(x, y, t\)'),
        ([1, 2, 0], r'\(y, x, t\)'),
    ],
    ids=str,
)
def test_other_orders_are_recognized(columns, order):
  points = np.float32([[3, 40, 60], [9, 12, 50]])
  given = points[:, columns]

  def check(given):
    checks.check_queries_inside(given, 10, (48, 64))

  mended = follow_advice(check, given, 'query_points')
  np.testing.assert_array_equal(mended, points)
  with pytest.raises(ValueError, match=f'all lie inside as {order}: pass'):
    check(given)


def test_orders_that_nothing_tells_are_asked_for():
  for points in ([[3, 99, 99]], [[3, 60, 40], [3, 40, 60]]):
    with pytest.raises(ValueError, match=r'is the order \(t, y, x\), in pix'):
      checks.check_queries_inside(np.float32(points), 10, (48, 64))
  # Where the end is unknown, any number may be a time.
  with pytest.raises(ValueError, match=r'is the order \(t, y, x\), in pix'):
    checks.check_queries_inside(np.float32([[60, 40, 90]]), None, (48, 64))


def test_shares_of_a_frame_are_recognized():
  shares = np.float32([[0.1, 0.9], [1, 0]])
  with pytest.warns(UserWarning, match='all 2 query_points lie in the first'):
    checks.warn_of_shares(shares, (48, 64), 'query_points', 1)
  with pytest.warns(UserWarning, match='height, 48, and width, 64'):
    checks.warn_of_shares(shares, (48, 64), 'query_points', 1)
  for points, size in (
      (shares[:1], (48, 64)),
      (shares * 1.2, (48, 64)),
      (shares, (1, 1)),
      (np.zeros((3, 2), np.float32), (48, 64)),
  ):
    checks.warn_of_shares(points, size, 'query_points', 1)
  with pytest.raises(ValueError, match='from -1 to 1: are they shares'):
    checks.check_queries_inside(np.float32([[0, -0.5, 0.5]]), 10, (48, 64))


def test_points_of_a_frame_lie_in_it():
  checks.check_points_inside(np.float32([[48, 64], [0, 0]]), (48, 64))
  swapped = np.float32([[60, 40], [10, 40]])
  with pytest.raises(ValueError, match=r'^points_yx must lie in the frame, .y'):
    checks.check_points_inside(swapped, (48, 64))

  def check(points):
    checks.check_points_inside(points, (48, 64))

  mended = follow_advice(check, swapped, 'points_yx')
  np.testing.assert_array_equal(mended, swapped[:, ::-1])
  with pytest.raises(ValueError, match=r'is the order \(y, x\), in pixels'):
    check(np.float32([[60, 70]]))
