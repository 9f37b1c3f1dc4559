"""Progress bars on stderr."""

import contextlib
import re

from tapjax.cli.progress import ProgressBars
from tests.cli.command_runs import make_frames


def test_bars_reach_their_total_whatever_a_file_promised(capsys):
  with ProgressBars() as progress:
    blocks = iter(make_frames(6, 1, 1).reshape(3, 2, 1, 1, 3))
    assert len(list(progress.count_frames('read', blocks, 125))) == 3
  with contextlib.suppress(ValueError), ProgressBars() as progress:
    progress.update('encode', 1, 2)
    raise ValueError
  err = capsys.readouterr().err
  assert re.search(r'read: 100%\|[^|]*\| 6/6', err)
  assert err.endswith('\r')
