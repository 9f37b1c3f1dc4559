"""Clips of unlabeled videos."""

import dataclasses

import jax
import numpy as np
import pytest

import tapjax
from tapjax import parallel
from tapjax.data.unlabeled import clips as unlabeled
from tapjax.data.unlabeled.clips import UnlabeledConfig

CONFIG = UnlabeledConfig(
    num_frames=4, resolution=(16, 16), batch_size=2, num_queries=5
)


def test_frames_of_a_clip_follow_each_other():
  generator = np.random.default_rng(0)
  seen = set()
  for _ in range(200):
    numbers = unlabeled.draw_frame_numbers(20, CONFIG, generator)
    assert len(numbers) == 4
    assert 0 <= numbers[0] < numbers[-1] < 20
    steps = set(np.diff(numbers).tolist())
    assert len(steps) == 1
    seen |= steps
  assert seen == {1, 2}
  exact = unlabeled.draw_frame_numbers(4, CONFIG, generator)
  np.testing.assert_array_equal(exact, [0, 1, 2, 3])
  short = dataclasses.replace(CONFIG, num_frames=9)
  np.testing.assert_array_equal(
      unlabeled.draw_frame_numbers(3, short, generator),
      [0, 1, 2, 1, 0, 1, 2, 1, 0],
  )
  assert not unlabeled.draw_frame_numbers(1, CONFIG, generator).any()


@pytest.mark.slow
def test_batches(tmp_path):
  paths = []
  for index, length in enumerate((6, 9, 3)):
    frames = np.full((length, 24, 32, 3), 40 * index + 40, np.uint8)
    paths.append(tmp_path / f'{index}.mp4')
    tapjax.write_video(paths[-1], frames, frame_rate=10)
  mesh = parallel.make_mesh(jax.devices()[:2])
  draw = unlabeled.make_unlabeled_draw(paths, CONFIG, 0, mesh)
  batches = [draw(step) for step in range(3)]
  for batch in batches:
    assert batch.video.shape == (2, 4, 16, 16, 3)
    times, ys, xs = np.moveaxis(np.asarray(batch.query_points), -1, 0)
    assert set(times.ravel()) <= {0, 1, 2, 3}
    assert min(ys.min(), xs.min()) >= 0
    assert max(ys.max(), xs.max()) <= 16
  # Two epochs in three batches: each video twice.
  shades = [
      int(np.rint((float(np.mean(video)) + 1) / 2 * 255 / 40))
      for batch in batches
      for video in np.asarray(batch.video)
  ]
  assert sorted(shades[:3]) == sorted(shades[3:]) == [1, 2, 3]
  resumed = unlabeled.make_unlabeled_draw(paths, CONFIG, 0, mesh)(2)
  jax.tree.map(np.testing.assert_array_equal, resumed, batches[2])
  one = parallel.make_mesh(jax.devices()[:1])
  with pytest.raises(ValueError, match='multiple of the 2 devices'):
    unlabeled.make_unlabeled_draw(
        paths, dataclasses.replace(CONFIG, batch_size=3), 0, mesh
    )
  short = unlabeled.make_unlabeled_draw(paths[:1], CONFIG, 1, one)(0)
  assert short.video.shape == (2, 4, 16, 16, 3)
  limited = unlabeled.read_frames(paths[1], (8, 8), 5)
  assert limited.shape == (5, 8, 8, 3)
