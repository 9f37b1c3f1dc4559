"""Reports of results beside published scores."""

from tapjax.evaluation import report


def test_report_beside_published_scores():
  result = {
      'benchmark': 'davis_first',
      'model': 'tapir',
      'resolution': [256, 256],
      'mean': {
          name: {'value': value}
          for name, value in (
              ('average_jaccard', 0.5851),
              ('occlusion_accuracy', None),
              ('jaccard_1', 0.25),
          )
      },
      'num_videos': 30,
      'failed': {},
      'missing': ['a'],
  }
  header, row = report.format_table([result]).splitlines()
  assert header.split() == [
      'benchmark',
      'model',
      'resolution',
      'AJ',
      'published',
      'AJ',
      'videos',
      'failed',
      'missing',
  ]
  assert row.split() == [
      'davis_first',
      'tapir',
      '256x256',
      '58.5',
      '58.5',
      '30',
      '0',
      '1',
  ]
  latex = report.format_latex(result).splitlines()
  assert latex[1].startswith('58.5 & - & - & 25.0 & -')
  assert latex[0].count('&') == latex[1].count('&') == 12


def test_the_report_has_all_sources_of_published_figures():
  """Editions of the README of PIPs++, and its paper, differ on CroHD."""
  result = {
      'benchmark': 'crohd',
      'model': 'pips_plus_plus',
      'resolution': [512, 896],
      'mean': {'d_avg': {'value': 42.0}},
      'num_videos': 1,
      'failed': {},
      'missing': [],
  }
  _, row = report.format_table([result]).splitlines()
  assert (
      '50.6, 50.6, 19.7 (one edition of the README); '
      '43.5, 56.6, 16.1 (another edition of the README); '
      '35.5, 48.2, 20.7 (paper)'
  ) in row
