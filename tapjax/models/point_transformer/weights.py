"""Names of a point transformer's modules in files of the training program."""

from collections.abc import Iterator

from tapjax.models.point_transformer.config import PointTransformerConfig
from tapjax.models.point_transformer.network import BACKBONE_PREFIX
from tapjax.models.weight_names import list_torchvision_names
from tapjax.models.weight_names import WeightName

# Shell patterns of arrays of those files that nothing uses.
IGNORED = ('*.num_batches_tracked',)


def list_weight_names(config: PointTransformerConfig) -> Iterator[WeightName]:
  """Lists every module with its name in files of the training program."""
  ours = 'point_transformer/~/'
  torch = 'feature_extractor.backbone.'
  stages = range(4, 4 + len(config.backbone_blocks))
  yield from list_torchvision_names(
      BACKBONE_PREFIX,
      config.resnet,
      (f'{torch}0', f'{torch}1'),
      [f'{torch}{stage}.' for stage in stages],
  )
  torch = 'feature_extractor.projection.'
  yield WeightName('conv2d_bias', f'{ours}projection', torch=f'{torch}0')
  yield WeightName('running_norm', f'{ours}projection_norm', torch=f'{torch}1')
  yield WeightName('linear', f'{ours}embedding', torch='point_embed')
  for i in range(config.num_blocks):
    block, torch = f'{ours}block_{i}', f'transformer_layers.{i}.'
    for j in range(2):
      yield WeightName(
          'norm', f'{block}/~/norm_{j}', torch=f'{torch}norm{j + 1}'
      )
    for name, published in (
        ('attention', 'attn.qkv'),
        ('attention/~/output', 'attn.proj'),
        ('hidden', 'mlp.0'),
        ('output', 'mlp.3'),
    ):
      yield WeightName('linear', f'{block}/~/{name}', torch=torch + published)
  yield WeightName('linear', f'{ours}hidden', torch='output_head.0')
  yield WeightName('linear', f'{ours}output', torch='output_head.3')
