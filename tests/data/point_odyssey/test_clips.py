"""Training clips of PointOdyssey: parity without randomness, and properties."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from tapjax.data.benchmarks.point_tracks import limit_positions
from tapjax.data.point_odyssey import clip_augmentation
from tapjax.data.point_odyssey import clips
from tapjax.data.point_odyssey import files as point_odyssey
from tapjax.data.point_odyssey import segment_edges
from tapjax.data.point_odyssey.color_augmentation import ColorConfig
from tapjax.data.point_odyssey.color_augmentation import recolor_clip


@pytest.fixture(scope='module')
def stored(reference):
  with np.load(reference / 'pips2' / 'golden_loaders_synthetic.npz') as file:
    return dict(file)


@pytest.fixture(scope='module')
def settings(stored):
  return json.loads(str(stored['meta']))['train']['settings']


def make_config(settings):
  return clips.ClipConfig(
      num_frames=settings['S'],
      num_points=settings['N'],
      crop=tuple(settings['crop_hw']),
      strides=(1,),
  )


def test_published_choice_of_tracks(stored, settings):
  """Parity of the deterministic steps, for resized frames."""
  config = make_config(settings)
  masks = stored['train_masks']
  raw = clips.RawClip(
      frames=np.zeros((*masks.shape, 3), np.uint8),
      masks=masks,
      annotations=point_odyssey.PointAnnotations(
          *(stored[f'train_anno_{k}'] for k in ('trajs_2d', 'visibs', 'valids'))
      ),
  )
  tracks = clips.choose_clear_tracks(raw, config, settings['resize_hw'][0])
  frames, tracks = clip_augmentation.resize_clip(
      raw.frames, tracks, config.crop
  )
  assert frames.shape == (10, 128, 192, 3)
  tracks = clips.filter_tracks(tracks, config)
  generator = np.random.default_rng(0)
  rows = clips.choose_spread_tracks(tracks.positions, 24, 0, generator)
  tracks = limit_positions(tracks.take(rows), config.crop, 64.0)
  np.testing.assert_allclose(
      tracks.positions.swapaxes(0, 1), stored['train_trajs'], atol=1e-3
  )
  np.testing.assert_array_equal(tracks.visible.T, stored['train_visibs'])
  np.testing.assert_array_equal(tracks.valid.T, stored['train_valids'])

  edges = segment_edges.find_edges(segment_edges.fill_holes(masks[0]), 1)
  rows, columns = (
      np.arange(new) * old // new
      for new, old in zip(config.crop, edges.shape, strict=True)
  )
  np.testing.assert_array_equal(
      edges[rows][:, columns], stored['train_edge0'] > 0
  )


def test_published_clips(stored, settings):
  config = make_config(settings)
  numbers = list(clips.list_clips(10, config))
  np.testing.assert_array_equal(numbers, stored['train_clips'])
  strided = dataclasses.replace(config, strides=(2, 4))
  assert [c[[0, 1, -1]].tolist() for c in clips.list_clips(41, strided)] == [
      [start, start + 2, start + 18] for start in range(0, 22, 2)
  ] + [[0, 4, 36]]


def test_published_farthest_points(reference):
  with np.load(reference / 'pips2' / 'golden_ops_blocks.npz') as file:
    rows = clips.choose_farthest(file['fps_points'], 12, int(file['fps_start']))
    np.testing.assert_array_equal(rows, file['fps_index'])


def make_ramp_clip(num_frames=8, height=250, width=250, num_points=300):
  """Still frames whose colors encode the position, with random points."""
  generator = np.random.default_rng(5)
  y, x = np.meshgrid(np.arange(height), np.arange(width), indexing='ij')
  frame = np.stack([x, y, 0 * x + 50], axis=-1).astype(np.uint8)
  points = generator.uniform(5, [width - 6, height - 6], (num_points, 2))
  positions = points[None].repeat(num_frames, axis=0)
  shown = np.ones((num_frames, num_points), bool)
  clip = clips.RawClip(
      frames=frame[None].repeat(num_frames, axis=0),
      masks=np.full((num_frames, height, width), 7, np.uint8),
      annotations=point_odyssey.PointAnnotations(positions, shown, shown),
  )
  return clip, points


SMALL = clips.ClipConfig(num_frames=8, num_points=40, crop=(160, 200))
STILL = clip_augmentation.AugmentationConfig(
    resize=(250, 290),
    spatial=0.0,
    largest_padding=9,
    reversal=0.0,
    occluder_clip=0.0,
    color=None,
)


def test_colors_change_before_all_else():
  raw, _ = make_ramp_clip()
  noisy = dataclasses.replace(
      STILL, color=ColorConfig(*[1.0, 1.0], *[0.0] * 7), reversal=1.0
  )
  plain = dataclasses.replace(STILL, reversal=1.0)
  different = set()
  for seed in range(12):
    generators = [np.random.default_rng(seed) for _ in range(2)]
    # What is drawn for the colors is drawn first.
    recolor_clip(raw.frames, noisy.color, generators[1])
    try:
      clip = clips.make_training_clip(raw, SMALL, noisy, generators[0])
      same = clips.make_training_clip(raw, SMALL, plain, generators[1])
    except clips.ClipRejectedError:
      continue
    jax.tree.map(np.testing.assert_array_equal, clip.tracks, same.tracks)
    difference = clip.frames.astype(float) - same.frames
    different.add(seed)
    assert 1 < difference.std() < 7.5
  assert different


def test_rejections_say_why():
  raw, _ = make_ramp_clip()
  few = point_odyssey.PointAnnotations(
      *(array[:, :9] for array in raw.annotations)
  )
  generator = np.random.default_rng(0)
  with pytest.raises(clips.ClipRejectedError, match='before cropping: 9') as e:
    clips.make_training_clip(
        raw._replace(annotations=few), SMALL, None, generator
    )
  assert (e.value.found, e.value.needed) == (9, 40)
  masks = generator.integers(1, 256, raw.masks.shape, np.uint8)
  with pytest.raises(clips.ClipRejectedError, match='after edge check'):
    clips.make_training_clip(raw._replace(masks=masks), SMALL, None, generator)
  wild = raw.annotations.positions.copy()
  wild[3] += 300
  annotations = raw.annotations._replace(positions=wild)
  with pytest.raises(clips.ClipRejectedError, match='after cropping: 0'):
    clips.make_training_clip(
        raw._replace(annotations=annotations), SMALL, None, generator
    )


def test_few_tracks_appear_again():
  raw, _ = make_ramp_clip(num_points=40)
  config = dataclasses.replace(SMALL, num_points=60, least_share=0.5)
  resized = np.random.default_rng(1)
  clip = clips.make_training_clip(raw, config, None, resized)
  assert len(clip.tracks.positions) == 60
  assert len(np.unique(clip.tracks.positions[:, 0], axis=0)) > 25


def test_a_clip_from_its_files(tmp_path):
  image = pytest.importorskip('PIL.Image')
  raw, _ = make_ramp_clip(num_frames=3)
  for kind in ('rgb', 'mask'):
    (tmp_path / f'{kind}s').mkdir()
  for t in range(3):
    frame = np.full((250, 250, 3), 50 * t, np.uint8)
    image.fromarray(frame).save(tmp_path / 'rgbs' / f'rgb_{t:05d}.jpg')
    image.fromarray(raw.masks[t]).save(tmp_path / 'masks' / f'mask_{t:05d}.png')
  clip = clips.read_clip(tmp_path, raw.annotations, [2, 0])
  assert clip.frames.shape == (2, 250, 250, 3)
  assert abs(int(clip.frames[0, 3, 4, 1]) - 100) < 3
  np.testing.assert_array_equal(clip.masks, raw.masks[:2])
  assert clip.annotations.positions.shape[0] == 2
  (tmp_path / 'masks' / 'mask_00000.png').write_bytes(b'no image')
  with pytest.raises(ValueError, match=r'mask_00000\.png is no image'):
    clips.read_clip(tmp_path, raw.annotations, [2, 0])
