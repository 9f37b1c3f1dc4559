"""Benchmarks, as named in the table."""

import warnings

import pytest

from tapjax.evaluation import benchmarks
from tapjax.evaluation import evaluate as evaluation
from tests.evaluation.test_evaluate import make_false_method


def test_every_table_entry():
  for name, benchmark in benchmarks.BENCHMARKS.items():
    assert benchmark.name == name
    if benchmark.make is None:
      with pytest.raises(ValueError, match='download it from http'):
        benchmarks.open_benchmark(benchmark, None)
  assert benchmarks.get_published_jaccard('davis_first', 'tapir') == 58.5
  assert benchmarks.get_published_jaccard('davis_strided', 'tapir') == 63.3
  for name, score in (
      ('davis_first', 63.5),
      ('davis_strided', 66.4),
      ('kinetics_first', 49.7),
  ):
    assert benchmarks.get_published_jaccard(name, 'taptrv2') == score
  assert benchmarks.get_published_jaccard('jhmdb', 'tapir') is None
  with pytest.raises(ValueError, match='did you mean davis_first'):
    benchmarks.get_benchmark('davis_frist')


@pytest.mark.parametrize(
    ('name', 'folder', 'num_videos'),
    [
        ('davis_first', 'tapvid_davis.pkl', 2),
        ('rgb_stacking_strided', '', 2),
        ('robotap_first', 'robotap', 2),
        ('kinetics_first', 'tapvid_kinetics', 2),
        ('kinetics_strided', 'kinetics_source', 2),
        ('table_first', 'robotap_csv', 2),
    ],
)
def test_sample_files(name, folder, num_videos, reference, tmp_path):
  benchmark = benchmarks.BENCHMARKS[name]
  path = reference / 'tapvid' / 'samples' / folder
  with warnings.catch_warnings():
    warnings.simplefilter('ignore', UserWarning)  # Of a clip that is absent.
    source = benchmarks.open_benchmark(benchmark, path)
  result = evaluation.evaluate(benchmark, source, make_false_method(), tmp_path)
  assert result['num_videos'] == num_videos
  assert not result['failed']
  assert result['resolution'] == [32, 32]
  assert result['mean']['average_jaccard']['num_values'] == num_videos
  assert len(result['missing']) == {'robotap': 3, 'kinetics_source': 1}.get(
      folder, 0
  )
