"""The runner: official numbers, whole or in parts, whatever goes wrong."""

import functools
import json

import jax
import numpy as np
import pytest

from tapjax.data.labeled import AnnotatedVideo
from tapjax.data.labeled import Entry
from tapjax.data.labeled import Source
from tapjax.data.queries import sample_queries
from tapjax.evaluation import benchmarks
from tapjax.evaluation import evaluate as evaluation
from tapjax.evaluation import methods
from tapjax.evaluation import metrics
from tapjax.evaluation import report
from tapjax.models import registry
from tapjax.models import tapnet
from tapjax.settings import replace_settings
from tapjax.tracker import Tracker
from tapjax.types import Tracks
from tests.support import golden

FIRST = benchmarks.BENCHMARKS['davis_first']
STRIDED = benchmarks.BENCHMARKS['davis_strided']


def make_video(name, num_frames, num_tracks, size=(32, 32)):
  generator = np.random.default_rng(num_frames)
  shape = (num_tracks, num_frames)
  occluded = generator.random(shape) < 0.3
  occluded[:, 0] = False
  return AnnotatedVideo(
      name,
      generator.integers(256, size=(num_frames, *size, 3), dtype=np.uint8),
      generator.uniform(0.1, 0.9, (*shape, 2)),
      occluded,
  )


def make_source(videos):
  def list_entries():
    for video in videos:
      yield Entry(video.name, len(video.frames), lambda video=video: video)

  return Source(list_entries)


def make_false_method(**changes):
  """Follows nothing: every track stays at its query."""

  def track(clip, num_frames):
    assert len(clip.frames) <= num_frames
    positions = np.repeat(
        clip.query_points[:, None, :0:-1], len(clip.frames), axis=1
    )
    return Tracks(
        positions.astype(np.float32),
        np.ones(positions.shape[:2], bool),
        None,
        None,
    )

  method = methods.Method('still', (32, 32), False, {}, track)
  return method._replace(**changes)


VIDEOS = [make_video(f'video_{t}', t, n) for t, n in ((4, 3), (7, 5), (5, 2))]


@pytest.mark.parametrize(
    'benchmark', [FIRST, STRIDED], ids=['first', 'strided']
)
def test_numbers_are_the_official_ones(benchmark, tmp_path):
  """Computed again by hand from the parts, in 256x256 pixels."""
  result = evaluation.evaluate(
      benchmark, make_source(VIDEOS), make_false_method(), tmp_path
  )
  rows = []
  for video, stored in zip(VIDEOS, result['videos'], strict=True):
    queries = sample_queries(
        video.points_unit * 256, video.occluded, benchmark.query_mode
    )
    num_frames = len(video.frames)
    prediction = np.repeat(
        queries.query_points[:, None, :0:-1], num_frames, axis=1
    )
    (values,) = [
        {name: value[0] for name, value in row.items()}
        for row in [
            metrics.compute_tapvid_metrics(
                queries.query_points[None],
                queries.occluded[None],
                queries.target_points[None],
                np.zeros_like(queries.occluded)[None],
                prediction[None],
                benchmark.query_mode,
            )
        ]
    ]
    rows.append(values)
    assert stored['num_queries'] == len(prediction)
    for name, value in values.items():
      np.testing.assert_allclose(stored['metrics'][name], value)
      assert len(stored['tracks'][name]) == len(prediction)
  for name in rows[0]:
    mean = result['mean'][name]
    np.testing.assert_allclose(
        mean['value'], np.mean([row[name] for row in rows])
    )
    assert (mean['num_values'], mean['num_missing']) == (3, 0)
  assert json.loads((tmp_path / 'results.json').read_text()) == result
  assert 'davis' in report.format_table([result])


def test_a_video_without_a_value_is_counted(tmp_path):
  blind = VIDEOS[0]._replace(name='blind')
  hidden = np.ones_like(blind.occluded)
  hidden[:, -1] = False  # The query is the last frame: nothing counts.
  result = evaluation.evaluate(
      FIRST,
      make_source([VIDEOS[1], blind._replace(occluded=hidden)]),
      make_false_method(),
      tmp_path,
  )
  mean = result['mean']['average_jaccard']
  assert (mean['num_values'], mean['num_missing']) == (1, 1)
  assert result['videos'][1]['metrics']['average_jaccard'] is None
  assert mean['value'] == result['videos'][0]['metrics']['average_jaccard']


def test_one_bad_video_is_reported_and_tried_again(tmp_path):
  def fail():
    raise ValueError('it is damaged')

  good = [
      Entry(v.name, len(v.frames), functools.partial(lambda v: v, v))
      for v in VIDEOS
  ]
  spoiled = [good[0], good[1]._replace(read=fail), good[2]]
  source = Source(lambda: iter(spoiled), missing=('lost',))
  result = evaluation.evaluate(FIRST, source, make_false_method(), tmp_path)
  assert result['failed'] == {'video_7': 'it is damaged'}
  assert result['missing'] == ['lost']
  assert [v['name'] for v in result['videos']] == ['video_4', 'video_5']
  again = evaluation.evaluate(
      FIRST, Source(lambda: iter(good)), make_false_method(), tmp_path
  )
  assert not again['failed']
  assert len(again['videos']) == 3


def test_no_good_video_is_an_error(tmp_path):
  video = VIDEOS[0]._replace(occluded=np.ones_like(VIDEOS[0].occluded))
  with pytest.raises(ValueError, match='the first: none of the 3 tracks'):
    evaluation.evaluate(
        FIRST, make_source([video]), make_false_method(), tmp_path
    )


def test_finished_videos_are_not_run_again(tmp_path):
  ran = []

  def make_method(fail_at):
    inner = make_false_method().track

    def track(clip, num_frames):
      ran.append(len(clip.frames))
      if len(ran) == fail_at:
        raise KeyboardInterrupt
      return inner(clip, num_frames)

    return make_false_method(track=track)

  source = make_source(VIDEOS)
  with pytest.raises(KeyboardInterrupt):
    evaluation.evaluate(FIRST, source, make_method(2), tmp_path / 'a')
  assert not (tmp_path / 'a' / 'results.json').exists()
  resumed = evaluation.evaluate(FIRST, source, make_method(0), tmp_path / 'a')
  assert ran == [4, 7, 7, 5]
  whole = evaluation.evaluate(FIRST, source, make_method(0), tmp_path / 'b')
  assert resumed == whole


def test_processes_share_the_videos(tmp_path):
  source = make_source(VIDEOS)
  method = make_false_method()
  whole = evaluation.evaluate(FIRST, source, method, tmp_path / 'one')
  folder = tmp_path / 'two'
  first = evaluation.evaluate(
      FIRST, source, method, folder, share=evaluation.Share(1, 2)
  )
  assert first is None
  assert len(list((folder / 'videos').iterdir())) == 1
  second = evaluation.evaluate(
      FIRST, source, method, folder, share=evaluation.Share(0, 2)
  )
  assert second == whole
  with pytest.raises(ValueError, match='got 2 of 2'):
    evaluation.Share(2, 2)


def test_progress_ends_at_all(tmp_path):
  reports = []
  evaluation.evaluate(
      FIRST,
      make_source(VIDEOS),
      make_false_method(),
      tmp_path,
      report=lambda *counts: reports.append(counts),
  )
  assert reports[-1] == (3, 3)
  assert [done for done, _ in reports] == sorted(done for done, _ in reports)


def test_other_settings_are_refused(tmp_path):
  source = make_source(VIDEOS)
  evaluation.evaluate(FIRST, source, make_false_method(), tmp_path)
  other = make_false_method(description={'weights_sha256': 'ff'})
  with pytest.raises(ValueError, match='differ in weights_sha256'):
    evaluation.evaluate(FIRST, source, other, tmp_path)
  with pytest.raises(ValueError, match='are the data others'):
    evaluation.evaluate(
        FIRST, make_source(VIDEOS[::-1]), make_false_method(), tmp_path
    )


def make_small_tracker():
  config = tapnet.TapNetConfig(resolution=(32, 32), channels=(8, 8, 8))
  functions = tapnet.TapNetFunctions(config)
  params = golden.make_random_params(functions)
  return Tracker('tapnet', config, functions, params)


@pytest.mark.slow
def test_twenty_videos_compile_few_programs(tmp_path):
  """Encoding and tracking, for each of at most four lengths."""
  generator = np.random.default_rng(0)
  videos = [
      make_video(f'v{t}', int(t), int(n))
      for t, n in zip(
          generator.permutation(np.arange(3, 23)),
          generator.integers(1, 20, size=20),
          strict=True,
      )
  ]
  compiled = []
  jax.monitoring.register_event_duration_secs_listener(
      lambda event, _, **__: compiled.append(event)
      if event.endswith('backend_compile_duration')
      else None
  )
  tracker = make_small_tracker()
  method = methods.make_method(tracker, jax.devices()[:1])
  del compiled[:]
  result = evaluation.evaluate(
      FIRST, make_source(videos), method, tmp_path / 'one'
  )
  assert 2 <= len(compiled) <= 8
  assert result['num_videos'] == 20
  # The scores are those of the plain call.
  for index in (7,):
    video = videos[index]
    queries = sample_queries(video.target_points, video.occluded, 'first')
    tracks = tracker.track(
        video.frames, queries.query_points.astype(np.float32)
    )
    values = metrics.compute_tapvid_metrics(
        queries.query_points[None],
        queries.occluded[None],
        queries.target_points[None] * 8,
        ~tracks.visible[None],
        tracks.positions[None] * 8,
        'first',
    )
    stored = result['videos'][index]['metrics']
    for name, value in values.items():
      np.testing.assert_allclose(stored[name] or np.nan, value[0] or np.nan)


@pytest.mark.slow
def test_devices_share_the_queries(tmp_path):
  tracker = make_small_tracker()
  results = [
      evaluation.evaluate(
          FIRST,
          make_source(VIDEOS),
          methods.make_method(tracker, jax.devices()[:count]),
          tmp_path / str(count),
      )
      for count in (1, 2)
  ]
  assert results[0] == results[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    'name',
    [
        pytest.param(
            name,
            marks=[pytest.mark.heavy] * (name not in ('tapir_tiny', 'tapnet')),
        )
        for name in registry.PRESETS
    ],
)
def test_every_preset(name, tmp_path):
  """Both protocols, interrupted after the first video and resumed."""
  preset = registry.get_preset(name)
  settings = {'resolution': (64, 64)}
  if hasattr(preset.config, 'initial_resolution'):
    settings['initial_resolution'] = (64, 64)
  config = replace_settings(preset.config, settings)
  functions = preset.architecture.make_functions(config)
  params = golden.make_random_params(functions)
  tracker = Tracker(name, config, functions, params)
  videos = [make_video(f'v{t}', t, 2, (64, 64)) for t in (5, 4)]
  for benchmark in (FIRST, STRIDED):
    method = methods.make_method(tracker, jax.devices()[:1])
    runs = []

    def track(clip, num_frames, method=method, runs=runs):
      if len(runs) == 2:
        runs.append('interrupted')
        raise KeyboardInterrupt
      runs.append(num_frames)
      return method.track(clip, num_frames)

    source = make_source([*videos, *videos])
    folder = tmp_path / benchmark.name
    with pytest.raises(KeyboardInterrupt):
      evaluation.evaluate(
          benchmark, source, method._replace(track=track), folder
      )
    assert len(runs) == 3
    resumed = evaluation.evaluate(benchmark, source, method, folder)
    for first, again in zip(
        resumed['videos'][:2], resumed['videos'][2:], strict=True
    ):
      assert first == again
      assert first['metrics']['occlusion_accuracy'] is not None
    expected = 1 + (functions.streams and benchmark is STRIDED)
    assert len(resumed['directions']) == expected


def test_pck_of_jhmdb(reference, tmp_path):
  benchmark = benchmarks.BENCHMARKS['jhmdb']
  source = benchmarks.open_benchmark(
      benchmark, reference / 'tapvid' / 'samples' / 'jhmdb'
  )
  method = make_false_method(resolution=(32, 40))
  result = evaluation.evaluate(benchmark, source, method, tmp_path)
  mean = result['mean']
  assert 0 < mean['PCK@0.1']['value'] < mean['PCK@0.5']['value'] <= 100
  # Still joints, in pixels of the original video.
  errors = []
  for entry in source.entries():
    video = entry.read()
    joints = video.target_points
    still = np.repeat(joints[:, :1], joints.shape[1], axis=1)
    errors.append(
        metrics.compute_joint_errors(joints, still, video.frames.shape[1:3])
    )
  for name, value in metrics.compute_pck(errors).items():
    np.testing.assert_allclose(mean[name]['value'], value, atol=0.5)


def test_damaged_results(tmp_path):
  (tmp_path / 'results.json').write_text('{')
  with pytest.raises(ValueError, match='must be results'):
    list(evaluation.iterate_results(tmp_path))
