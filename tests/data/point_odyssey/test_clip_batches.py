"""Batches of clips, of scenes that are made here."""

import dataclasses
import pathlib

import numpy as np
import pytest

from tapjax.data.point_odyssey import clip_batches
from tests.data.point_odyssey.test_clip_export import CLIPS
from tests.data.point_odyssey.test_clip_export import write_split

CONFIG = clip_batches.ClipDataConfig(
    batch_size=2, clips=CLIPS, augmentation=None, num_workers=0
)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  folder = tmp_path_factory.mktemp('scenes') / 'split'
  write_split(folder)
  return str(folder)


def test_batches_depend_on_their_number_and_the_seed(root):
  draw = clip_batches.make_clip_draw(root, CONFIG, None, 0)
  first, again, second = draw(0), draw(0), draw(1)
  other = clip_batches.make_clip_draw(root, CONFIG, None, 1)(0)
  assert first.frames.shape == (2, CLIPS.num_frames, *CLIPS.crop, 3)
  assert first.valid.shape == first.target_points.shape[:-1]
  for ours, same in zip(first, again, strict=True):
    np.testing.assert_array_equal(ours, same)
  for different in (second, other):
    assert np.any(first.target_points != different.target_points)


def test_too_many_rejected_clips_are_an_error(root, monkeypatch):
  monkeypatch.setattr(clip_batches, '_MOST_ATTEMPTS', 2)
  clips = dataclasses.replace(CLIPS, num_points=400, least_share=1.0)
  config = dataclasses.replace(CONFIG, clips=clips)
  draw = clip_batches.make_clip_draw(root, config, None, 0)
  with pytest.raises(ValueError, match='2 in a row had not'):
    draw(0)


def test_clips_are_counted(root):
  clips = clip_batches.find_clips(pathlib.Path(root), CLIPS)
  assert clip_batches.count_clips(root, CLIPS) == len(clips) > 1
  longer = dataclasses.replace(CLIPS, num_frames=25)
  with pytest.raises(ValueError, match='at least 25 frames'):
    clip_batches.count_clips(root, longer)


def test_impossible_settings():
  with pytest.raises(ValueError, match=r'data\.root must be'):
    clip_batches.make_clip_draw('', CONFIG, None, 0)
  with pytest.raises(ValueError, match='batch_size must be at least 1'):
    clip_batches.ClipDataConfig(batch_size=0)
  with pytest.raises(ValueError, match='num_workers must be at least 0'):
    clip_batches.ClipDataConfig(num_workers=-1)
