"""Held-out videos are the same each time, and differ from each other."""

import numpy as np
import pytest

from tapjax.data.procedural import heldout
from tapjax.data.procedural.videos import ProceduralConfig

SMALL = ProceduralConfig(
    resolution=(24, 32),
    num_queries=5,
    num_objects=2,
    samples_per_pixel=1,
    texture_size=16,
    num_leaves=4,
)


@pytest.mark.slow
@pytest.mark.usefixtures('quick_compilation')
def test_videos_are_fixed():
  source = heldout.make_heldout_source(3, 2, SMALL)
  first, second = source.entries()
  assert [first.name, second.name] == [
      'procedural_3_000',
      'procedural_3_001',
  ]
  video = first.read()
  assert first.num_frames == 3
  assert video.frames.shape == (3, 24, 32, 3)
  assert video.frames.dtype == np.uint8
  assert video.target_points.shape == (5, 3, 2)
  assert (~video.occluded).any(axis=1).all()
  again = next(source.entries()).read()
  np.testing.assert_array_equal(video.frames, again.frames)
  np.testing.assert_array_equal(video.points_unit, again.points_unit)
  assert (second.read().frames != video.frames).mean() > 0.5
  shown = video.target_points[~video.occluded]
  assert ((shown >= 0) & (shown <= (32, 24))).all()
