"""Query points of ground-truth tracks."""

import numpy as np
import pytest

from tapjax.data import queries


def test_against_stored_outputs(reference):
  with np.load(reference / 'tapvid' / 'golden_queries.npz') as file:
    stored = dict(file)
  groups = {name.split('/')[0] for name in stored if '/' in name}
  assert groups
  for group in groups:
    points = stored['target_points']
    if group.endswith('float32'):
      points = points.astype(np.float32)
    if group.startswith('first'):
      actual = queries.sample_queries_first(points, stored['target_occluded'])
    else:
      actual = queries.sample_queries_strided(
          points, stored['target_occluded'], int(group.removeprefix('strided'))
      )
    for name in ('query_points', 'target_points', 'occluded', 'trackgroup'):
      if f'{group}/{name}' not in stored:
        assert (group[:5], name) == ('first', 'trackgroup')
        continue
      field = 'track_group' if name == 'trackgroup' else name
      (expected,) = stored[f'{group}/{name}']
      np.testing.assert_array_equal(getattr(actual, field), expected)
      assert getattr(actual, field).dtype == expected.dtype


def make_tracks():
  points = np.arange(24.0).reshape(3, 4, 2)
  occluded = np.asarray([[1, 1, 0, 1], [1, 1, 1, 1], [0, 1, 0, 0]], bool)
  return points, occluded


def test_by_hand():
  points, occluded = make_tracks()
  first = queries.sample_queries(points, occluded, 'first')
  np.testing.assert_array_equal(first.query_points, [[2, 5, 4], [0, 17, 16]])
  np.testing.assert_array_equal(first.track_group, [0, 2])
  np.testing.assert_array_equal(first.target_points, points[[0, 2]])
  strided = queries.sample_queries_strided(points, occluded, 2)
  np.testing.assert_array_equal(
      strided.query_points, [[0, 17, 16], [2, 5, 4], [2, 21, 20]]
  )
  np.testing.assert_array_equal(strided.track_group, [2, 0, 2])


@pytest.mark.parametrize('number', [3, 4, 9])
def test_random_queries_are_visible_points(number):
  points, occluded = make_tracks()
  generator = np.random.default_rng(0)
  drawn = queries.sample_queries_random(points, occluded, number, generator)
  assert len(drawn.query_points) == number
  if number <= 4:
    assert len(np.unique(drawn.query_points, axis=0)) == number
  for (t, y, x), track in zip(
      drawn.query_points, drawn.track_group, strict=True
  ):
    assert not occluded[track, int(t)]
    np.testing.assert_array_equal((x, y), points[track, int(t)])


@pytest.mark.parametrize(
    'sample',
    [
        queries.sample_queries_first,
        queries.sample_queries_strided,
        lambda *tracks: queries.sample_queries_random(
            *tracks, 2, np.random.default_rng(0)
        ),
    ],
    ids=['first', 'strided', 'random'],
)
def test_nothing_visible_is_an_error(sample):
  points, _ = make_tracks()
  with pytest.raises(ValueError, match='none of the 3 tracks is visible'):
    sample(points, np.ones((3, 4), bool))


def test_unknown_mode():
  with pytest.raises(ValueError, match="'first' or 'strided'; got 'last'"):
    queries.sample_queries(*make_tracks(), 'last')
