"""Objects of synthetic clips whose true boxes are known.

The detector is scripted: it gives the true boxes of what can be seen, a little
off, forgets some and says nothing of identity.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tapjax
from tapjax import objects
from tapjax.models.contract import Params
from tapjax.models.contract import TrackerFunctions
from tapjax.types import Tracks
from tapjax.types import TrackState

SIDE = 128
NUM_FRAMES = 48
# Of x and y at the first frame, their change by frame, and the sides. Later
# ones are in front: the second one passes before the first and hides it.
MOVERS = np.asarray(
    [
        [20.0, 50, 1.9, 0.0, 26, 30],
        [108.0, 52, -1.9, 0.0, 40, 42],
        [64.0, 14, 0.2, 0.4, 24, 20],
        [24.0, 104, 0.6, 0.1, 30, 26],
    ]
)


class Truth(NamedTuple):
  """Boxes `[k, t, 4]`, and the share of each that nothing hides."""

  boxes: np.ndarray
  shares: np.ndarray


def find_centers(time, xp=np):
  """Returns `[k, t, 2]`."""
  movers = xp.asarray(MOVERS)
  step = movers[:, None, 2:4] * time[None, :, None]
  return movers[:, None, :2] + step


def make_truth():
  centers = find_centers(np.arange(NUM_FRAMES, dtype=float))
  half = MOVERS[:, None, 4:] / 2
  boxes = np.concatenate([centers - half, centers + half], axis=-1)
  shares = np.zeros(boxes.shape[:2])
  for t in range(NUM_FRAMES):
    owner = np.full((SIDE, SIDE), -1)
    for k, box in enumerate(boxes[:, t].round().astype(int)):
      left, top, right, bottom = box
      owner[max(top, 0) : bottom, max(left, 0) : right] = k
    shares[:, t] = [np.sum(owner == k) for k in range(len(MOVERS))]
  return Truth(boxes, shares / np.prod(MOVERS[:, 4:], axis=1)[:, None])


def make_detector(truth, every, generator):
  """Returns noisy boxes of what can be seen, of which a few are forgotten."""
  found = {}
  for t in range(0, NUM_FRAMES, every):
    seen = truth.shares[:, t] > 0.6
    if t:
      seen &= generator.uniform(size=len(seen)) > 0.2
    boxes = truth.boxes[seen, t]
    boxes = boxes + generator.normal(size=boxes.shape, scale=0.8)
    found[t] = objects.Detections(generator.permutation(boxes))
  return objects.ListedDetections(found, every)


def count_switches(truth, frames):
  """Returns identity switches, mean overlap and misses, of what is seen."""
  last, switches, overlaps = {}, 0, []
  for t, (numbers, boxes) in enumerate(frames):
    for k in np.flatnonzero(truth.shares[:, t] > 0.6):
      best = (
          objects.measure_overlaps(truth.boxes[k, t][None], boxes)[0]
          if len(boxes)
          else np.zeros(1)
      )
      overlaps.append(best.max())
      if best.max() >= 0.5:
        number = numbers[int(best.argmax())]
        switches += last.setdefault(k, number) != number
        last[k] = number
  return switches, np.mean(overlaps), np.mean(np.less(overlaps, 0.5))


def list_frames(found):
  return [
      (found.ids[shown], found.boxes[shown, t])
      for t, shown in enumerate(found.visible.T)
  ]


def look_up(time, points):
  """Returns the object at each point, or -1, frontmost."""
  centers = find_centers(time, jnp)
  half = jnp.asarray(MOVERS)[:, None, None, 4:] / 2
  inside = jnp.all(jnp.abs(points[None] - centers[:, None]) <= half, axis=-1)
  order = jnp.arange(len(MOVERS))[:, None, None]
  return jnp.max(jnp.where(inside, order, -1), axis=0)


@dataclasses.dataclass(frozen=True)
class Oracle(TrackerFunctions):
  """A tracker that knows the truth, by the time that frames show.

  Of its points a share is seen where nothing hides them.
  """

  share: float
  config = None
  platform = 'cpu'
  resolution = (SIDE, SIDE)

  def init(self, key):
    return Params({}, {})

  def encode_video(self, params, video, num_frames=None):
    return jnp.round((video[:, :, 0, 0, 0] + 1) / 2 * 255)

  def describe_queries(self, params, features, query_points):
    return query_points

  def initialize_tracks(
      self,
      params,
      features,
      query_features,
      query_points,
      memory=None,
      *,
      target_points=None,
  ):
    time = features[0]
    own = time[jnp.round(query_features[0, :, 0]).astype(int)]
    places = query_features[0, :, :0:-1]
    owner = jnp.diagonal(look_up(own, places[:, None]))
    begin = find_centers(own, jnp)
    begin = jnp.take_along_axis(begin, owner[None, :, None], axis=0)[0]
    centers = find_centers(time, jnp)[owner]
    moved = places[:, None] + (centers - begin[:, None])
    moved = jnp.where(owner[:, None, None] < 0, places[:, None], moved)
    is_seen = look_up(time, moved) == owner[:, None]
    drawn = jax.random.uniform(jax.random.key(0), is_seen.shape)
    is_seen &= drawn < self.share
    logits = jnp.where(is_seen, -9.0, 9.0)[None]
    return TrackState(moved[None], logits, logits)

  def refine_tracks(
      self,
      params,
      features,
      query_features,
      state,
      memory=None,
      valid=None,
      query_points=None,
      *,
      target_points=None,
  ):
    return jax.tree.map(lambda array: array[None], state), None

  def finalize_tracks(self, states):
    return Tracks(
        states.positions[-1],
        states.occlusion_logits[-1] < 0,
        states.occlusion_logits[-1],
        states.uncertainty_logits[-1],
    )


def make_oracle(share=1.0):
  return tapjax.Tracker('oracle', None, Oracle(share), Params({}, {}))


def make_time_frames():
  frames = np.zeros((NUM_FRAMES, SIDE, SIDE, 3), np.uint8)
  frames[:] = np.arange(NUM_FRAMES)[:, None, None, None]
  return frames


@pytest.mark.slow
@pytest.mark.parametrize('seed', [0, 1])
def test_identities_survive_a_crossing(seed):
  truth = make_truth()
  # Someone is fully hidden, for a while.
  assert (truth.shares[0] == 0).sum() >= 4
  detector = make_detector(truth, 5, np.random.default_rng(seed))
  settings = objects.ObjectSettings(window=16, overlap=4)
  done = []
  found = objects.track_objects(
      make_oracle(0.8),
      make_time_frames(),
      detector,
      settings,
      report=lambda *step: done.append(step),
  )
  assert found.ids.tolist() == [1, 2, 3, 4]
  switches, overlap, missed = count_switches(truth, list_frames(found))
  assert switches == 0
  assert overlap > 0.88
  assert missed < 0.02
  # What is hidden has no box.
  hidden = truth.shares[0] == 0
  row = found.ids.tolist().index(
      int(found.ids[np.nanargmin(np.abs(found.boxes[:, 0, 0] - 7))])
  )
  assert not found.visible[row, hidden].any()
  assert np.isnan(found.boxes[row, hidden]).all()
  assert done[-1] == ('track', NUM_FRAMES, NUM_FRAMES)
  for t in range(NUM_FRAMES):
    assert len(found.points[t]) == len(found.point_owners[t])
    assert set(found.point_owners[t]) <= set(found.ids[found.visible[:, t]])


def test_one_look_is_enough_while_points_survive():
  """Identity and size hold from window to window, without a detector."""
  truth = make_truth()
  boxes = truth.boxes[:, 20]
  seen = truth.shares[:, 20] > 0.6
  detector = objects.ListedDetections({20: objects.Detections(boxes[seen])}, 1)
  settings = objects.ObjectSettings(detect_every=1, window=16, overlap=4)
  found = objects.track_objects(
      make_oracle(), make_time_frames(), detector, settings
  )
  # Frames before the first look are filled as far as the window reaches.
  later = Truth(truth.boxes[seen, 12:], truth.shares[seen, 12:])
  switches, overlap, missed = count_switches(later, list_frames(found)[12:])
  assert (switches, missed) == (0, 0)
  assert overlap > 0.95
  assert not found.visible[:, :12].any()


@pytest.mark.slow
def test_labels_and_ids_of_the_detector_are_kept():
  truth = make_truth()
  labels = ['cat', 'dog', 'bird', 'fish']

  def detect(frame):
    t = int(frame[0, 0, 0])
    seen = truth.shares[:, t] > 0.6
    return objects.Detections(
        truth.boxes[seen, t],
        labels=[
            label for label, shown in zip(labels, seen, strict=True) if shown
        ],
        ids=np.flatnonzero(seen) + 70,
    )

  settings = objects.ObjectSettings(window=24)
  found = objects.track_objects(
      make_oracle(), make_time_frames(), detect, settings
  )
  assert found.labels == labels
  assert count_switches(truth, list_frames(found))[0] == 0


def make_textured_clip():
  """The same objects as patches of noise, before noise."""
  generator = np.random.default_rng(0)

  def make_texture(height, width):
    coarse = generator.uniform(0, 255, (-(-height // 4), -(-width // 4), 3))
    return np.kron(coarse, np.ones((4, 4, 1)))[:height, :width]

  ground = make_texture(SIDE, SIDE) * 0.3 + 90
  patches = [make_texture(int(h), int(w)) for w, h in MOVERS[:, 4:]]
  frames = np.repeat(ground[None], NUM_FRAMES, axis=0)
  truth = make_truth()
  for t in range(NUM_FRAMES):
    for patch, box in zip(patches, truth.boxes[:, t], strict=True):
      left, top = box[:2].round().astype(int)
      rows = np.arange(top, top + patch.shape[0])
      columns = np.arange(left, left + patch.shape[1])
      inside = np.ix_(
          (rows >= 0) & (rows < SIDE), (columns >= 0) & (columns < SIDE)
      )
      rows, columns = rows[inside[0][:, 0]], columns[inside[1][0]]
      frames[t][np.ix_(rows, columns)] = patch[inside]
  return frames.astype(np.uint8), truth


@pytest.mark.slow
@pytest.mark.parametrize('streams', [False, True])
def test_the_embedded_tracker_keeps_identities(streams):
  frames, truth = make_textured_clip()
  detector = make_detector(truth, 5, np.random.default_rng(0))
  # As large as it was trained to see videos.
  tracker = tapjax.load(resolution=(SIDE, SIDE), initial_resolution=(328, 328))
  if streams:
    found = [
        (
            [state.id for state in states],
            np.asarray([state.box for state in states]).reshape(-1, 4),
        )
        for states in objects.stream_objects(tracker, frames, detector)
    ]
  else:
    found = list_frames(objects.track_objects(tracker, frames, detector))
  switches, overlap, missed = count_switches(truth, found)
  assert switches == 0
  assert overlap > 0.7
  assert missed < 0.1
