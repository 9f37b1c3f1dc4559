"""Held-out procedural videos for evaluation.

They are rendered from fixed keys that training never uses, so that scores are
reproducible without a file. Another kind of device changes single pixels by one
level.
"""

from collections.abc import Iterator
import dataclasses
import functools

import jax
import numpy as np

from tapjax.data.labeled import AnnotatedVideo
from tapjax.data.labeled import Entry
from tapjax.data.labeled import Source
from tapjax.data.procedural.videos import ProceduralConfig
from tapjax.data.procedural.videos import render_example

NUM_VIDEOS = 16
# Tracks per video, each queried on its first visible frame.
NUM_TRACKS = 64
# Reserved for evaluation; training draws from other keys.
HELD_OUT_SEED = 0x7A9_0000


def make_heldout_source(
    num_frames: int,
    num_videos: int = NUM_VIDEOS,
    config: ProceduralConfig | None = None,
) -> Source:
  """Returns procedural videos of one length, rendered on reading.

  `config` replaces the config of the benchmark, except for `num_frames`.
  """
  config = dataclasses.replace(
      config or ProceduralConfig(num_queries=NUM_TRACKS), num_frames=num_frames
  )

  def list_entries() -> Iterator[Entry]:
    for index in range(num_videos):
      name = f'procedural_{num_frames}_{index:03}'
      read = functools.partial(_render, name, config, index)
      yield Entry(name, num_frames, read)

  return Source(list_entries)


def _render(name: str, config: ProceduralConfig, index: int) -> AnnotatedVideo:
  key = jax.random.fold_in(jax.random.key(HELD_OUT_SEED), config.num_frames)
  example = jax.tree.map(
      np.asarray, render_example(jax.random.fold_in(key, index), config)
  )
  frames = np.round((example.video + 1) * 127.5).astype(np.uint8)
  height, width = config.resolution
  return AnnotatedVideo(
      name,
      frames,
      example.target_points.astype(np.float64) / (width, height),
      example.occluded,
  )
