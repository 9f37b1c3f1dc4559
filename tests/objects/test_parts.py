"""Parts of object tracking: boxes, points, detections and files."""

import csv

import numpy as np
import pytest

from tapjax import objects
from tapjax.objects import boxes
from tapjax.objects import sampling
from tapjax.objects.detections import check_detections


def make_box(*sides):
  return np.asarray(sides, np.float32)


def test_overlaps():
  box = make_box(0, 0, 4, 4)[None]
  others = np.asarray([[0, 0, 4, 4], [2, 0, 6, 4], [4, 4, 8, 8.0]])
  np.testing.assert_allclose(
      boxes.measure_overlaps(box, others), [[1, 1 / 3, 0]]
  )


@pytest.mark.parametrize('angle', [0.0, 0.4, np.pi / 2])
def test_a_box_moves_with_most_of_its_points(angle):
  generator = np.random.default_rng(0)
  points = generator.uniform([10, 20], [50, 40], (60, 2))
  cos, sin = 1.3 * np.cos(angle), 1.3 * np.sin(angle)
  matrix = np.asarray([[cos, -sin], [sin, cos]])
  moved = points @ matrix.T + [7, -3]
  moved[:20] += generator.uniform(30, 90, (20, 2))
  motion = boxes.fit_similarity(points, moved, 3.0)
  np.testing.assert_allclose(motion.matrix, matrix, atol=0.02)
  assert motion.is_inlier[20:].all()
  assert not motion.is_inlier[:20].any()
  box = boxes.move_box(make_box(10, 20, 50, 40), motion)
  # The box of an ellipse that was turned.
  turn = np.linspace(0, 2 * np.pi, 2000)
  ellipse = np.stack([30 + 20 * np.cos(turn), 30 + 10 * np.sin(turn)], -1)
  ellipse = ellipse @ matrix.T + [7, -3]
  expected = np.concatenate([ellipse.min(0), ellipse.max(0)])
  np.testing.assert_allclose(box, expected, atol=0.5)


def test_one_point_shifts_a_box():
  motion = boxes.fit_similarity(
      np.asarray([[5.0, 5]]), np.asarray([[8.0, 4]]), 1.0
  )
  moved = boxes.move_box(make_box(0, 0, 10, 10), motion)
  np.testing.assert_allclose(moved, [3, -1, 13, 9])


def test_smoothing_keeps_what_moves_evenly_and_takes_noise_away():
  t = np.arange(30)
  even = np.stack([2 * t, 3 * t, 2 * t + 20, 3 * t + 10], -1).astype(float)
  known = np.ones(30, bool)
  known[14:17] = False
  smooth = boxes.smooth_boxes(even, known, 2.0)
  np.testing.assert_allclose(smooth, even, atol=1e-9)
  noise = np.random.default_rng(0).normal(size=even.shape)
  left = boxes.smooth_boxes(even + noise, known, 2.0) - even
  assert np.abs(left[known]).mean() < 0.6 * np.abs(noise[known]).mean()
  np.testing.assert_array_equal(left[~known], (even + noise - even)[~known])


def test_only_short_holes_are_filled():
  t = np.arange(12)
  even = np.stack([t, t, t + 9, t + 9], -1).astype(float)
  known = np.ones(12, bool)
  known[2:4] = known[6:10] = known[11] = False
  given = np.where(known[:, None], even, np.nan)
  filled, present = boxes.fill_holes(given, known, 2)
  assert np.flatnonzero(~present).tolist() == [6, 7, 8, 9, 11]
  np.testing.assert_allclose(filled[present], even[present])


def test_points_lie_on_the_object():
  settings = objects.ObjectSettings()
  box = make_box(10, 20, 50, 60)
  points = sampling.sample_points(box, None, settings)
  assert 25 <= len(points) <= 64
  assert boxes.are_inside(points, box).all()
  mask = np.zeros((80, 80), bool)
  mask[20:60, 10:30] = True
  points = sampling.sample_points(box, mask, settings)
  assert len(points) >= 16
  # As eroded by two pixels.
  assert (points >= [12, 22]).all()
  assert (points <= [28, 58]).all()
  thin = np.zeros((80, 80), bool)
  thin[41, 33] = True
  np.testing.assert_array_equal(
      sampling.sample_points(box, thin, settings), [[33.5, 41.5]]
  )
  few = objects.ObjectSettings(max_points=7)
  assert len(sampling.sample_points(box, None, few)) == 7


def test_outliers_are_steps_of_unusual_length():
  positions = np.zeros((2, 10, 2))
  positions[..., 0] = np.arange(10)
  positions[1, 6:] += 12
  expected = np.zeros((2, 10), bool)
  expected[1, 6] = True
  outliers = sampling.find_outliers(positions, 1.0)
  np.testing.assert_array_equal(outliers, expected)
  assert not sampling.find_outliers(positions[:, 5:8], 0.0).any()


@pytest.mark.parametrize(
    ('detections', 'message'),
    [
        (objects.Detections(np.zeros((2, 3))), r'boxes must be \[n, 4\]'),
        (objects.Detections(np.asarray([[5, 5, 2, 9.0]])), 'left < right'),
        (objects.Detections(np.full((1, 4), np.nan)), 'in row 0'),
        (
            objects.Detections(np.asarray([[1, 1, 2, 2.0]]), labels=[]),
            'labels must be as many as the boxes, 1; got 0',
        ),
        (
            objects.Detections(
                np.asarray([[1, 1, 2, 2.0]]), masks=np.zeros((1, 4, 4), bool)
            ),
            'masks must have the size',
        ),
    ],
)
def test_what_is_no_detection(detections, message):
  with pytest.raises(ValueError, match=message):
    check_detections(detections, (20, 30))


def test_detections_are_cut_at_the_border():
  given = objects.Detections(
      np.asarray([[-5, 2, 8, 9], [40, 2, 50, 9], [20, 15, 99, 99.0]]),
      labels=['a', 'b', 'c'],
      ids=np.asarray([4, 5, 6]),
  )
  kept = check_detections(given, (20, 30))
  np.testing.assert_array_equal(kept.boxes, [[0, 2, 8, 9], [20, 15, 30, 20]])
  assert kept.labels == ['a', 'c']
  assert kept.ids.tolist() == [4, 6]


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'detect_every': 0}, 'detect_every must be at least 1'),
        ({'match': 1.5}, 'match must be between 0 and 1'),
        ({'smoothing': float('nan')}, 'smoothing must be'),
        ({'reinitialize_growth': 1.0}, 'more than 1'),
    ],
)
def test_impossible_settings(settings, message):
  with pytest.raises(ValueError, match=message):
    objects.ObjectSettings(**settings)


def make_tracks():
  found = np.full((2, 3, 4), np.nan, np.float32)
  visible = np.zeros((2, 3), bool)
  found[0, :2] = [[1, 2, 11, 22], [2, 3, 12, 23]]
  found[1, 1:] = [[30, 5, 35.5, 10], [31, 5, 36.5, 10]]
  visible[0, :2] = visible[1, 1:] = True
  return objects.ObjectTracks(
      np.asarray([1, 12]),
      ['cat', ''],
      found,
      visible,
      visible & (np.arange(3) == 1),
      visible.astype(np.float32) * 0.5,
      [np.asarray([[5, 5.0]], np.float32)] * 3,
      [np.asarray([1])] * 3,
  )


def test_files_hold_what_was_found(tmp_path):
  found = make_tracks()
  objects.write_mot(tmp_path / 'o.txt', found)
  lines = (tmp_path / 'o.txt').read_text().splitlines()
  assert lines[0] == '1,1,2.00,3.00,10.00,20.00,0.500,-1,-1,-1'
  assert len(lines) == 4
  read = objects.read_mot(tmp_path / 'o.txt')
  assert read.keys() == {0, 1, 2}
  assert read[1].ids.tolist() == [1, 12]
  np.testing.assert_allclose(read[1].boxes, found.boxes[:, 1])
  objects.write_table(tmp_path / 'o.csv', found)
  with (tmp_path / 'o.csv').open(newline='') as file:
    rows = list(csv.DictReader(file))
  assert [(row['frame'], row['object']) for row in rows] == [
      ('0', '1'),
      ('1', '1'),
      ('1', '12'),
      ('2', '12'),
  ]
  assert rows[2]['right'] == '35.50'
  assert [row['detected'] for row in rows] == ['0', '1', '1', '0']
  assert rows[0]['label'] == 'cat'


@pytest.mark.parametrize(
    'text',
    ['1,2,3', '0,1,1,1,5,5', '1,1,1,1,0,5', 'a,b,c,d,e,f', '1,1,1,1,nan,5'],
)
def test_text_that_is_none_of_the_mot_challenge(tmp_path, text):
  path = tmp_path / 'o.txt'
  path.write_text(f'1,-1,5,5,5,5,0.5\n{text}\n')
  with pytest.raises(ValueError, match=r'o\.txt must have frame,.* line 2 is'):
    objects.read_mot(path)


def test_drawing_shows_what_is_there():
  found = make_tracks()
  frame = np.full((40, 60, 3), 90, np.uint8)
  drawn = [objects.draw_objects(frame, found, t) for t in range(3)]
  assert (frame == 90).all()
  changed = [np.any(picture != 90, axis=-1) for picture in drawn]
  # Sides of the first box, and none where it is hidden.
  assert changed[0][21:23, 3:10].all()
  assert not changed[0][:, 25:].any()
  assert not changed[2][12:, :25].any()
  assert changed[2][5:10, 31:36].any()


def test_motion_is_detected_before_a_moving_camera():
  pytest.importorskip('cv2')
  generator = np.random.default_rng(0)
  cells = generator.uniform(40, 200, (80, 100, 3))
  ground = np.kron(cells, np.ones((4, 4, 1)))
  patch = np.kron(
      generator.uniform(0, 255, (15, 15, 3)) * [1, 0.2, 0.2],
      np.ones((4, 4, 1)),
  )
  detector = objects.MotionDetector()
  found = []
  for t in range(3):
    view = ground[2 * t : 2 * t + 240, 3 * t : 3 * t + 320].copy()
    left = 100 + 6 * t
    view[80:140, left : left + 60] = patch
    found.append(detector(view.astype(np.uint8)))
  assert not len(found[0].boxes)
  for t in (1, 2):
    truth = make_box(100 + 6 * t, 80, 160 + 6 * t, 140)
    assert len(found[t].boxes) == 1
    assert boxes.measure_overlaps(found[t].boxes, truth[None])[0, 0] > 0.8
    assert found[t].masks.shape == (1, 240, 320)
  # Nothing moves on its own now.
  still = ground[:240, :320].astype(np.uint8)
  moved = ground[4:244, 4:324].astype(np.uint8)
  detector = objects.MotionDetector()
  detector(still)
  assert not len(detector(moved).boxes)
