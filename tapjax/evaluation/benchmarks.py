"""Benchmarks: data sources, protocols and published scores."""

from collections.abc import Callable
from collections.abc import Mapping
import functools
import pathlib
from typing import Literal, NamedTuple

from tapjax.data.benchmarks import jhmdb
from tapjax.data.benchmarks import point_tables
from tapjax.data.benchmarks import point_videos
from tapjax.data.benchmarks import tapvid
from tapjax.data.labeled import Source
from tapjax.data.procedural import heldout
from tapjax.geometry import Resolution
from tapjax.models import registry
from tapjax.spelling import suggest_name

# Errors are measured in pixels of this (height, width), at every resolution.
METRIC_RESOLUTION: Resolution = (256, 256)


class PublishedPoints(NamedTuple):
  """Published scores of PIPs++'s protocol.

  Attributes:
    d_avg: average accuracy over thresholds, in percent.
    survival: survival rate, in percent.
    median_l2: median error in pixels of a 256x256 frame.
    source: publication of the scores; editions of it may differ.
  """

  d_avg: float
  survival: float
  median_l2: float
  source: str


class Benchmark(NamedTuple):
  """Benchmark: videos and a protocol.

  Attributes:
    name: value of `--benchmark`.
    open: function from the folder or file of the data to its videos; None for
      generated videos.
    make: function that generates the videos; None for published data.
    query_mode: 'first' or 'strided' queries and counted frames.
    metric: `tapvid` for Average Jaccard and its parts, `pck` for joints, `pips`
      for the scores of PIPs++.
    address: web page of the published files.
    scores_key: key in `Preset.scores` of the published Average Jaccard.
    published: published Average Jaccard by preset, in percent, if it is not in
      `Preset.scores`.
    published_points: published scores of PIPs++'s protocol by preset, from all
      sources.
  """

  name: str
  open: Callable[[pathlib.Path], Source] | None
  query_mode: Literal['first', 'strided']
  address: str
  make: Callable[[], Source] | None = None
  metric: Literal['tapvid', 'pck', 'pips'] = 'tapvid'
  scores_key: str = ''
  published: Mapping[str, float] = {}
  published_points: Mapping[str, tuple[PublishedPoints, ...]] = {}


_BUCKET = 'https://storage.googleapis.com/dm-tapnet/'
_DAVIS = _BUCKET + 'tapvid_davis.zip'
_KINETICS = _BUCKET + 'tapvid_kinetics.zip'
_RGB_STACKING = _BUCKET + 'tapvid_rgb_stacking.zip'
_ROBOTAP = _BUCKET + 'robotap/robotap.zip'
_TABLES = 'https://github.com/google-deepmind/perception_test'
_CROHD = 'https://motchallenge.net/data/Head_Tracking_21'
_POINT_ODYSSEY = 'https://huggingface.co/datasets/aharley/pointodyssey'
_JHMDB = 'http://jhmdb.is.tue.mpg.de'
_STRIDED = {
    'tapnet': 38.4,
    'tapir': 63.3,
    'causal_tapir': 58.3,
    'bootstapir': 67.4,
    'causal_bootstapir': 61.2,
    'taptrv2': 66.4,
}
# fmt: off
_DAVIS_POINTS = {'pips_plus_plus': (PublishedPoints(70.6, 89.3, 6.9, 'README'),)}  # noqa: E501
# The difference between the other two is not explained in any source.
_CROHD_POINTS = {
    'pips_plus_plus': (
        PublishedPoints(50.6, 50.6, 19.7, 'one edition of the README'),
        PublishedPoints(43.5, 56.6, 16.1, 'another edition of the README'),
        PublishedPoints(35.5, 48.2, 20.7, 'paper'),
    )
}
_ODYSSEY_POINTS = {'pips_plus_plus': (PublishedPoints(31.3, 32.7, 33.0, 'README'),)}  # noqa: E501
# fmt: on


def _open_kinetics(path: pathlib.Path) -> Source:
  """Opens shards, or the published table with the clips below its folder."""
  table = path / 'tapvid_kinetics.csv'
  if table.is_file() and not any(path.rglob('*_of_*.pkl')):
    return point_tables.open_kinetics_table(table, path)
  return tapvid.open_kinetics(path)


# fmt: off
_BENCHMARKS = (
    Benchmark('davis_first', tapvid.open_davis, 'first', _DAVIS, scores_key='tapvid_davis'),  # noqa: E501
    Benchmark('davis_strided', tapvid.open_davis, 'strided', _DAVIS, published=_STRIDED),  # noqa: E501
    Benchmark('kinetics_first', _open_kinetics, 'first', _KINETICS, scores_key='tapvid_kinetics'),  # noqa: E501
    Benchmark('kinetics_strided', _open_kinetics, 'strided', _KINETICS),
    Benchmark('rgb_stacking_first', tapvid.open_rgb_stacking, 'first', _RGB_STACKING),  # noqa: E501
    Benchmark('rgb_stacking_strided', tapvid.open_rgb_stacking, 'strided', _RGB_STACKING),  # noqa: E501
    Benchmark('robotap_first', tapvid.open_robotap, 'first', _ROBOTAP, scores_key='robotap'),  # noqa: E501
    Benchmark('robotap_strided', tapvid.open_robotap, 'strided', _ROBOTAP),
    Benchmark('table_first', point_tables.open_table_folder, 'first', _TABLES),
    Benchmark('table_strided', point_tables.open_table_folder, 'strided', _TABLES),  # noqa: E501
    Benchmark('jhmdb', jhmdb.open_jhmdb, 'first', _JHMDB, metric='pck'),
    Benchmark('davis_points', point_videos.open_davis, 'first', _DAVIS, metric='pips', published_points=_DAVIS_POINTS),  # noqa: E501
    Benchmark('crohd', point_videos.open_crohd, 'first', _CROHD, metric='pips', published_points=_CROHD_POINTS),  # noqa: E501
    Benchmark('point_odyssey', point_videos.open_point_odyssey, 'first', _POINT_ODYSSEY, metric='pips', published_points=_ODYSSEY_POINTS),  # noqa: E501
    Benchmark('procedural_24', None, 'first', '', functools.partial(heldout.make_heldout_source, 24)),  # noqa: E501
    Benchmark('procedural_48', None, 'first', '', functools.partial(heldout.make_heldout_source, 48)),  # noqa: E501
)
# fmt: on

BENCHMARKS: Mapping[str, Benchmark] = {
    benchmark.name: benchmark for benchmark in _BENCHMARKS
}


def get_benchmark(name: str) -> Benchmark:
  """Returns a benchmark by name.

  Raises:
    ValueError: the name is unknown; the message lists all names.
  """
  if name in BENCHMARKS:
    return BENCHMARKS[name]
  raise ValueError(
      f'benchmark must be one of {", ".join(BENCHMARKS)}; got {name!r}'
      f'{suggest_name(name, BENCHMARKS)}'
  )


def open_benchmark(benchmark: Benchmark, data: pathlib.Path | None) -> Source:
  """Opens the videos of a benchmark; `data` is its file, zip or folder."""
  if benchmark.make is not None:
    return benchmark.make()
  assert benchmark.open is not None
  if data is None:
    raise ValueError(
        f'data must be the folder or file of {benchmark.name}; got none - '
        f'download it from {benchmark.address}'
    )
  return benchmark.open(data)


def get_published_jaccard(name: str, model: str) -> float | None:
  """Returns the published Average Jaccard in percent, or None."""
  benchmark = BENCHMARKS.get(name)
  if benchmark is None:
    return None
  if benchmark.scores_key and model in registry.PRESETS:
    return registry.PRESETS[model].scores.get(benchmark.scores_key)
  return benchmark.published.get(model)


def get_published_points(name: str, model: str) -> tuple[PublishedPoints, ...]:
  """Returns published scores of PIPs++'s protocol, from all sources."""
  benchmark = BENCHMARKS.get(name)
  return () if benchmark is None else benchmark.published_points.get(model, ())
