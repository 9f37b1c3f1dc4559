"""Names of PIPs++'s modules in the published files."""

from collections.abc import Iterator

from tapjax.models.pips_plus_plus.config import BLOCKS_PER_STAGE
from tapjax.models.pips_plus_plus.config import PipsPlusPlusConfig
from tapjax.models.pips_plus_plus.config import STAGE_STRIDES
from tapjax.models.weight_names import WeightName


def list_weight_names(config: PipsPlusPlusConfig) -> Iterator[WeightName]:
  """Lists every module with its name in the published files."""
  ours = 'pips_plus_plus/~/encoder/~/'
  yield WeightName('conv2d_bias', ours + 'stem', torch='fnet.conv1')
  for stage, stride in enumerate(STAGE_STRIDES):
    for block in range(BLOCKS_PER_STAGE):
      name = f'{ours}stage_{stage}_block_{block}/~/'
      torch = f'fnet.layer{stage + 1}.{block}.'
      for i in range(2):
        yield WeightName(
            'conv2d_bias', f'{name}conv_{i}', torch=f'{torch}conv{i + 1}'
        )
      if block == 0 and stride != 1:
        yield WeightName(
            'conv2d_bias', name + 'shortcut', torch=torch + 'downsample.0'
        )
  yield WeightName('conv2d_bias', ours + 'fuse', torch='fnet.conv2')
  yield WeightName('conv2d_bias', ours + 'output', torch='fnet.conv3')

  ours, torch = 'pips_plus_plus/~/update/~/', 'delta_block.'
  yield WeightName(
      'conv1d', ours + 'input', torch=torch + 'first_block_conv.conv'
  )
  for block in range(len(config.block_channels)):
    for i in range(2):
      yield WeightName(
          'conv1d',
          f'{ours}block_{block}/~/conv_{i}',
          torch=f'{torch}basicblock_list.{block}.conv{i + 1}.conv',
      )
  yield WeightName('linear', ours + 'output', torch=torch + 'dense')
  yield WeightName('norm', 'pips_plus_plus/~/norm', torch='norm')
