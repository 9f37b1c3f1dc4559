"""Draws the animated pictures of the README and the documentation.

Both show clips that tapjax makes itself:

  python -m examples.draw_pictures docs/images
"""

import pathlib
import sys

from jaxtyping import Float
from jaxtyping import UInt8
import numpy as np
from PIL import Image

import tapjax
from tapjax.data.procedural.demo import make_demo_clip
from tapjax.data.procedural.heldout import make_heldout_source

SIZE = (256, 384)
NUM_FRAMES = 40
MARGIN = 8  # Pixels from which on a position is wrong.
RING = 5
FRAME_MS = 80


def draw_tracks_of_demo(
    tracker: tapjax.Tracker,
) -> UInt8[np.ndarray, 't h w 3']:
  """Draws tracks over the clip that `tapjax track` makes."""
  clip = make_demo_clip(NUM_FRAMES, SIZE)
  points = tapjax.sample_grid_points(SIZE, 14)
  tracks = tracker.track(clip.frames, points)
  return tapjax.draw_tracks(clip.frames, tracks)


def draw_failures(tracker: tapjax.Tracker) -> UInt8[np.ndarray, 't h w 3']:
  """Draws tracks of a held-out video, with rings around wrong positions."""
  video = next(make_heldout_source(24).entries()).read()
  height, width = video.frames.shape[1:3]
  targets = video.points_unit * (width, height)
  seen = video.occluded.argmin(axis=1)  # The first frame that shows a point.
  starts = targets[np.arange(len(seen)), seen]
  points = np.stack([seen, starts[:, 1], starts[:, 0]], axis=-1)
  tracks = tracker.track(video.frames, points.astype(np.float32))
  errors = np.linalg.norm(tracks.positions - targets, axis=-1)
  wrong = (errors > MARGIN) & ~video.occluded
  overlay = tapjax.draw_tracks(video.frames, tracks)
  return np.stack(
      [
          draw_rings(frame, np.asarray(tracks.positions)[wrong[:, t], t])
          for t, frame in enumerate(overlay)
      ]
  )


def draw_rings(
    frame: UInt8[np.ndarray, 'h w 3'], positions: Float[np.ndarray, 'n 2']
) -> UInt8[np.ndarray, 'h w 3']:
  """Draws red rings around positions."""
  height, width = frame.shape[:2]
  y, x = np.mgrid[:height, :width] + 0.5
  result = frame.copy()
  for position in positions:
    distance = np.hypot(x - position[0], y - position[1])
    result[np.abs(distance - RING) < 1] = (255, 0, 0)
  return result


def write_webp(
    path: pathlib.Path, frames: UInt8[np.ndarray, 't h w 3']
) -> None:
  """Writes an animated picture that starts anew at its end."""
  first, *rest = [Image.fromarray(frame) for frame in frames]
  first.save(
      path,
      save_all=True,
      append_images=rest,
      duration=FRAME_MS,
      loop=0,
      quality=60,
  )


def main(folder: str) -> None:
  """Writes `tracks.webp` and `failures.webp` into a folder."""
  tracker = tapjax.load()
  root = pathlib.Path(folder)
  write_webp(root / 'tracks.webp', draw_tracks_of_demo(tracker))
  write_webp(root / 'failures.webp', draw_failures(tracker))


if __name__ == '__main__':
  main(sys.argv[1])
