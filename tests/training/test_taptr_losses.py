import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tapjax import checkpoints
from tapjax.geometry import normalize_frames
from tapjax.models.arrows import get_query_frames
from tapjax.models.contract import describe_params
from tapjax.models.contract import flatten_params
from tapjax.models.contract import unflatten_params
from tapjax.models.taptr import weights as taptr_weights
from tapjax.models.taptr.config import TAPTRV2
from tapjax.models.taptr.functions import TaptrFunctions
from tapjax.models.taptr.network import LayerOutputs
from tapjax.models.weight_names import list_torch_sources
from tapjax.training.taptr_losses import compute_taptr_losses
from tapjax.training.taptr_losses import TaptrLossConfig
from tests.support import golden
from tests.support import weights

pytestmark = pytest.mark.slow

CONFIG = TaptrLossConfig()


def make_outputs(shares, logits):
  """Outputs of one layer that has not moved anything since attention did."""
  shares = jnp.asarray(shares, jnp.float32)
  sizes = jnp.full_like(shares, 0.5)
  boxes = jnp.concatenate([shares, sizes], axis=-1)[None]
  logits = jnp.asarray(logits, jnp.float32)[None]
  return LayerOutputs(jnp.log(boxes / (1 - boxes)), boxes, logits)


def test_losses_by_hand():
  """One point, three frames; the first is the query's, the last is outside."""
  shares = [[[0.9, 0.9]], [[0.5, 0.25]], [[0.5, 0.5]]]
  logits = [[[9.0, -9, 9]], [[0.0, 0, 0]], [[-100.0, -100, 0]]]
  targets = jnp.asarray([[[0.1, 0.1]], [[0.25, 0.5]], [[0.5, 1.5]]])
  occluded = jnp.asarray([[False], [False], [True]])
  losses = compute_taptr_losses(
      make_outputs(shares, logits), jnp.zeros(1, int), targets, occluded, CONFIG
  )
  np.testing.assert_allclose(losses.position, [0.5 / 2], rtol=1e-5)
  np.testing.assert_allclose(losses.moved, [0.5 / 2], rtol=1e-5)
  half = 0.25 * np.log(2)
  focal = half * (0.25 + 0.75 + 0.75) + half * 0.25
  np.testing.assert_allclose(losses.visibility, focal / 3, rtol=1e-5)
  np.testing.assert_allclose(
      losses.sum(CONFIG), 5 * (0.25 + 0.25) + focal / 3, rtol=1e-5
  )


def test_what_precedes_the_query_moves_nothing():
  targets = jnp.full((3, 1, 2), 0.5)
  occluded = jnp.zeros((3, 1), bool)
  outputs = make_outputs(np.full((3, 1, 2), 0.25), np.zeros((3, 1, 3)))

  def compute(targets):
    return compute_taptr_losses(
        outputs, jnp.ones(1, int), targets, occluded, CONFIG
    )

  jax.tree.map(
      np.testing.assert_array_equal,
      compute(targets),
      compute(targets.at[:2].add(0.2)),
  )


@pytest.mark.heavy
@pytest.mark.slow
def test_training_equals_the_published(reference):
  """Outputs, losses and gradients of a step without dropout."""
  case = golden.load_taptr_case(reference, 'loss')
  expected = case.expected
  side = case.sides[1]
  manifest = weights.load_manifest(reference / case.meta['manifest'])
  config = dataclasses.replace(TAPTRV2, resolution=(side, side))
  functions = TaptrFunctions(config)
  shapes = flatten_params(describe_params(functions))
  sources = list_torch_sources(taptr_weights.list_weight_names(config))
  arrays = checkpoints.convert_arrays(
      taptr_weights.select_arrays(weights.fill(manifest, case.meta['seed'])),
      sources,
      {name: leaf.shape for name, leaf in shapes.items()},
      origin='the manifest',
  )
  params = jax.tree.map(jnp.asarray, unflatten_params(arrays))
  video = normalize_frames(case.frames)[None]
  points = jnp.asarray(case.query_points)[None]
  targets = jnp.asarray(
      expected['target_points'] / (case.sides[0] - 1), jnp.float32
  )
  occluded = jnp.asarray(expected['occluded'])

  def compute(weights):
    trained = params._replace(params=weights)
    features = functions.encode_video(trained, video)
    queries = functions.describe_queries(trained, features, points)
    outputs = functions.predict_layers(trained, features, queries)
    outputs = jax.tree.map(lambda array: array[0], outputs)
    losses = compute_taptr_losses(
        outputs,
        get_query_frames(points[0], video.shape[1]),
        targets.swapaxes(0, 1),
        occluded.T,
        CONFIG,
    )
    return losses.sum(CONFIG), (losses, outputs)

  (total, (losses, outputs)), gradients = jax.jit(
      jax.value_and_grad(compute, has_aux=True)
  )(params.params)

  close = np.testing.assert_allclose
  boxes = jax.nn.sigmoid(outputs.boxes[-1]).swapaxes(0, 1)
  close(boxes, expected['boxes'], atol=2e-6)
  close(outputs.moved[-1].swapaxes(0, 1), expected['boxes_apu'], atol=2e-6)
  logits = outputs.classes[-1].swapaxes(0, 1)
  close(logits, expected['vis_logits'], atol=5e-5)
  stored = dict(zip(case.meta['loss_names'], expected['losses'], strict=True))
  for name, ours in (('ca_loss', losses.moved), ('loss', losses.position)):
    inner = [stored[f'pt_full_{name}_bbox_{i}'] for i in range(4)]
    close(ours, [*inner, stored[f'pt_full_{name}_bbox']], rtol=1e-5)
  close(losses.visibility, stored['pt_full_loss_ce'], rtol=1e-5)
  close(total, expected['total'], rtol=1e-5)

  names = {source.name: name for name, source in sources.items()}
  by_name = {
      f'params|{module}|{name}': leaf
      for module, leaves in gradients.items()
      for name, leaf in leaves.items()
  }
  norms = [
      np.linalg.norm(by_name[names[name]]) for name in case.meta['grad_names']
  ]
  close(norms, expected['grad_norms'], rtol=1e-3)
  close(optax.tree.norm(gradients), expected['grad_norm_total'], rtol=1e-3)
  last = by_name[names['bbox_embed.4.layers.2.weight']].T
  close(last, expected['grad_bbox4'], rtol=1e-3, atol=1e-5)
  first = by_name[names['backbone.0.body.conv1.weight']]
  first = first.transpose(3, 2, 0, 1)[::8]
  scale = np.abs(expected['grad_conv1']).max()
  close(first, expected['grad_conv1'], atol=1e-3 * scale)
