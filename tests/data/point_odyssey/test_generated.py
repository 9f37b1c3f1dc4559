"""Generated scenes: round trips through the readers."""

import jax
import numpy as np
import pytest

from tapjax.data.point_odyssey import files as point_odyssey
from tapjax.data.point_odyssey import generated as generated_scenes
from tapjax.data.point_odyssey.clips import read_clip
from tapjax.data.procedural.videos import ProceduralConfig

pytestmark = [
    pytest.mark.slow,
    pytest.mark.heavy,
    pytest.mark.usefixtures('quick_compilation'),
]

SMALL = ProceduralConfig(
    num_frames=3,
    resolution=(24, 32),
    num_queries=6,
    num_objects=2,
    texture_size=8,
    num_leaves=2,
    samples_per_pixel=1,
)


def test_scenes_are_read_as_they_were_made(tmp_path):
  scenes = generated_scenes.write_procedural_scenes(tmp_path, 2, SMALL, 5)
  assert point_odyssey.list_scenes(tmp_path) == scenes
  first, second = map(point_odyssey.read_annotations, scenes)
  assert not np.array_equal(first.positions, second.positions)

  key = jax.random.fold_in(jax.random.key(5), 1)
  example, _ = generated_scenes._make(key, SMALL)
  # Here the center of the first pixel is the origin.
  np.testing.assert_allclose(
      second.positions,
      np.asarray(example.target_points).swapaxes(0, 1) - 0.5,
      atol=1e-4,
  )
  np.testing.assert_array_equal(
      second.visible, ~np.asarray(example.occluded).swapaxes(0, 1)
  )
  assert second.valid.all()
  clip = read_clip(scenes[1], second, [0, 2])
  video = np.asarray(example.video)[[0, 2]]
  difference = np.abs(clip.frames / 127.5 - 1 - video)
  assert difference.mean() < 0.1  # They are JPEG files.
  assert clip.masks.shape == (2, 24, 32)
  assert set(np.unique(clip.masks)) <= {85, 170, 255}

  # What is there stays; what was begun is made again, to the same bits.
  marker = scenes[0] / 'rgbs' / 'rgb_00000.jpg'
  marker.write_bytes(b'mine')
  before = {p.name: p.read_bytes() for p in scenes[1].rglob('*.jpg')}
  scenes[1].rename(tmp_path / '.scene_001.part')
  generated_scenes.write_procedural_scenes(tmp_path, 2, SMALL, 5)
  assert marker.read_bytes() == b'mine'
  after = {p.name: p.read_bytes() for p in scenes[1].rglob('*.jpg')}
  assert after == before
  assert sorted(p.name for p in tmp_path.iterdir()) == [
      'scene_000',
      'scene_001',
  ]


def test_segments_are_those_that_points_lie_on():
  """A visible point belongs to the layer shown by its pixel."""
  scene = generated_scenes.make_scene_video(jax.random.key(2), SMALL)
  found = []
  for t, n in np.argwhere(scene.annotations.visible):
    x, y = np.floor(scene.annotations.positions[t, n] + 0.5).astype(int)
    found.append((n, scene.masks[t, y, x]))
  segments = [{mask for n, mask in found if n == row} for row in range(6)]
  # But for points at an outline, within a pixel.
  assert np.mean([len(segment) == 1 for segment in segments]) > 0.6
