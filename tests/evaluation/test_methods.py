"""Methods under evaluation."""

import numpy as np

from tapjax.evaluation import evaluate as evaluation
from tapjax.evaluation import methods
from tapjax.types import Tracks
from tests.evaluation.test_evaluate import make_false_method
from tests.evaluation.test_evaluate import make_source
from tests.evaluation.test_evaluate import STRIDED
from tests.evaluation.test_evaluate import VIDEOS


def test_both_directions_where_only_the_past_is_seen(tmp_path):
  """Frames before a query come from the video played backwards."""

  def track(clip, num_frames):
    frame = np.arange(len(clip.frames))[None]
    steps = frame - clip.query_points[:, :1]
    # Knows how far it went since the query, and nothing before it.
    positions = np.where(steps < 0, np.nan, steps)[..., None].repeat(2, -1)
    return Tracks(positions, steps >= 0, None, None)

  method = make_false_method(track=track, sees_only_past=True)
  points = np.asarray([[0, 5, 5], [2, 5, 5], [3, 5, 5]], np.float64)
  clip = methods.Clip(np.zeros((4, 32, 32, 3), np.uint8), points)
  tracks = methods.track_clip(method, clip, 4, 'strided')
  expected = np.abs(np.arange(4)[None] - points[:, :1])
  np.testing.assert_array_equal(tracks.positions[..., 0], expected)
  assert tracks.visible.all()
  tracks = methods.track_clip(method, clip, 4, 'first')
  assert np.isnan(tracks.positions).any()
  result = evaluation.evaluate(
      STRIDED, make_source(VIDEOS[:1]), method, tmp_path
  )
  assert result['directions'] == ['forward', 'backward']
