"""Random choice of queries in MOVi videos."""

import numpy as np
import pytest

from tapjax.data.kubric import query_choices
from tapjax.data.kubric import tracks as movi_tracks
from tests.data.kubric.test_tracks import make_video
from tests.support import movi_golden


@pytest.fixture(scope='module')
def stored(reference):
  return movi_golden.load_stored(reference)


@pytest.mark.parametrize('case', movi_golden.CASES)
def test_how_many_points_each_segment_gets(stored, case):
  record = movi_golden.make_record(stored)
  crop, config, choices = movi_golden.make_case(stored, case)
  segments = query_choices.find_segments(record, config)
  counts = query_choices.count_grid_points(
      segments, crop, choices.start, config
  )
  expected = stored[f'{case}/grid_counts']
  np.testing.assert_array_equal(counts[: len(expected)], expected)
  np.testing.assert_array_equal(
      query_choices.divide_points(counts, config),
      [len(chosen) for chosen in choices.chosen],
  )


def test_equal_seeds_make_equal_tracks():
  record = make_video(5)
  config = query_choices.MoviTrackConfig(num_points=32, stride=2)
  crop = query_choices.CropWindow(0, 0, 48, 48)

  def make(seed):
    generator = np.random.default_rng(seed)
    return movi_tracks.make_tracks(record, crop, (48, 48), config, generator)

  for one, other in zip(make(3), make(3), strict=True):
    np.testing.assert_array_equal(one, other)
  assert (make(3).query_points != make(4).query_points).any()


def test_too_many_segments_are_refused():
  record = make_video(0)
  config = query_choices.MoviTrackConfig(most_segments=2, stride=1)
  with pytest.raises(ValueError, match='raise most_segments'):
    movi_tracks.make_tracks(
        record,
        query_choices.CropWindow(0, 0, 48, 48),
        (48, 48),
        config,
        np.random.default_rng(0),
    )
