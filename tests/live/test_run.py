"""Streams: tracked as they come, resumed after a kill, honest about damage."""

import functools
import pathlib
import sys
import threading
import types

import numpy as np
import pytest

import tapjax
from tapjax import streaming
from tapjax.live import recording
from tapjax.live import run as live
from tapjax.live import screen as live_screen
from tapjax.media import sources
from tapjax.media import video as video_files
from tapjax.media.sources import StreamFrame
from tapjax.models.tapir.config import TapirConfig
from tapjax.models.tapir.functions import TapirFunctions
from tests.support import golden
from tests.support import videos

CONFIG = TapirConfig(
    resolution=(32, 40),
    initial_resolution=(32, 40),
    channels=(4, 6, 8, 8),
    pooled_levels=1,
    num_iterations=2,
    mixer_blocks=2,
    mixer_channels=8,
    temporal='past',
)
POINTS = np.float32([[0, 5, 7], [2, 20.5, 30], [0, 11, 3]])


@functools.cache
def make_tracker():
  functions = TapirFunctions(CONFIG)
  return tapjax.Tracker(
      'causal_tapir', CONFIG, functions, golden.make_random_params(functions)
  )


def make_frames(num_frames, seed=0):
  generator = np.random.default_rng(seed)
  return generator.integers(0, 256, (num_frames, 32, 40, 3), dtype=np.uint8)


def make_source(frames, damaged=()):
  return sources.Frames(
      lambda: (
          StreamFrame(None, 'torn') if i in damaged else StreamFrame(frame)
          for i, frame in enumerate(frames)
      )
  )


def run_live(source, folder, *, points=POINTS, logged=None, **options):
  folder.mkdir(exist_ok=True)
  rest = {
      name: options.pop(name)
      for name in ('resume', 'window')
      if name in options
  }
  return live.run(
      make_tracker(),
      source,
      folder,
      lambda size, first: points,
      live.Options(**options),
      log=(lambda text: None) if logged is None else logged.append,
      **rest,
  )


def read_arrays(folder):
  with np.load(folder / 'tracks.npz') as arrays:
    return dict(arrays)


def assert_same(ours, theirs):
  assert ours.keys() == theirs.keys()
  for name, array in ours.items():
    np.testing.assert_array_equal(array, theirs[name], err_msg=name)


def track_by_hand(frames, points=POINTS):
  """Positions [n, t, 2] of sessions, frame by frame."""
  tracker = make_tracker()
  session = None
  order = []
  positions = np.full((len(points), len(frames), 2), np.nan, np.float32)
  for index, frame in enumerate(frames):
    begin = np.flatnonzero(points[:, 0] == index)
    order += begin.tolist()
    if session is None:
      session = tracker.start(frame, points[begin, 1:])
    elif len(begin):
      session = tracker.add(session, frame, points[begin, 1:])
    session, tracks = tracker.step(session, frame)
    positions[np.array(order, int), index] = tracks.positions[:, 0]
  return positions


@pytest.mark.slow
def test_a_stream_is_a_session_written_down(tmp_path, monkeypatch):
  monkeypatch.setattr(recording, '_BLOCK', 4)  # Rows over many blocks.
  frames = make_frames(6)
  summary = run_live(make_source(frames), tmp_path / 'out')
  assert summary[:4] == (6, 3, [], [])
  assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == sorted(
      live.RESULTS
  )
  arrays = read_arrays(tmp_path / 'out')
  np.testing.assert_array_equal(arrays['positions'], track_by_hand(frames))
  np.testing.assert_array_equal(arrays['query_points'], POINTS)
  assert np.isnan(arrays['positions'][1, :2]).all()
  assert not arrays['visible'][1, :2].any()
  assert not arrays['confidence'][1, :2].any()
  np.testing.assert_allclose(
      arrays['confidence'][0],
      1
      / (1 + np.exp(arrays['occlusion_logits'][0]))
      / (1 + np.exp(arrays['uncertainty_logits'][0])),
      rtol=1e-5,
  )
  lines = (tmp_path / 'out' / 'tracks.csv').read_text().splitlines()
  assert lines[0] == 'query,frame,x,y,visible,times'
  assert len(lines) == 1 + 2 * 6 + 4
  drawn = video_files.read_video(tmp_path / 'out' / 'tracks.mp4')
  assert drawn.shape == frames.shape


@pytest.mark.slow
def test_thresholds_and_losing(tmp_path):
  frames = make_frames(5)
  run_live(
      make_source(frames),
      tmp_path / 'out',
      threshold=0.999,
      lost_after=2,
      found_after=1,
  )
  arrays = read_arrays(tmp_path / 'out')
  assert not arrays['visible'].any()
  assert arrays['lost'][0].tolist() == [False, True, True, True, True]
  assert arrays['lost'][1].tolist() == [False, False, False, True, True]


@pytest.mark.slow
def test_damaged_frames_are_skipped_and_told(tmp_path):
  frames = make_frames(6)
  logged = []
  summary = run_live(
      make_source(frames, damaged=(2, 4)), tmp_path / 'out', logged=logged
  )
  assert summary.damaged == [2, 4]
  untracked = 'points that begin there are not tracked: 1'
  assert logged == [
      f'frame 2 is damaged: torn; {untracked}; skipped',
      'frame 4 is damaged: torn; skipped',
  ]
  arrays = read_arrays(tmp_path / 'out')
  assert arrays['damaged'].tolist() == [2, 4]
  assert arrays['positions'].shape == (3, 6, 2)
  assert np.isnan(arrays['positions'][:, [2, 4]]).all()
  whole = [0, 1, 3, 5]
  by_hand = track_by_hand(frames[whole], POINTS[[0, 2]])
  np.testing.assert_array_equal(arrays['positions'][[0, 2]][:, whole], by_hand)
  assert np.isnan(arrays['positions'][1]).all()
  drawn = video_files.read_video(tmp_path / 'out' / 'tracks.mp4')
  assert len(drawn) == 6
  assert np.abs(drawn[2].astype(int) - drawn[1]).mean() < 5  # Held.


@pytest.mark.slow
def test_stopping_at_damage_and_going_on(tmp_path):
  frames = make_frames(6)
  folder = tmp_path / 'out'
  with pytest.raises(live.DamagedFrameError, match='frame 3 is damaged: torn'):
    run_live(make_source(frames, (3,)), folder, damaged='stop', save_every=1)
  arrays = read_arrays(folder)
  np.testing.assert_array_equal(arrays['positions'], track_by_hand(frames[:3]))
  logged = []
  run_live(make_source(frames, (3,)), folder, logged=logged, resume=True)
  assert logged[0] == 'going on from frame 3'
  run_live(make_source(frames, (3,)), tmp_path / 'at_once')
  assert_same(read_arrays(folder), read_arrays(tmp_path / 'at_once'))
  assert not (folder / recording.FOLDER).exists()


class Crash(BaseException):
  """As sudden as a kill: nobody catches it."""


class Screen:
  """A window that returns planned events at each frame."""

  def __init__(self, plan):
    self.plan = plan
    self.captions = []

  def show(self, image, caption):
    assert image.dtype == np.uint8
    step = self.plan.get(len(self.captions), [])
    self.captions.append(caption)
    if step is Crash:
      raise Crash
    return step

  def close(self):
    pass


@pytest.mark.slow
def test_a_killed_run_is_resumed_to_the_same_tracks(tmp_path):
  frames = np.concatenate([make_frames(4) // 4, 192 + make_frames(4) // 4])
  options = {'save_every': 3, 'reset_at_cuts': True, 'lost_after': 2}
  source = make_source(frames, damaged=(1,))
  expected = run_live(source, tmp_path / 'whole', **options)
  assert expected.cuts == [4]
  folder = tmp_path / 'killed'
  with pytest.raises(Crash):
    run_live(source, folder, window=Screen({5: Crash}), **options)
  assert [p.name for p in folder.iterdir()] == [recording.FOLDER]
  with pytest.raises(ValueError, match='go on with --resume, or remove'):
    run_live(source, folder, **options)
  with pytest.raises(ValueError, match='lost_after was 2, is 7'):
    run_live(source, folder, resume=True, **{**options, 'lost_after': 7})
  with pytest.raises(Crash):  # Once more, without saving.
    run_live(
        source,
        folder,
        resume=True,
        window=Screen({6: Crash}),
        **{**options, 'save_every': None},
    )
  logged = []
  again = run_live(source, folder, resume=True, logged=logged, **options)
  assert logged == ['going on from frame 6']
  assert again[:4] == expected[:4]
  assert_same(read_arrays(folder), read_arrays(tmp_path / 'whole'))
  table, drawn = (
      [read(path / name) for path in (folder, tmp_path / 'whole')]
      for name, read in (
          ('tracks.csv', pathlib.Path.read_bytes),
          ('tracks.mp4', video_files.read_video),
      )
  )
  assert table[0] == table[1]
  # At times x264 encodes frames of so few blocks a little differently.
  assert np.abs(drawn[0].astype(int) - drawn[1]).mean() < 2


def test_without_saving_nothing_is_left(tmp_path):
  folder = tmp_path / 'out'
  with pytest.raises(Crash):
    run_live(make_source(make_frames(3)), folder, window=Screen({1: Crash}))
  assert not list(folder.iterdir())
  with pytest.raises(ValueError, match='no whole frame came from frames'):
    run_live(make_source(make_frames(1), (0,)), folder)
  assert not list(folder.iterdir())
  camera = sources.Frames(lambda: iter(()), repeatable=False)
  with pytest.raises(ValueError, match='a camera cannot'):
    run_live(camera, folder, resume=True)


@pytest.mark.slow
def test_clicks_add_and_keys_remove(tmp_path):
  frames = make_frames(7)
  screen = Screen(
      {
          0: [
              live_screen.Event('add', 12.5, 8.5),
              live_screen.Event('add', -3, 8),
          ],
          2: [live_screen.Event('clear')],
          3: [
              live_screen.Event('remove', 1, 1),
              live_screen.Event('add', 30.5, 20.5),
          ],
          5: [live_screen.Event('quit')],
      }
  )
  summary = run_live(
      make_source(frames),
      tmp_path / 'out',
      points=np.zeros((0, 3), np.float32),
      window=screen,
  )
  assert summary.num_frames == 6
  assert summary.num_points == 2
  arrays = read_arrays(tmp_path / 'out')
  np.testing.assert_array_equal(
      arrays['query_points'], [[0, 8.5, 12.5], [3, 20.5, 30.5]]
  )
  tracked = np.isfinite(arrays['positions']).all(-1)
  assert tracked.tolist() == [
      [False, True, True, False, False, False],
      [False, False, False, False, True, True],
  ]
  assert 'frames/s' in screen.captions[0]
  assert screen.captions[4].endswith('of 1 points seen')


def test_the_nearest_point_is_removed(tmp_path):
  frames = make_frames(4)
  tracker = make_tracker()
  points = POINTS[[0, 2]]
  session = tracker.start(frames[0], points[:, 1:])
  _, tracks = tracker.step(session, frames[0])
  near = tracks.positions[1, 0]
  screen = Screen({0: [live_screen.Event('remove', *near.tolist())]})
  run_live(make_source(frames), tmp_path / 'out', points=points, window=screen)
  tracked = np.isfinite(read_arrays(tmp_path / 'out')['positions']).all(-1)
  assert tracked.tolist() == [[True] * 4, [True, False, False, False]]


def test_leading_damage_is_black(tmp_path):
  logged = []
  run_live(
      make_source(make_frames(3), (0,)),
      tmp_path / 'out',
      points=np.float32([[0, 9, 9], [1, 5, 5], [7, 1, 1]]),
      logged=logged,
  )
  late = (
      'points that begin before frame 1, the first whole one, are not tracked'
  )
  assert logged == [
      'frame 0 is damaged: torn; skipped',
      f'{late}: 1',
      'points that begin after the last frame: 1',
  ]
  tracked = np.isfinite(read_arrays(tmp_path / 'out')['positions']).all(-1)
  assert tracked.tolist() == [[False] * 3, [False, True, True], [False] * 3]
  drawn = video_files.read_video(tmp_path / 'out' / 'tracks.mp4')
  assert drawn.shape[0] == 3
  assert drawn[0].max() < 10


# Sources.


def take_all(source):
  with source.open(threading.Event()) as items:
    return list(items)


def write_picture(path, frame):
  from PIL import Image

  Image.fromarray(frame).save(path)


@pytest.mark.slow
def test_pictures_as_they_appear(tmp_path):
  frames = make_frames(4)
  write_picture(tmp_path / 'frame_9.png', frames[0])
  (tmp_path / 'notes.txt').write_text('no picture')
  # Made before the folder is watched: each picture in it is taken for one more.
  write_picture(tmp_path / 'later.png', frames[1])
  whole = (tmp_path / 'later.png').read_bytes()
  (tmp_path / 'later.png').unlink()

  def write_later():
    content = tmp_path / 'whole.tmp'
    content.write_bytes(whole[: len(whole) // 2])
    content.rename(tmp_path / 'frame_10.png')  # Half of it.
    threading.Event().wait(0.3)
    (tmp_path / 'frame_10.png').write_bytes(whole)

  folder = sources.find_source(str(tmp_path), patience=5.0)
  with folder.open(threading.Event()) as items:
    first = next(items)
    writer = threading.Thread(target=write_later)
    writer.start()
    rest = list(items)
    writer.join()
  assert not first.damage
  got = [item for item in (first, *rest) if item.frame is not None]
  np.testing.assert_array_equal(got[0].frame, frames[0])
  np.testing.assert_array_equal(got[-1].frame, frames[1])


def test_pictures_that_are_not_whole(tmp_path, monkeypatch):
  monkeypatch.setattr(sources, '_SETTLE', 0.1)
  frames = make_frames(2)
  for name in ('a1.jpg', 'a2.jpg', 'a4.jpg'):
    write_picture(tmp_path / name, frames[0])
  content = (tmp_path / 'a2.jpg').read_bytes()
  (tmp_path / 'a2.jpg').write_bytes(content[: len(content) // 2])
  write_picture(tmp_path / 'a3.jpg', frames[1][:16])
  items = take_all(sources.find_source(str(tmp_path), patience=0.0))
  assert [item.frame is None for item in items] == [False, True, False, False]
  assert 'not a readable picture' in items[1].damage
  assert items[2].frame.shape == (16, 40, 3)


@pytest.fixture(scope='module')
def clip(tmp_path_factory):
  path = tmp_path_factory.mktemp('clip') / 'clip.mp4'
  generator = np.random.default_rng(0)
  frames = generator.integers(0, 255, (40, 63, 97, 3), np.uint8)
  video_files.write_video(path, frames, 12)
  return path


def test_whole_videos(clip):
  source = sources.find_source(str(clip))
  items = take_all(source)
  assert (source.name, source.frame_rate, source.num_frames) == ('clip', 12, 40)
  np.testing.assert_array_equal(
      np.stack([item.frame for item in items]), video_files.read_video(clip)
  )
  with source.open(threading.Event()) as some:
    next(some)  # Leaving early ends the decoder.


@pytest.mark.parametrize('damage', ['middle', 'end'])
def test_damaged_videos(tmp_path, damage):
  # Without B frames, which come before a frame that they need.
  clip = tmp_path / 'clip.mp4'
  generator = np.random.default_rng(0)
  frames = generator.integers(0, 255, (40, 64, 96, 3), np.uint8)
  videos.encode(
      clip,
      frames,
      options={'bf': '0'},
      container_options={'movflags': '+faststart'},
  )
  content = bytearray(clip.read_bytes())
  # Encoded frames lie between the tables, one after the other.
  start = len(content) // 2
  if damage == 'middle':
    noise = np.random.default_rng(1).integers(0, 256, len(content) // 8)
    content[start : start + len(noise)] = noise.astype(np.uint8).tobytes()
  else:
    del content[start:]
  path = tmp_path / 'damaged.mp4'
  path.write_bytes(content)
  items = take_all(sources.find_source(str(path)))
  broken = [i for i, item in enumerate(items) if item.frame is None]
  assert broken
  assert all(items[i].damage for i in broken)
  whole = video_files.read_video(clip)
  first = broken[0]
  assert 5 < first < 35
  for item, frame in zip(items[:first], whole, strict=False):
    np.testing.assert_array_equal(item.frame, frame)
  if damage == 'middle':
    assert len(items) == 40  # Frames that never came are counted.


def make_opencv(pictures, *, opened=True):
  """A stand-in for OpenCV with a camera and a window."""
  cv2 = types.SimpleNamespace(
      CAP_PROP_FPS=5,
      WINDOW_AUTOSIZE=1,
      WND_PROP_VISIBLE=4,
      EVENT_LBUTTONDOWN=1,
      FONT_HERSHEY_SIMPLEX=0,
      LINE_AA=16,
      keys=[],
      shown=[],
      visible=1.0,
      callback=None,
  )

  class Capture:

    def __init__(self, index):
      assert index == 3
      self.pictures = list(pictures)

    def isOpened(self):  # noqa: N802
      return opened

    def get(self, name):
      assert name == cv2.CAP_PROP_FPS
      return 15.0

    def read(self):
      picture = self.pictures.pop(0) if self.pictures else None
      return picture is not None, picture

    def release(self):
      cv2.released = True

  cv2.VideoCapture = Capture
  cv2.namedWindow = lambda *_: None
  cv2.setMouseCallback = lambda _, function: setattr(cv2, 'callback', function)
  cv2.putText = lambda *_: None
  cv2.imshow = lambda _, picture: cv2.shown.append(picture)
  cv2.waitKey = lambda _: cv2.keys.pop(0) if cv2.keys else -1
  cv2.getWindowProperty = lambda *_: cv2.visible
  cv2.destroyAllWindows = lambda: None
  return cv2


def test_cameras(monkeypatch):
  frames = make_frames(2)
  pictures = [frames[0][..., ::-1], None, frames[1][..., ::-1]]
  cv2 = make_opencv(pictures)
  monkeypatch.setitem(sys.modules, 'cv2', cv2)
  camera = sources.find_source('3')
  assert (camera.name, camera.frame_rate) == ('camera3', 15)
  assert not camera.repeatable
  items = take_all(camera)
  np.testing.assert_array_equal(items[0].frame, frames[0])
  assert items[1].damage == 'camera 3 gave no picture'
  np.testing.assert_array_equal(items[2].frame, frames[1])
  assert all(item.frame is None for item in items[3:])  # Then it is gone.
  assert cv2.released
  monkeypatch.setitem(sys.modules, 'cv2', make_opencv([], opened=False))
  with pytest.raises(ValueError, match='no camera 3 that can be opened'):
    sources.find_source('3')
  monkeypatch.setitem(sys.modules, 'cv2', None)
  with pytest.raises(ValueError, match='a camera needs OpenCV'):
    sources.find_source('3')


# Cuts.


def test_cuts_forget_the_past(tmp_path):
  frames = np.concatenate([make_frames(3) // 4, 192 + make_frames(2) // 4])
  points = POINTS[[0, 2]]
  logged = []
  summary = run_live(
      make_source(frames),
      tmp_path / 'out',
      points=points,
      reset_at_cuts=True,
      logged=logged,
  )
  assert summary.cuts == [3]
  assert logged == ['frame 3 begins a new scene']
  tracker = make_tracker()
  session = tracker.start(frames[0], points[:, 1:])
  for index, frame in enumerate(frames):
    if index == 3:
      session = streaming.forget(session)
    session, tracks = tracker.step(session, frame)
  arrays = read_arrays(tmp_path / 'out')
  assert arrays['cuts'].tolist() == [3]
  np.testing.assert_array_equal(
      arrays['positions'][:, 4], tracks.positions[:, 0]
  )


@pytest.mark.slow
def test_frames_of_another_size_begin_a_scene(tmp_path):
  frames = list(make_frames(6))
  doubled = [frame.repeat(2, axis=0).repeat(2, axis=1) for frame in frames]
  logged = []
  summary = run_live(
      make_source([*frames[:3], *doubled[3:]]), tmp_path / 'out', logged=logged
  )
  assert summary.cuts == [3]
  assert logged == [
      'frame 3 is 80x64: a new scene, scaled to 40x32 as the first'
  ]
  arrays = read_arrays(tmp_path / 'out')
  assert arrays['positions'].shape == (3, 6, 2)
  np.testing.assert_allclose(arrays['times'], np.arange(6) / 25)
  assert video_files.read_video(tmp_path / 'out' / 'tracks.mp4').shape == (
      6,
      32,
      40,
      3,
  )
