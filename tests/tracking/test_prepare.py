"""Videos at the resolution of a tracker, in memory and on disk."""

import numpy as np

from tapjax.tracking.prepare import prepare_video
from tapjax.tracking.prepare import split_frames
from tests.support.small_trackers import make_video


def test_frames_on_disk_are_those_in_memory():
  for frames in (make_video(11, 48, 72), make_video(11, 64, 64)):
    kept, stored = (
        prepare_video(split_frames(frames), (64, 64), on_disk=on_disk)
        for on_disk in (False, True)
    )
    assert isinstance(stored.frames, np.memmap)
    assert stored.original == kept.original == frames.shape[1:3]
    assert stored.frames.dtype == kept.frames.dtype
    np.testing.assert_array_equal(stored.frames, kept.frames)
