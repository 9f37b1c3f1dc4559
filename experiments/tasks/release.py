"""Packs the best weights of a training run for the package.

Packed weights have half precision, the preset's own resolution, and a record of
their training in the `metadata` of the file.
"""

import pathlib
import subprocess

from absl import flags

from tapjax import checkpoints
from tapjax import loading
from tapjax import pretrained
from tapjax.models import registry

_OUTPUT = flags.DEFINE_string(
    'output', None, 'A .safetensors file to write, for --task=release.'
)
_KEPT = ('command', 'steps', 'hardware')
_RESOLUTIONS = ('resolution', 'initial_resolution')


def run(workdir: str) -> None:
  """Packs the best weights of `workdir`, by the flags."""
  if _OUTPUT.value is None:
    raise ValueError('--task=release needs --output=FILE')
  pack(pathlib.Path(workdir) / 'best.safetensors', _OUTPUT.value)


def pack(best: pathlib.Path, output: str) -> None:
  """Writes weights in half precision, with a record of their training."""
  file = checkpoints.read_checkpoint(best)
  preset = registry.get_preset(loading.identify_preset(file))
  settings = {name: getattr(preset.config, name) for name in _RESOLUTIONS}
  tracker = pretrained.load(preset.name, checkpoint=best, **settings)
  metadata = {
      name: value
      for name, value in file.metadata.items()
      if name in _KEPT or name.startswith('validation/')
  }
  metadata['commit'] = _read_commit()
  tracker.save(output, metadata, dtype='float16')


def _read_commit() -> str:
  """Returns the commit of the working tree, or a note that there is none."""
  answer = subprocess.run(
      ['git', 'rev-parse', 'HEAD'], capture_output=True, text=True, check=False
  )
  return answer.stdout.strip() or 'unknown'
