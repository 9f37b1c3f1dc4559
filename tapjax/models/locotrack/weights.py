"""Names of LocoTrack's modules in the published files."""

from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses

from tapjax.models.locotrack.config import LocoTrackConfig
from tapjax.models.locotrack.config import PROJECTED_CHANNELS
from tapjax.models.locotrack.config import RESNET_CHANNELS
from tapjax.models.weight_names import Kind
from tapjax.models.weight_names import list_resnet_names
from tapjax.models.weight_names import make_haiku_name
from tapjax.models.weight_names import WeightName
from tapjax.nn.efficientnet import list_blocks
from tapjax.nn.efficientnet import Trunk

# Arrays that published files have to spare, as shell patterns.
IGNORED = ('*.num_batches_tracked',)


def list_weight_names(config: LocoTrackConfig) -> Iterator[WeightName]:
  """Lists every module with its name in the published files."""
  root = 'locotrack/~/'
  if config.encoder == 'resnet':
    yield from list_resnet_names(
        root + 'resnet/~/', 'resnet_torch.', len(RESNET_CHANNELS)
    )
  else:
    yield from _list_efficientnet_names(config)
  yield WeightName(
      'conv2d_bias', root + 'heatmap', root + 'cost_volume', 'cost_conv'
  )
  yield WeightName(
      'linear', root + 'logits', root + 'occlusion_out', 'occ_linear'
  )
  for i, grid in enumerate(('middle', 'coarse', 'fine')):
    ours = f'{root}encode_{grid}/~/'
    haiku = f'{root}{make_haiku_name("cmd_top", i)}/~/'
    for layer in range(len(config.encoder_layers)):
      torch = f'cmdtop.{i}.conv.{layer}.'
      yield WeightName(
          'conv2d_bias',
          f'{ours}conv_{layer}',
          haiku + make_haiku_name('conv2_d', layer),
          torch + '0',
      )
      yield WeightName(
          'norm',
          f'{ours}group_norm_{layer}',
          haiku + make_haiku_name('group_norm', layer),
          torch + '1',
      )
  yield from _list_transformer_names(config)


def _list_transformer_names(config: LocoTrackConfig) -> Iterator[WeightName]:
  """Lists the modules of the refinement network."""
  ours = 'locotrack/~/transformer/~/'
  haiku = 'locotrack/~/pips_transformer/'
  torch = 'torch_pips_mixer.'
  num_layers = config.transformer_layers
  yield WeightName(
      'linear', ours + 'input', haiku + 'linear', torch + 'input_proj'
  )
  yield WeightName(
      'linear', ours + 'output', haiku + 'linear_1', torch + 'output_proj'
  )
  haiku += '~/transformer/'
  torch += 'transformer.'
  yield WeightName(
      'norm',
      ours + 'layer_norm',
      haiku + make_haiku_name('layer_norm', 2 * num_layers),
      torch + 'ln_out',
  )
  for layer in range(num_layers):
    prefix = f'{ours}layer_{layer}/~/'
    block = f'{torch}layers.{layer}.'
    for i, part in enumerate(('up', 'down')):
      yield WeightName(
          'norm',
          f'{prefix}layer_norm_{i}',
          haiku + make_haiku_name('layer_norm', 2 * layer + i),
          f'{block}layer_norm{i + 1}',
      )
      yield WeightName(
          'linear',
          prefix + part,
          haiku + make_haiku_name('linear', 2 * layer + i),
          f'{block}dense.{2 * i}',
      )
    attention = haiku + make_haiku_name('multi_head_attention', layer)
    for part, theirs, published in (
        ('query', 'query', 'query'),
        ('key', 'key', 'key'),
        ('value', 'value', 'value'),
        ('output', 'linear', 'final'),
    ):
      yield WeightName(
          'linear',
          f'{prefix}attention/~/{part}',
          f'{attention}/{theirs}',
          f'{block}attn.{published}_proj',
      )


def _list_efficientnet_names(config: LocoTrackConfig) -> Iterator[WeightName]:
  """Lists the modules of the EfficientNet."""
  torch = 'efficientnet_feature_extractor.'
  root = 'locotrack/~/efficientnet/~/'
  if config.encoder == 'b0_projected':
    root = 'locotrack/~/projection/~/'
    for i in range(len(PROJECTED_CHANNELS)):
      yield WeightName(
          'conv2d_bias', f'{root}project_{i}', torch=f'{torch}proj_{i + 1}'
      )
    root += 'trunk/~/'
  yield from list_trunk_names(config.trunk, root, torch)


def list_trunk_names(
    trunk: Trunk, prefix: str, torch_prefix: str
) -> Iterator[WeightName]:
  """Lists the modules of an `EfficientNet`."""
  yield WeightName('conv2d', prefix + 'stem', torch=torch_prefix + '_conv_stem')
  yield WeightName(
      'running_norm', prefix + 'stem_norm', torch=torch_prefix + '_bn0'
  )
  layers: tuple[tuple[Kind, str, str], ...] = (
      ('conv2d', 'expand', '_expand_conv'),
      ('running_norm', 'expand_norm', '_bn0'),
      ('conv2d', 'depthwise', '_depthwise_conv'),
      ('running_norm', 'depthwise_norm', '_bn1'),
      ('conv2d_bias', 'squeeze', '_se_reduce'),
      ('conv2d_bias', 'excite', '_se_expand'),
      ('conv2d', 'project', '_project_conv'),
      ('running_norm', 'project_norm', '_bn2'),
  )
  for i, block in enumerate(list_blocks(trunk)):
    for kind, ours, torch in layers:
      if block.expansion != 1 or not ours.startswith('expand'):
        yield WeightName(
            kind,
            f'{prefix}block_{i}/~/{ours}',
            torch=f'{torch_prefix}_blocks.{i}.{torch}',
        )


def infer_config(
    config: LocoTrackConfig, shapes: Mapping[str, tuple[int, ...]]
) -> LocoTrackConfig:
  """Takes the settings in which the PyTorch and the JAX program differ.

  The JAX program approximates the GELU, and refines on every resolution.
  `shapes` are those of the file, under its own names.
  """
  if any(name.startswith('params|locotrack/') for name in shapes):
    return dataclasses.replace(config, gelu='tanh', refined_levels='every')
  return config
