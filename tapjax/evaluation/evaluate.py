"""Evaluation of a method on a benchmark, video by video.

The scores of each video are one small file in the results folder. A killed run
therefore resumes, several processes can divide the videos among them, and the
last process to finish merges all scores into `results.json`.
"""

from collections.abc import Callable
from collections.abc import Iterator
import dataclasses
import importlib.metadata
import json
import math
import pathlib
import platform
from typing import Any, NamedTuple

import jax
import numpy as np

from tapjax import files
from tapjax.data.benchmarks import jhmdb
from tapjax.data.benchmarks.point_videos import PointEntry
from tapjax.data.benchmarks.point_videos import PointVideo
from tapjax.data.labeled import AnnotatedVideo
from tapjax.data.labeled import Entry
from tapjax.data.labeled import Source
from tapjax.data.queries import sample_queries
from tapjax.evaluation import metrics
from tapjax.evaluation.benchmarks import Benchmark
from tapjax.evaluation.benchmarks import METRIC_RESOLUTION
from tapjax.evaluation.methods import Clip
from tapjax.evaluation.methods import Method
from tapjax.evaluation.methods import track_clip
from tapjax.evaluation.pips_metrics import compute_pips_metrics
from tapjax.tracking import shapes
from tapjax.types import Tracks

RESULTS = 'results.json'
_SETTINGS = 'settings.json'
_LANCZOS = 'Pillow Lanczos on uint8'
_RESIZING = {
    'tapvid': _LANCZOS,
    'pck': _LANCZOS,
    'pips': 'bilinear without antialiasing',
}
_VERSIONED = ('tapjax', 'jax', 'jaxlib', 'numpy')

Json = dict[str, Any]
# Called with the number of finished videos and of all videos.
Report = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class Share:
  """Part of the videos of one process: every `count`-th from `index` on."""

  index: int = 0
  count: int = 1

  def __post_init__(self):
    if not 0 <= self.index < self.count:
      raise ValueError(
          'the index of a process must be from 0 to one less than their '
          f'number; got {self.index} of {self.count}'
      )


class _Job(NamedTuple):
  """Video that is ready to be tracked and scored."""

  number: int
  name: str
  clip: Clip
  score: Callable[[Tracks], Json]


def evaluate(
    benchmark: Benchmark,
    source: Source,
    method: Method,
    folder: pathlib.Path,
    *,
    share: Share | None = None,
    report: Report | None = None,
) -> Json | None:
  """Evaluates a method on the videos of a benchmark.

  Args:
    benchmark: protocol.
    source: videos of the benchmark.
    method: method under evaluation.
    folder: folder of the results; videos finished in it are not repeated.
    share: part of the videos of this process; None for all.
    report: called as `report(done, total)` after every video.

  Returns:
    Content of `results.json`; None while other processes are not finished.

  Raises:
    ValueError: the folder has results of other settings, or no video could be
      evaluated.
  """
  share = share or Share()
  settings = _describe(benchmark, method)
  (folder / 'videos').mkdir(parents=True, exist_ok=True)
  _check_settings(folder, settings)
  plan = [(entry.name, entry.num_frames) for entry in source.entries()]
  if not plan:
    raise ValueError(f'{benchmark.name} must have a video; there is none')
  lengths = shapes.choose_lengths(
      [length for _, length in plan if length] or [1]
  )
  todo = {
      index
      for index, (name, _) in enumerate(plan)
      if index % share.count == share.index
      and _read_video(folder, index, name) is None
  }
  if report is not None:
    report(len(plan) - len(todo), len(plan))

  for index, entry in enumerate(source.entries()):
    if index not in todo:
      continue
    job = _prepare(benchmark, method, index, entry, folder)
    if job is not None:
      length = _fit(len(job.clip.frames), lengths)
      _run(benchmark, method, job, length, folder)
    if report is not None:
      done = len([i for i in todo if i <= index])
      report(len(plan) - len(todo) + done, len(plan))
  return merge(benchmark, source, folder, settings, [name for name, _ in plan])


def merge(
    benchmark: Benchmark,
    source: Source,
    folder: pathlib.Path,
    settings: Json,
    names: list[str],
) -> Json | None:
  """Writes `results.json` once every video has been tried; else None."""
  videos = []
  failed = {}
  for index, name in enumerate(names):
    path = _get_path(folder, index)
    if not path.is_file():
      return None
    video = json.loads(path.read_text(encoding='utf-8'))
    if 'error' in video:
      failed[name] = video['error']
    else:
      videos.append({k: v for k, v in video.items() if k != 'index'})
  if not videos:
    raise ValueError(
        f'no video of {benchmark.name} could be evaluated; the first: '
        f'{failed[names[0]]}'
    )
  results = {
      **settings,
      'mean': _average(benchmark, videos),
      'num_videos': len(videos),
      'failed': failed,
      'missing': list(source.missing),
      'videos': videos,
  }
  _write_json(folder / RESULTS, results)
  return results


def _describe(benchmark: Benchmark, method: Method) -> Json:
  """Returns the settings that determine the scores."""
  both_ways = method.sees_only_past and benchmark.query_mode == 'strided'
  return _plain(
      {
          'benchmark': benchmark.name,
          'model': method.name,
          'query_mode': benchmark.query_mode,
          'metric': benchmark.metric,
          'resolution': method.resolution,
          'metric_resolution': METRIC_RESOLUTION,
          'resize': _RESIZING[benchmark.metric],
          'directions': ['forward', 'backward'] if both_ways else ['forward'],
          **method.description,
          'versions': {
              **{name: _get_version(name) for name in _VERSIONED},
              'python': platform.python_version(),
          },
          'device': jax.devices()[0].device_kind,
      }
  )


def _get_version(name: str) -> str:
  try:
    return importlib.metadata.version(name)
  except importlib.metadata.PackageNotFoundError:
    return 'unknown'


def _check_settings(folder: pathlib.Path, settings: Json) -> None:
  """Raises ValueError for a folder with results of other settings."""
  if changed := files.keep_settings(folder / _SETTINGS, settings):
    raise ValueError(
        f'{folder} has results that differ in {", ".join(changed)} - choose '
        'another folder, or remove it'
    )


def _prepare(
    benchmark: Benchmark,
    method: Method,
    index: int,
    entry: Entry,
    folder: pathlib.Path,
) -> _Job | None:
  """Reads a video; records an error and returns None if that fails."""
  try:
    video = entry.read()
    if isinstance(video, PointEntry):
      return _prepare_sequence(index, video.resize(method.resolution))
    original = video.frames.shape[1:3]
    video = video.resize(method.resolution)
    if benchmark.metric == 'pck':
      return _prepare_joints(index, video, original)
    return _prepare_points(benchmark, index, video)
  except (ValueError, OSError) as error:
    note = {'index': index, 'name': entry.name, 'error': str(error)}
    _write_json(_get_path(folder, index), note)
    return None


def _prepare_points(
    benchmark: Benchmark, index: int, video: AnnotatedVideo
) -> _Job:
  queries = sample_queries(
      video.target_points, video.occluded, benchmark.query_mode
  )
  scale = np.asarray(METRIC_RESOLUTION[::-1]) / video.frames.shape[2:0:-1]

  def score(tracks: Tracks) -> Json:
    truth = (queries.occluded[None], queries.target_points[None] * scale)
    shown = np.asarray(tracks.visible)
    answer = (~shown[None], np.asarray(tracks.positions)[None] * scale)
    whole, single = (
        metrics.compute_tapvid_metrics(
            queries.query_points[None],
            *truth,
            *answer,
            benchmark.query_mode,
            get_trackwise_metrics=trackwise,
        )
        for trackwise in (False, True)
    )
    result = {
        'metrics': {name: value[0] for name, value in whole.items()},
        'tracks': {name: value[0] for name, value in single.items()},
        'track_group': queries.track_group,
    }
    if benchmark.query_mode == 'first':
      events = metrics.find_redetections(*truth, *answer)
      result['redetections'] = events._asdict()
    return result

  clip = Clip(video.frames, queries.query_points)
  return _Job(index, video.name, clip, score)


def _prepare_joints(
    index: int, video: AnnotatedVideo, original: tuple[int, int]
) -> _Job:
  joints = video.target_points
  scale = np.asarray(original[::-1]) / video.frames.shape[2:0:-1]
  inside = jhmdb.find_joints_inside(joints, video.frames.shape[1:3])
  if not inside.any():
    raise ValueError(f'{video.name}: no joint is inside of the first frame')
  points = jhmdb.get_joint_queries(joints[inside])

  def score(tracks: Tracks) -> Json:
    answer = np.zeros_like(joints)
    answer[inside] = tracks.positions
    errors = metrics.compute_joint_errors(
        joints * scale, answer * scale, original
    )
    return {'metrics': metrics.compute_pck([errors]), 'joint_errors': errors}

  return _Job(index, video.name, Clip(video.frames, points), score)


def _prepare_sequence(index: int, video: PointVideo) -> _Job:
  starts = video.positions[:, 0, ::-1]
  points = np.concatenate([np.zeros_like(starts[:, :1]), starts], axis=1)
  height, width = video.frames.shape[1:3]

  def score(tracks: Tracks) -> Json:
    truth = (video.positions, video.valid, (height, width))
    positions = np.asarray(tracks.positions, np.float64)
    whole = compute_pips_metrics(positions, *truth)
    single = [
        compute_pips_metrics(row[None], target[None], valid[None], truth[2])
        for row, target, valid in zip(positions, *truth[:2], strict=True)
    ]
    return {
        'metrics': whole._asdict(),
        'tracks': {
            name: [getattr(row, name) for row in single]
            for name in whole._fields
        },
    }

  return _Job(index, video.name, Clip(video.frames, points), score)


def _run(
    benchmark: Benchmark,
    method: Method,
    job: _Job,
    length: int,
    folder: pathlib.Path,
) -> None:
  """Tracks a video padded to `length`, and writes its scores."""
  tracks = track_clip(method, job.clip, length, benchmark.query_mode)
  result = {
      'index': job.number,
      'name': job.name,
      'num_frames': len(job.clip.frames),
      'num_queries': len(job.clip.query_points),
      **job.score(tracks),
  }
  _write_json(_get_path(folder, job.number), _plain(result))


def _average(benchmark: Benchmark, videos: list[Json]) -> Json:
  """Returns mean scores of the benchmark over its videos."""
  if benchmark.metric == 'pck':
    errors = [_from_plain(video['joint_errors']) for video in videos]
    scores = metrics.compute_pck(errors)
    return _plain({name: {'value': value} for name, value in scores.items()})
  rows = [
      {name: _from_plain(value) for name, value in video['metrics'].items()}
      for video in videos
  ]
  means: Json = {
      name: mean._asdict()
      for name, mean in metrics.average_videos(rows).items()
  }
  if benchmark.metric == 'tapvid' and benchmark.query_mode == 'first':
    events = [
        metrics.Redetections(
            np.asarray(video['redetections']['durations'], int),
            _from_plain(video['redetections']['scores']).reshape(
                -1, len(metrics.THRESHOLDS)
            ),
        )
        for video in videos
    ]
    again = metrics.average_redetections(events)
    means['AJ_RD'] = {
        'value': again['AJ_RD'],
        'num_values': sum(len(event.durations) for event in events),
    }
  return _plain(means)


def _fit(num_frames: int, lengths: tuple[int, ...]) -> int:
  """Returns the padded length; beyond all `lengths`, a rounded-up length."""
  fitting = [length for length in lengths if length >= num_frames]
  return min(fitting) if fitting else shapes.round_up(num_frames)


def _get_path(folder: pathlib.Path, index: int) -> pathlib.Path:
  return folder / 'videos' / f'{index:05}.json'


def _read_video(folder: pathlib.Path, index: int, name: str) -> Json | None:
  """Returns the scores of a finished video; None if missing or failed."""
  path = _get_path(folder, index)
  if not path.is_file():
    return None
  video = json.loads(path.read_text(encoding='utf-8'))
  if video['name'] != name:
    raise ValueError(
        f'{path} has the scores of {video["name"]}, but the video is {name} - '
        'are the data others? Choose another folder'
    )
  return None if 'error' in video else video


def _write_json(path: pathlib.Path, value: Json) -> None:
  with files.write_atomically(path) as file:
    file.write(json.dumps(value, indent=1, allow_nan=False).encode())


def _plain(value: Any) -> Any:
  """Converts values to JSON types; NaN and infinities become None."""
  if isinstance(value, dict):
    return {name: _plain(item) for name, item in value.items()}
  if isinstance(value, np.ndarray | np.generic):
    return _plain(value.tolist())
  if isinstance(value, list | tuple):
    return [_plain(item) for item in value]
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value


def _from_plain(value: Any) -> Any:
  """Inverts `_plain` for numbers and arrays of numbers."""
  array = np.asarray(value, np.float64)
  return array if array.ndim else float(array)


def iterate_results(folder: pathlib.Path) -> Iterator[Json]:
  """Yields all results below a folder, sorted by path."""
  for path in sorted(folder.rglob(RESULTS)):
    try:
      yield json.loads(path.read_text(encoding='utf-8'))
    except ValueError:
      raise ValueError(
          f'{path} must be results of an evaluation; it cannot be read'
      ) from None
