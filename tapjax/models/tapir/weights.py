"""Names of TAPIR's modules in the published files."""

from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses
from typing import Any

from tapjax.models.tapir.config import TapirConfig
from tapjax.models.tapir.correlation import count_cells
from tapjax.models.tapir.network import STATE_CHANNELS
from tapjax.models.weight_names import Kind
from tapjax.models.weight_names import list_cost_volume_names
from tapjax.models.weight_names import list_resnet_names
from tapjax.models.weight_names import make_haiku_name
from tapjax.models.weight_names import WeightName


def list_weight_names(config: TapirConfig) -> Iterator[WeightName]:
  """Lists every module with its name in the published files."""
  yield from list_resnet_names(
      'tapir/~/resnet/~/', 'resnet_torch.', len(config.channels)
  )

  for layer in range(config.num_extra_convs):
    ours, haiku = 'tapir/~/extra_convs/~/', 'tapir/~/extra_convs/'
    torch = f'extra_convs.blocks.{layer}.'
    yield WeightName(
        'norm',
        f'{ours}layer_norm_{layer}',
        haiku + make_haiku_name('layer_norm', layer),
        torch + 'layer_norm',
    )
    for i, role in enumerate(('expand', 'reduce')):
      yield WeightName(
          'conv2d_bias',
          f'{ours}{role}_{layer}',
          haiku + make_haiku_name('conv2_d', 2 * layer + i),
          torch + make_haiku_name('conv', i),
      )

  yield from list_cost_volume_names(
      'tapir/~/', 'conv2d_bias', 'torch_cost_volume_track_mods.'
  )

  ours, haiku = 'tapir/~/mixer/~/', 'tapir/~/pips_mlp_mixer/'
  torch = 'torch_pips_mixer.'
  yield WeightName('linear', ours + 'input', haiku + 'linear', torch + 'linear')
  yield WeightName(
      'scale', ours + 'layer_norm', haiku + 'layer_norm', torch + 'layer_norm'
  )
  yield WeightName(
      'linear', ours + 'output', haiku + 'linear_1', torch + 'linear_1'
  )
  layers: tuple[tuple[Kind, str, str, str], ...] = (
      ('scale', 'time_layer_norm', '', 'layer_norm'),
      ('conv1d', 'time_expand', '', 'mlp1_up'),
      ('conv1d', 'time_reduce', '', 'mlp1_up_1'),
      ('scale', 'channel_layer_norm', '', 'layer_norm_1'),
      ('linear', 'channel_up', 'conv_channels_mixer.', 'mlp2_up'),
      ('linear', 'channel_down', 'conv_channels_mixer.', 'mlp2_down'),
  )
  for i in range(config.mixer_blocks):
    for kind, name, prefix, published in layers:
      yield WeightName(
          kind,
          f'{ours}block_{i}/~/{name}',
          f'{haiku}{make_haiku_name("block", i)}/{published}',
          f'{torch}blocks.{i}.{prefix}{published}',
      )


def infer_config(
    config: TapirConfig, shapes: Mapping[str, tuple[int, ...]]
) -> TapirConfig:
  """Takes the number of pooled levels of a causal network from its file.

  Published programs disagree about it there, and the width of the mixer's input
  decides. `shapes` are those of the file, under its own names.
  """
  if config.temporal != 'past':
    return config
  patches = count_patches(config, shapes)
  if patches is None or patches < 2:
    return config
  return dataclasses.replace(config, pooled_levels=patches - 2)


def count_patches(
    config: TapirConfig, shapes: Mapping[str, tuple[int, ...]]
) -> int | None:
  """Returns the patches that the mixer of a file reads; None if unknown."""
  rows = None
  if (
      shape := shapes.get('params|tapir/~/pips_mlp_mixer/linear|w')
  ) is not None:
    rows = shape[0]
  elif (shape := shapes.get('torch_pips_mixer.linear.weight')) is not None:
    rows = shape[-1]
  if rows is None:
    return None
  patches, remainder = divmod(
      rows - STATE_CHANNELS - sum(config.feature_channels),
      count_cells(config.radius),
  )
  return None if remainder else patches


# Settings that files of TAPIR networks had when `tapir_tiny` was one of them,
# with the values of all others.
_FORMER_SETTINGS = {
    'support_radius': 0,
    'stem_support_radius': 0,
    'logits_stride': 2,
    'position_weight': 0.0,
    'template_weight': 0.0,
    'template_rate': 0.5,
    'lone_template_weight': 0.0,
    'motion_weight': 0.0,
    'motion_reach': 4.0,
    'frames_at_once': 1,
}


def upgrade_settings(stored: Mapping[str, Any]) -> dict[str, Any]:
  """Returns settings of a file, without former ones that are neutral.

  Raises ValueError for a network that only `tapir_tiny` can have now.
  """
  settings = dict(stored)
  for name, neutral in _FORMER_SETTINGS.items():
    value = settings.pop(name, neutral)
    if value != neutral and name not in (
        'template_rate',
        'motion_reach',
        'frames_at_once',
    ):
      raise ValueError(
          f'{name} must be {neutral} for a TAPIR network; the file has {value} '
          '- load it as tapir_tiny, which has this setting'
      )
  return settings
