"""How fast Kubric's videos are read and made into examples."""

import sys

from absl import flags

from experiments import training
from experiments.config import KubricTrainConfig
from experiments.config import override_config
from experiments.config import read_config
from tapjax import tables
from tapjax.data.kubric_batches import profile_input

_EXAMPLES = flags.DEFINE_integer(
    'examples', 20, 'Examples to time, for --task=input.'
)


def run() -> None:
  """Prints where the time goes, and examples a second and core."""
  if training.CONFIG.value is None:
    raise ValueError('--task=input needs --config=FILE')
  config = read_config(training.CONFIG.value)
  config = override_config(config, training.CHANGES.value)
  if not isinstance(config, KubricTrainConfig):
    raise ValueError(f'--config must be one of Kubric; got {config.preset!r}')
  profile = profile_input(config.data, _EXAMPLES.value, config.seed)
  rows = (
      ('reading and decoding', profile.read),
      ('tracks', profile.tracks),
      ('resizing and colors, on the device', profile.device),
  )
  tables.write_table(
      ('step', 'ms an example'),
      [(name, f'{1000 * seconds:.1f}') for name, seconds in rows],
  )
  sys.stdout.write(f'{profile.per_core:.1f} examples a second and core\n')
