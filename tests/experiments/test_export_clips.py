"""The printed outcome of exported clips."""

import collections

from experiments.tasks.export_clips import describe
from tapjax.data.point_odyssey.clip_export import ExportProgress


def test_reasons_are_counted_the_most_frequent_first():
  fields = dict.fromkeys(ExportProgress._fields, 0)
  reasons = collections.Counter({'too few': 2, 'too short': 5})
  progress = ExportProgress(**{**fields, 'written': 12, 'reasons': reasons})
  lines = describe(progress).splitlines()
  rows = [line.split(maxsplit=1) for line in lines]
  assert rows[0] == ['clips', 'outcome']
  assert rows[-3:] == [['12', 'written'], ['5', 'too short'], ['2', 'too few']]
