"""Tables of results, as text and as LaTeX."""

from collections.abc import Iterable
from collections.abc import Mapping
import itertools
from typing import Any

from tapjax import tables
from tapjax.evaluation.benchmarks import get_published_jaccard
from tapjax.evaluation.benchmarks import get_published_points
from tapjax.evaluation.benchmarks import PublishedPoints
from tapjax.evaluation.metrics import PCK_THRESHOLDS
from tapjax.evaluation.metrics import THRESHOLDS

_COLUMNS = (
    ('AJ', 'average_jaccard'),
    ('delta_avg', 'average_pts_within_thresh'),
    ('OA', 'occlusion_accuracy'),
    ('AJ_RD', 'AJ_RD'),
)
# Scores of PIPs++: two in percent, one in pixels of a 256x256 frame.
POINT_SCORES = ('d_avg', 'survival', 'median_l2')


def format_table(results: Iterable[Mapping[str, Any]]) -> str:
  """Formats results as a table, one line each, with published scores.

  Scores are in percent, errors in pixels. A dash means not measured or not
  published. If sources of published scores differ, all are listed.
  """
  columns = (
      'benchmark',
      'model',
      'resolution',
      *(title for title, _ in _COLUMNS),
      'PCK@0.2',
      *POINT_SCORES,
      'published AJ',
      f'published {", ".join(POINT_SCORES)}',
      'videos',
      'failed',
      'missing',
  )
  rows = []
  for result in results:
    mean = result['mean']
    published = get_published_jaccard(result['benchmark'], result['model'])
    points = get_published_points(result['benchmark'], result['model'])
    size = result['resolution']
    rows.append(
        (
            result['benchmark'],
            result['model'],
            '{}x{}'.format(*size) if size else 'original',
            *(_format(_get(mean, name), 100.0) for _, name in _COLUMNS),
            _format(_get(mean, 'PCK@0.2'), 1.0),
            *(_format(_get(mean, name), 1.0) for name in POINT_SCORES),
            _format(published, 1.0),
            '; '.join(map(_format_published, points)) or None,
            result['num_videos'],
            len(result['failed']),
            len(result['missing']),
        )
    )
  # Columns without any value are left out.
  kept = [
      not rows or any(row[i] is not None for row in rows)
      for i in range(len(columns))
  ]
  return tables.format_table(
      tuple(itertools.compress(columns, kept)),
      [tuple(itertools.compress(row, kept)) for row in rows],
  )


def format_latex(result: Mapping[str, Any]) -> str:
  """Formats a result as a header and a row of a LaTeX table, in percent."""
  mean = result['mean']
  if 'average_jaccard' in mean:
    columns = {
        'AJ': 'average_jaccard',
        '$<\\delta^{x}_{avg}$': 'average_pts_within_thresh',
        'OA': 'occlusion_accuracy',
        **{f'Jac. $\\delta^{i}$': f'jaccard_{d}' for i, d in _powers()},
        **{f'$<\\delta^{i}$': f'pts_within_{d}' for i, d in _powers()},
    }
    factor = 100
  elif 'd_avg' in mean:
    columns = {
        '$<\\delta_{avg}$': 'd_avg',
        'Survival': 'survival',
        'MTE': 'median_l2',
    }
    factor = 1
  else:
    columns = {name: name for name in map('PCK@{}'.format, PCK_THRESHOLDS)}
    factor = 1
  values = (_get(mean, name) for name in columns.values())
  cells = ('-' if v is None else f'{factor * v:.3}' for v in values)
  return f'{" & ".join(columns)}\n{" & ".join(cells)}'


def _powers() -> list[tuple[int, int]]:
  return list(enumerate(THRESHOLDS))


def _get(mean: Mapping[str, Any], name: str) -> float | None:
  return mean.get(name, {}).get('value')


def _format_published(scores: PublishedPoints) -> str:
  *values, source = scores
  return f'{", ".join(f"{value:.1f}" for value in values)} ({source})'


def _format(value: float | None, factor: float) -> str | None:
  return None if value is None else f'{factor * value:.1f}'
