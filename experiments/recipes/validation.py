"""Evaluation of weights during training, on held-out procedural videos."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping

import jax
from jaxtyping import UInt8
import numpy as np

from experiments.config import ValidationConfig
from experiments.recipes.recipe import WritePicture
from tapjax.data.procedural.videos import render_example
from tapjax.data.queries import Queries
from tapjax.data.queries import sample_queries_first
from tapjax.evaluation.metrics import average_videos
from tapjax.evaluation.metrics import compute_tapvid_metrics
from tapjax.models.contract import Params
from tapjax.tracker import Tracker
from tapjax.training.loop import Evaluation
from tapjax.types import Example
from tapjax.types import Tracks
from tapjax.visualization.overlay import draw_tracks

# Distances are counted in frames of this size.
_SCALE = 256
_SHOWN_FRAMES = 4
_METRICS = {
    'average_jaccard': 'average_jaccard',
    'position_accuracy': 'average_pts_within_thresh',
    'occlusion_accuracy': 'occlusion_accuracy',
}


def make_evaluate(
    make_tracker: Callable[[Params], Tracker],
    config: ValidationConfig,
    write_picture: WritePicture,
) -> Callable[[int, Params], Evaluation]:
  """Returns the evaluation of weights, in percent, query first.

  The score is the Average Jaccard. The first video is drawn with its predicted
  tracks, and with the true ones below.
  """
  examples = make_examples(config)
  return make_evaluate_examples(make_tracker, examples, write_picture)


def make_examples(config: ValidationConfig) -> list[Example]:
  """Generates the videos of the evaluation."""
  keys = jax.random.split(jax.random.key(config.seed), config.num_videos)
  return [render_example(key, config.video) for key in keys]


def make_evaluate_examples(
    make_tracker: Callable[[Params], Tracker],
    examples: Iterable[Example],
    write_picture: WritePicture,
) -> Callable[[int, Params], Evaluation]:
  """Returns the evaluation of weights on examples; see `make_evaluate`."""
  videos = [_prepare(example) for example in examples]

  def evaluate(step: int, params: Params) -> Evaluation:
    tracker = make_tracker(params)
    rows = []
    for index, (frames, queries) in enumerate(videos):
      points = queries.query_points.astype(np.float32)
      tracks = tracker.track(frames, points)
      rows.append(_measure(queries, tracks, frames.shape[1:3]))
      if index == 0:
        picture = draw_comparison(frames, queries, tracks)
        write_picture(step, 'validation/tracks', picture)
    means = average_videos(rows)
    scalars = {
        f'validation/{name}': 100 * means[key].value
        for name, key in _METRICS.items()
    }
    return Evaluation(scalars['validation/average_jaccard'], scalars)

  return evaluate


def draw_comparison(
    frames: UInt8[np.ndarray, 't h w 3'], queries: Queries, tracks: Tracks
) -> UInt8[np.ndarray, 'h w 3']:
  """Draws a row of frames with predicted tracks above one with true tracks."""
  truth = Tracks(queries.target_points, ~queries.occluded, None, None)
  chosen = np.linspace(0, len(frames) - 1, _SHOWN_FRAMES).astype(int)
  rows = [
      np.concatenate(list(draw_tracks(frames, shown)[chosen]), axis=1)
      for shown in (tracks, truth)
  ]
  return np.concatenate(rows)


def _prepare(example: Example) -> tuple[UInt8[np.ndarray, 't h w 3'], Queries]:
  frames = np.round(127.5 * (np.asarray(example.video) + 1)).astype(np.uint8)
  queries = sample_queries_first(
      np.asarray(example.target_points), np.asarray(example.occluded)
  )
  return frames, queries


def _measure(
    queries: Queries, tracks: Tracks, resolution: tuple[int, ...]
) -> Mapping[str, float]:
  scale = _SCALE / np.asarray(resolution[::-1])
  metrics = compute_tapvid_metrics(
      queries.query_points[None],
      queries.occluded[None],
      queries.target_points[None] * scale,
      ~tracks.visible[None],
      tracks.positions[None] * scale,
      'first',
  )
  return {name: float(values[0]) for name, values in metrics.items()}
