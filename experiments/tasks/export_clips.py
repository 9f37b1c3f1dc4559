"""Exports training clips of PIPs++ as video files, with their augmentation.

`--workdir` has the layout of the published exporter, with the folder
`ae_36_128_384x512` by default, and is a `data.root` of PIPs++'s configs. The
same command resumes a killed run.
"""

import pathlib
import sys

from tqdm import tqdm

from experiments.config import override_config
from tapjax import tables
from tapjax.data.point_odyssey.clip_export import export_clips
from tapjax.data.point_odyssey.clip_export import ExportConfig
from tapjax.data.point_odyssey.clip_export import ExportProgress


def run(workdir: str, changes: list[str]) -> None:
  """Exports clips into a folder, with overrides of `ExportConfig`."""
  config = override_config(ExportConfig(), changes)
  with tqdm(unit='clip', desc=config.name, file=sys.stderr) as bar:

    def show(progress: ExportProgress) -> None:
      if bar.total is None:
        # What was there before says nothing of how fast it goes.
        bar.reset(progress.total)
        bar.initial = progress.done
        bar.n = progress.done
      bar.set_postfix_str(f'written {progress.written}', refresh=False)
      bar.update(progress.done - bar.n)

    progress = export_clips(config, pathlib.Path(workdir), show)
  sys.stdout.write(f'{describe(progress)}\n')


def describe(progress: ExportProgress) -> str:
  """Returns a table: a row for written clips, and one per rejection reason."""
  reasons = progress.reasons.most_common()
  return tables.format_table(
      ('clips', 'outcome'),
      [
          (progress.written, 'written'),
          *((number, reason) for reason, number in reasons),
      ],
  )
