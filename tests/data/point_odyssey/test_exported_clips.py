"""Clips read from exported files."""

import dataclasses

import numpy as np
import pytest

from tapjax.data.benchmarks.point_tracks import PointTracks
from tapjax.data.point_odyssey import exported_clips
from tapjax.data.point_odyssey.clips import TrainingClip
from tests.data.point_odyssey.test_clip_export import CLIPS


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'num_frames': 5}, 'must have 5 frames'),
        ({'crop': (32, 32)}, 'of 32x32; got'),
        ({'num_points': 9}, 'must have 9 tracks; it has 6'),
    ],
    ids=str,
)
def test_other_clips_than_asked_for(change, message, tmp_path):
  generator = np.random.default_rng(0)
  frames = generator.integers(0, 256, (4, 32, 48, 3), np.uint8)
  seen = np.ones((6, 4), bool)
  tracks = PointTracks(generator.uniform(0, 30, (6, 4, 2)), seen, seen)
  folder = exported_clips.get_folder(tmp_path, 12)
  exported_clips.write_clip(folder, TrainingClip(frames, tracks))
  assert [p.name for p in tmp_path.iterdir()] == ['000012']
  config = dataclasses.replace(CLIPS, **change)
  with pytest.raises(ValueError, match=message):
    exported_clips.read_exported_clip(folder, config, generator)
  fewer = dataclasses.replace(CLIPS, num_points=4)
  clip = exported_clips.read_exported_clip(folder, fewer, generator)
  rows = {row.tobytes() for row in tracks.positions.astype(np.float32)}
  chosen = {row.tobytes() for row in clip.tracks.positions}
  assert len(chosen) == 4
  assert chosen < rows
  (folder / 'track.npz').write_bytes(b'PK')
  with pytest.raises(ValueError, match='track_g'):
    exported_clips.read_exported_clip(folder, fewer, generator)
