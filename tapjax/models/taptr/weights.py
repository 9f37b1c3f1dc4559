"""Names of TAPTRv2's arrays in published files."""

from collections.abc import Iterator
from collections.abc import Mapping

import numpy as np

from tapjax.models.taptr.config import TaptrConfig
from tapjax.models.weight_names import list_torchvision_names
from tapjax.models.weight_names import WeightName


def list_weight_names(config: TaptrConfig) -> Iterator[WeightName]:
  """Lists every module with its name in the published files."""
  ours = 'taptr/~/'
  yield WeightName('level_embeddings', 'taptr', torch='transformer')
  torch = 'backbone.0.body.'
  stages = [f'{torch}layer{i + 1}.' for i in range(config.num_levels)]
  yield from list_torchvision_names(
      f'{ours}backbone/~/',
      config.backbone,
      (f'{torch}conv1', f'{torch}bn1'),
      stages,
  )
  for i in range(config.num_levels):
    torch = f'input_proj.{i}.'
    yield WeightName('conv2d_bias', f'{ours}projection_{i}', torch=f'{torch}0')
    yield WeightName('norm', f'{ours}projection_norm_{i}', torch=f'{torch}1')
  yield WeightName(
      'linear',
      f'{ours}describer',
      torch='transformer.query_feature_initializer',
  )
  for i in range(config.encoder_layers):
    layer, torch = f'{ours}encoder_{i}/~/', f'transformer.encoder.layers.{i}.'
    for name, published in (
        ('offsets', 'sampling_offsets'),
        ('weights', 'attention_weights'),
        ('value', 'value_proj'),
        ('output', 'output_proj'),
    ):
      yield WeightName(
          'linear', layer + name, torch=f'{torch}self_attn.{published}'
      )
    for j in range(2):
      yield WeightName('norm', f'{layer}norm_{j}', torch=f'{torch}norm{j + 1}')
    yield from _list_mlp_names(
        layer + 'mlp', f'{torch}linear1', f'{torch}linear2'
    )

  torch = 'transformer.decoder.'
  yield from _list_mlp_names(
      f'{ours}embedder',
      *(f'{torch}ref_point_head.layers.{j}' for j in range(2)),
  )
  if config.decoder_layers > 1:
    yield from _list_mlp_names(
        f'{ours}updater', *(f'{torch}query_updater.{j}' for j in (0, 2))
    )
  yield from _list_mlp_names(
      f'{ours}fuser', *(f'{torch}ca_update_fuser.{j}' for j in (0, 2, 4))
  )
  yield from _list_mlp_names(
      f'{ours}window_updater',
      *(f'query_between_window_updater.{j}' for j in (0, 2)),
  )
  for i in range(config.decoder_layers):
    yield from _list_mlp_names(
        f'{ours}boxes_{i}', *(f'bbox_embed.{i}.layers.{j}' for j in range(3))
    )
    yield WeightName('linear', f'{ours}classes_{i}', torch=f'class_embed.{i}')
    yield from _list_decoder_names(
        f'{ours}decoder_{i}/~/', f'{torch}layers.{i}.'
    )


def _list_decoder_names(ours: str, torch: str) -> Iterator[WeightName]:
  """Lists the modules of a `DecoderLayer` below a module path."""
  for name, published in (
      ('offsets', 'sampling_offsets'),
      ('query', 'query_proj'),
      ('key', 'key_proj'),
      ('value', 'value_proj'),
      ('output', 'output_proj'),
  ):
    yield WeightName(
        'linear',
        f'{ours}frame_attention/~/{name}',
        torch=f'{torch}cross_attn.{published}',
    )
  for name, published in (
      ('time_attention', 'temp_self_attn'),
      ('point_attention', 'self_attn'),
  ):
    yield WeightName('attention', ours + name, torch=torch + published)
    yield WeightName(
        'linear', f'{ours}{name}/~/output', torch=f'{torch}{published}.out_proj'
    )
  for name, published in (
      ('frame_norm', 'norm1'),
      ('time_norm', 'norm_temp'),
      ('point_norm', 'norm2'),
      ('mlp_norm', 'norm3'),
  ):
    yield WeightName('norm', ours + name, torch=torch + published)
  yield from _list_mlp_names(
      ours + 'mover',
      f'{torch}caupdate_weight_normalizer.0',
      f'{torch}caupdate_weight_normalizer.2',
      f'{torch}caupdate_weight_regressor.0',
  )
  yield from _list_mlp_names(
      ours + 'embedder',
      *(f'{torch}update_pos_embed_head.layers.{j}' for j in range(2)),
  )
  yield from _list_mlp_names(ours + 'mlp', f'{torch}linear1', f'{torch}linear2')


def _list_mlp_names(ours: str, *layers: str) -> Iterator[WeightName]:
  for i, torch in enumerate(layers):
    yield WeightName('linear', f'{ours}/~/linear_{i}', torch=torch)


def select_arrays(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Returns the arrays of a published PyTorch file that are weights.

  Names lose what parallel training adds to them; the heads are stored once more
  as parts of the decoder, and only the first copy counts.
  """
  aliases = tuple(
      f'transformer.decoder.{head}_embed.' for head in ('bbox', 'class')
  )
  names = {name: name.replace('module.', '') for name in arrays}
  return {
      names[name]: array
      for name, array in arrays.items()
      if not names[name].startswith(aliases)
      and not names[name].endswith('.num_batches_tracked')
  }
