"""Metrics: stored outputs of the published programs, and hand-made cases."""

import json

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest

from tapjax.evaluation import metrics
from tapjax.evaluation.metrics import compute_tapvid_metrics

ARRAYS = (
    'query_points',
    'gt_occluded',
    'gt_tracks',
    'pred_occluded',
    'pred_tracks',
)


def load(path):
  with np.load(path) as file:
    arrays = dict(file)
  return json.loads(str(arrays.pop('meta'))), arrays


def list_cases(arrays):
  """Splits a file by what stands before the names of the inputs."""
  ending = 'query_mode'
  for prefix in [name[: -len(ending)] for name in arrays if ending in name]:
    yield prefix, {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }


@pytest.mark.parametrize('name', ['first', 'strided', 'edge'])
def test_tapvid_metrics(name, reference):
  _, stored = load(reference / 'tapvid' / f'golden_metrics_{name}.npz')
  cases = list(list_cases(stored))
  assert cases
  for prefix, case in cases:
    inputs = [case[name] for name in ARRAYS]
    for group, trackwise in (('out', False), ('trackwise', True)):
      actual = compute_tapvid_metrics(
          *inputs, str(case['query_mode']), get_trackwise_metrics=trackwise
      )
      expected = {
          name.split('/')[1]: array
          for name, array in case.items()
          if name.startswith(f'{group}/')
      }
      assert actual.keys() == expected.keys()
      for key, value in expected.items():
        np.testing.assert_allclose(
            actual[key],
            value,
            rtol=0,
            atol=1e-12,
            err_msg=f'{prefix}{group}/{key}',
        )


def test_redetection(reference):
  _, stored = load(reference / 'tapvid' / 'golden_metrics_redetection.npz')

  def swap(name):
    return np.swapaxes(stored[name], 1, 2)

  actual = metrics.compute_redetection_metrics(
      ~swap('gt_visible'),
      swap('gt_tracks'),
      ~swap('pred_visible'),
      swap('pred_tracks'),
  )
  expected = {
      name.removeprefix('out/'): value
      for name, value in stored.items()
      if name.startswith('out/')
  }
  assert actual.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_allclose(actual[name], value, atol=1e-6, err_msg=name)


def test_pck(reference):
  _, stored = load(reference / 'tapvid' / 'golden_loaders.npz')
  errors = []
  num_videos = len({key.split('/')[1] for key in stored if 'jhmdb/' in key})
  assert num_videos
  for i in range(num_videos):
    video = {
        key.split('/')[2]: array
        for key, array in stored.items()
        if key.startswith(f'jhmdb/{i}/')
    }
    height, width = video['im_size']
    scale = (width, height) / np.asarray(video['video_shape'][[3, 2]])
    errors.append(
        metrics.compute_joint_errors(
            video['gt_pose_orig'][0],
            video['pred_tracks'][0] * scale,
            (int(height), int(width)),
        )
    )
    for name, value in metrics.compute_pck(errors, published=True).items():
      np.testing.assert_allclose(value, video[f'cumulative_{name}'], rtol=1e-9)


def test_joints_that_no_video_shows_are_left_out_of_pck():
  errors = np.asarray([[0.05, 0.3], [np.nan, np.nan]])
  assert metrics.compute_pck([errors])['PCK@0.2'] == 50
  assert metrics.compute_pck([errors], published=True)['PCK@0.2'] == 25


def make_case(seed, b=3, n=4, t=7):
  generator = np.random.default_rng(seed)
  points = np.zeros((b, n, 3))
  points[..., 0] = generator.integers(t, size=(b, n))
  truth = generator.uniform(0, 256, (b, n, t, 2))
  return [
      points,
      generator.random((b, n, t)) < 0.4,
      truth,
      generator.random((b, n, t)) < 0.4,
      truth + generator.normal(size=truth.shape) * 5,
  ]


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.sampled_from(metrics.QUERY_MODES))
def test_a_batch_has_the_metrics_of_its_parts(seed, mode):
  case = make_case(seed)
  whole = compute_tapvid_metrics(*case, mode)
  tracks = compute_tapvid_metrics(*case, mode, get_trackwise_metrics=True)
  for i in range(3):
    part = compute_tapvid_metrics(*(array[i : i + 1] for array in case), mode)
    for name, value in whole.items():
      np.testing.assert_array_equal(part[name], value[i : i + 1])
    for j in range(4):
      alone = compute_tapvid_metrics(
          *(array[i : i + 1, j : j + 1] for array in case), mode
      )
      for name, value in tracks.items():
        np.testing.assert_array_equal(alone[name], value[i, j : j + 1])


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.sampled_from(metrics.QUERY_MODES))
def test_a_perfect_prediction_scores_one(seed, mode):
  points, hidden, truth, _, _ = make_case(seed)
  prediction = np.where(hidden[..., None], 1e9, truth)
  values = compute_tapvid_metrics(
      points, hidden, truth, hidden, prediction, mode
  )
  for name, value in values.items():
    known = value[~np.isnan(value)]
    np.testing.assert_array_equal(known, 1, err_msg=name)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.sampled_from(metrics.QUERY_MODES))
def test_hidden_targets_and_the_query_frame_change_nothing(seed, mode):
  points, hidden, truth, pred_hidden, prediction = make_case(seed)
  expected = compute_tapvid_metrics(
      points, hidden, truth, pred_hidden, prediction, mode
  )
  truth = np.where(hidden[..., None], np.nan, truth)
  own = np.arange(7)[None, None] == points[..., :1]
  prediction = np.where(own[..., None], -1e9, prediction)
  pred_hidden = pred_hidden ^ own
  actual = compute_tapvid_metrics(
      points, hidden, truth, pred_hidden, prediction, mode
  )
  for name, value in expected.items():
    np.testing.assert_array_equal(actual[name], value)


@pytest.mark.parametrize(
    ('mode', 'distance', 'within'),
    [('first', 4.0, 2), ('first', 3.999, 3), ('strided', 1.0, 4)],
)
def test_by_hand(mode, distance, within):
  """One point, always seen, as far off as that."""
  shape = (1, 1, 4)
  truth = np.full((*shape, 2), 50.0)
  prediction = truth + np.asarray([distance, 0.0])
  hidden = np.zeros(shape, bool)
  values = compute_tapvid_metrics(
      np.asarray([[[1.0, 50.0, 50.0]]]), hidden, truth, hidden, prediction, mode
  )
  assert values['occlusion_accuracy'] == 1
  assert values['average_pts_within_thresh'] == within / 5
  assert values['average_jaccard'] == within / 5


def test_nothing_to_measure_is_nan_and_counted():
  points = np.asarray([[[3.0, 1.0, 1.0]]])
  hidden = np.zeros((1, 1, 4), bool)
  tracks = np.zeros((1, 1, 4, 2))
  values = compute_tapvid_metrics(
      points, hidden, tracks, hidden, tracks, 'first'
  )
  assert all(np.isnan(value) for value in values.values())
  rows = [{'a': 0.5}, {'a': float('nan')}, {'a': 1.0}, {'b': 0.25}]
  means = metrics.average_videos(rows)
  assert means['a'] == (0.75, 2, 2)
  assert means['b'] == (0.25, 1, 3)
  assert np.isnan(metrics.average([float('nan')]).value)


def test_no_event_is_no_redetection():
  hidden = np.zeros((1, 2, 5), bool)
  tracks = np.zeros((1, 2, 5, 2))
  values = metrics.compute_redetection_metrics(hidden, tracks, hidden, tracks)
  assert all(np.isnan(value) for value in values.values())


def spoil(index, array):
  case = make_case(0)
  case[index] = array(case[index])
  return case


@pytest.mark.parametrize(
    ('case', 'mode', 'message'),
    [
        (make_case(0), 'q_first', "'first' or 'strided'; got 'q_first'"),
        (spoil(0, lambda a: a + 7), 'first', 'one of the 7 frames; got'),
        (spoil(0, lambda a: a * np.nan), 'first', 'one of the 7 frames; got'),
        (spoil(4, lambda a: a[:, :2]), 'first', 'pred_tracks must be'),
        (spoil(1, lambda a: a[0]), 'first', r'gt_occluded must be \[b, n, t\]'),
        (spoil(3, lambda a: a - 0.5), 'first', 'pred_occluded must be boolean'),
    ],
    ids=['mode', 'late', 'nan', 'tracks', 'batch', 'logits'],
)
def test_bad_input(case, mode, message):
  with pytest.raises(ValueError, match=message):
    compute_tapvid_metrics(*case, mode)
