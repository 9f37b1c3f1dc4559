"""Augmentation of clips."""

import dataclasses

import numpy as np
import pytest

from tapjax.data.point_odyssey import clips
from tests.data.point_odyssey.test_clips import make_ramp_clip
from tests.data.point_odyssey.test_clips import SMALL
from tests.data.point_odyssey.test_clips import STILL


@pytest.mark.parametrize(
    'augmentation',
    [
        pytest.param(None, id='none'),
        pytest.param(dataclasses.replace(STILL, reversal=1.0), id='reversal'),
        pytest.param(dataclasses.replace(STILL, spatial=1.0), id='spatial'),
        pytest.param(
            dataclasses.replace(
                STILL, occluder_clip=1.0, occluder_frame=0.5, spatial=0.5
            ),
            id='occluders',
        ),
    ],
)
def test_tracks_stay_on_what_they_follow(augmentation):
  """The color at a visible point encodes its original position."""
  raw, points = make_ramp_clip()
  hidden, made, errors = 0, 0, []
  for seed in range(8):
    generator = np.random.default_rng(seed)
    try:
      clip = clips.make_training_clip(raw, SMALL, augmentation, generator)
    except clips.ClipRejectedError:
      continue
    made += 1
    frames, tracks = clip
    assert frames.shape == (8, 160, 200, 3)
    assert frames.dtype == np.uint8
    assert tracks.positions.shape == (40, 8, 2)
    assert tracks.visible[:, :2].all()
    for row, shown in zip(tracks.positions, tracks.visible, strict=True):
      seen = np.asarray(
          [read_color(frames[t], *row[t]) for t in np.flatnonzero(shown)]
      )
      # The point is one of those that there were.
      source = np.argmin(np.abs(points - seen[0]).sum(axis=-1))
      errors += np.abs(seen - points[source]).max(axis=-1).tolist()
    hidden += np.sum(~tracks.visible)
  assert made >= 4
  # Beside what covers a frame, resizing mixes the colors.
  covered = augmentation is not None and augmentation.occluder_clip
  assert np.mean(np.asarray(errors) > 3) <= (0.03 if covered else 0)
  if covered:
    assert hidden > 20


def read_color(frame, x, y):
  """Interpolates red and green between the centers of pixels."""
  left, top = int(x), int(y)
  dx, dy = x - left, y - top
  cells = frame[top : top + 2, left : left + 2, :2].astype(float)
  rows = cells[0] * (1 - dy) + cells[-1] * dy
  return rows[0] * (1 - dx) + rows[-1] * dx
