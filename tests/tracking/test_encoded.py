"""Tracks through the features of a video."""

import numpy as np
import pytest

from tapjax.tracking import encoded
from tapjax.tracking import shapes
from tests.support.small_trackers import assert_same
from tests.support.small_trackers import make_tracker
from tests.support.small_trackers import make_video

QUERIES = np.float32([[0, 5, 7], [3, 30, 41.5], [5, 60, 20], [2, 33, 33]])


@pytest.mark.parametrize('name', ['tapnet'])
def test_tracks_are_those_of_the_tracker(name, monkeypatch):
  tracker = make_tracker(name)
  height, width = tracker.functions.resolution
  frames = make_video(6, height, width)
  features = encoded.encode_frames(tracker.functions, tracker.params, frames)
  expected = tracker.track(frames, QUERIES)
  # Three queries at once, so that the last call is padded.
  monkeypatch.setattr(shapes, 'get_rows', lambda: 3 * len(frames))
  tracks = encoded.track_features(
      tracker.functions, tracker.params, features, QUERIES
  )
  assert_same(tracks, expected)
