"""The point transformer against stored outputs of the published program.

Tolerances are those that the reference data states.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tapjax
from tapjax.geometry import normalize_frames
from tapjax.models.haiku import make_network
from tapjax.models.point_transformer.network import PointTransformer
from tapjax.models.point_transformer.windows import sample_points
from tapjax.tracking.options import Options
from tapjax.tracking.prepare import split_frames
from tapjax.tracking.programs import Programs
from tapjax.tracking.track import track
from tests.support import golden

FORWARD = (
    'resnet18_default',
    'resnet18_rectangular',
    'resnet34_default',
    'resnet50_default',
)


def load_case(reference, name):
  with np.load(reference / 'point_transformer' / f'golden_{name}.npz') as file:
    expected = dict(file)
  meta = json.loads(str(expected.pop('meta')))
  with np.load(reference / 'clips.npz') as clips:
    frames = clips[meta['clip']][np.asarray(meta['frames'])]
  if (crop := meta['settings']['crop_y0_x0_h_w']) is not None:
    top, left, height, width = crop
    frames = frames[..., top : top + height, left : left + width, :]
  return meta, frames, expected


def write_checkpoint(reference, meta, folder):
  """Writes a file of the training program, except for the optimizer."""
  return golden.write_torch_checkpoint(
      reference / 'point_transformer' / meta['manifest'],
      meta['seed'],
      folder / 'latest.pth',
      'model_state_dict',
  )


class Exposed(PointTransformer):
  """With what happens on the way."""

  def encode_stages(self, images):
    return self._backbone(images), self.encode(images)

  def transform_stages(self, samples, points):
    tokens = self.embed(samples, points)
    shape = tokens.shape
    x = tokens.reshape(len(tokens), -1, shape[-1])
    blocks = []
    for block in self._blocks:
      x, _ = block(x, None)
      blocks.append(x.reshape(shape))
    return tokens, blocks


@pytest.mark.slow
@pytest.mark.parametrize('name', FORWARD)
def test_forward(name, reference, tmp_path):
  """Through the public API, and every stage, the earliest first."""
  meta, frames, expected = load_case(reference, name)
  settings = {
      'resolution': frames.shape[1:3],
      'window': len(frames),
      'num_points': len(expected['query_points']),
  }
  # The arrays determine the preset.
  tracker = tapjax.load(
      checkpoint=write_checkpoint(reference, meta, tmp_path), **settings
  )
  assert tracker.name == f'point_transformer_{meta["variant"]}'
  params, config = tracker.params, tracker.config
  tolerance = meta['tolerance']
  close = np.testing.assert_allclose

  exposed = make_network(
      lambda: Exposed(config), ('encode_stages', 'transform_stages'), tuple
  ).apply
  colors = jnp.asarray(frames, jnp.float32) / 255
  stages, features = jax.jit(
      lambda *arguments: exposed('encode_stages', *arguments)
  )(params, colors)
  layers = {f'layer{i + 1}': stage for i, stage in enumerate(stages)}
  for key, value in {**layers, 'features': features}.items():
    step = max(1, value.shape[2] // 8)
    stored = expected[key]
    close(
        value[0, ::step, ::step, :8],
        stored,
        atol=tolerance['features_relative_to_max'] * np.abs(stored).max(),
        err_msg=key,
    )

  height, width = frames.shape[1:3]
  points = expected['query_points'][:, :0:-1] / np.float32([width, height])
  samples = sample_points(
      features, jnp.arange(len(frames)), jnp.asarray(points)
  )
  tokens, blocks = jax.jit(
      lambda *arguments: exposed('transform_stages', *arguments)
  )(params, samples[None], jnp.asarray(points)[None])
  atol = tolerance['tokens_and_blocks']
  close(tokens[0, ..., :32], expected['tokens_in'], atol=atol)
  for i, block in enumerate(blocks):
    close(block[0, ..., :16], expected[f'block{i}_out'], atol=atol)

  prediction = jax.jit(tracker.functions.predict_clips)(
      params, normalize_frames(frames)[None], jnp.asarray(points)[None]
  )
  close(
      prediction.positions_unit[0],
      expected['predicted_points'],
      atol=tolerance['predicted_points'],
  )
  atol = tolerance['attention']
  first = prediction.attention[0][0, 0]
  close(first, expected['attention_layer0_head0'], atol=atol)
  num_points = len(points)
  for ours, stored in zip(
      prediction.attention, expected['temporal_attention'], strict=True
  ):
    pairs = ours[0].reshape(
        -1, len(frames), num_points, len(frames), num_points
    )
    close(pairs.mean(axis=(2, 4)), stored, atol=atol)

  # Some points lie outside, which `track` does not take.
  prepared = tracker.prepare(split_frames(frames))
  tracks = track(
      tracker.functions,
      params,
      Programs(),
      prepared,
      expected['query_points'],
      Options(),
  )
  close(tracks.positions, expected['tracks'], atol=tolerance['tracks_px'])
  assert tracks.visible.all()
  assert tracks.occlusion_logits is None
  assert tracks.uncertainty_logits is None
