import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tapjax.models.weight_names import list_torch_sources
from tapjax.models.weight_names import list_torchvision_names
from tapjax.nn import torchvision_resnet
from tapjax.nn.torchvision_resnet import ResNetConfig
from tapjax.nn.torchvision_resnet import TorchvisionResNet
from tests.support import weights

RESNETS = {
    'resnet18': ResNetConfig((2, 2, 2, 2), 'basic', 'batch'),
    'resnet34': ResNetConfig((3, 4, 6, 3), 'basic', 'batch'),
    'resnet50': ResNetConfig((3, 4, 6, 3), 'bottleneck', 'batch'),
}


def make_resnet(config):
  return hk.transform_with_state(
      lambda images, **settings: TorchvisionResNet(config, 'resnet')(
          images, **settings
      )
  )


@pytest.mark.parametrize(
    ('name', 'num_parameters', 'gigaflops'),
    [
        # Torchvision's own numbers, without the classifier.
        ('resnet18', 11_176_512, 3.63),
        ('resnet34', 21_284_672, 7.34),
        ('resnet50', 23_508_032, 8.17),
    ],
)
def test_sizes_are_those_of_torchvision(name, num_parameters, gigaflops):
  config = RESNETS[name]
  image = jnp.zeros((1, 224, 224, 3))
  resnet = make_resnet(config)
  params, state = jax.eval_shape(resnet.init, jax.random.key(0), image)
  outputs, _ = jax.eval_shape(resnet.apply, params, state, None, image)
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == num_parameters
  assert [output.shape for output in outputs] == [
      (1, side, side, channels)
      for side, channels in zip(
          (56, 28, 14, 7), config.output_channels, strict=True
      )
  ]
  counted = torchvision_resnet.count_resnet(config, 224, 224)
  assert counted / 1e9 == pytest.approx(gigaflops, rel=0.01)


@pytest.mark.parametrize('name', RESNETS)
def test_names_are_those_of_torchvision(name, reference):
  """Parity of array names and shapes with published files."""

  config = RESNETS[name]
  resnet = make_resnet(config)
  params, state = jax.eval_shape(
      resnet.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3))
  )
  ours = {
      f'{collection}|{module}|{array}': leaf.shape
      for collection, modules in (('params', params), ('state', state))
      for module, arrays in modules.items()
      for array, leaf in arrays.items()
  }
  torch = 'feature_extractor.backbone.'
  sources = list_torch_sources(
      list_torchvision_names(
          'resnet/~/',
          config,
          (f'{torch}0', f'{torch}1'),
          [f'{torch}{i}.' for i in range(4, 8)],
      )
  )
  manifest = weights.load_manifest(
      reference / 'point_transformer' / f'manifest_{name}.json'
  )
  published = {
      entry['name']: tuple(entry['shape'])
      for entry in manifest
      if entry['name'].startswith(torch)
      and not entry['name'].endswith('num_batches_tracked')
  }
  assert sources.keys() == ours.keys()
  assert {source.name for source in sources.values()} == published.keys()
  for key, source in sources.items():
    shape = published[source.name]
    axes = source.axes or range(len(shape))
    assert ours[key] == tuple(shape[axis] for axis in axes)


def test_odd_sizes_are_rounded_up():
  resnet = make_resnet(ResNetConfig((1, 1), 'basic', 'frozen', channels=2))
  image = jnp.zeros((1, 33, 41, 3))
  params, state = jax.eval_shape(resnet.init, jax.random.key(0), image)
  outputs, _ = jax.eval_shape(resnet.apply, params, state, None, image)
  assert [output.shape[1:3] for output in outputs] == [(9, 11), (5, 6)]


@pytest.mark.slow
def test_both_sides_are_padded_alike():
  """A mirrored image of odd size has mirrored features."""
  config = ResNetConfig((1, 1), 'bottleneck', 'frozen', channels=2)
  resnet = make_resnet(config)
  image = jax.random.normal(jax.random.key(0), (1, 33, 33, 3))
  params, state = jax.jit(resnet.init)(jax.random.key(1), image)
  # Kernels that are mirrored themselves.
  params = jax.tree.map(lambda leaf: leaf + np.flip(leaf, 1), params)
  apply = jax.jit(lambda image: resnet.apply(params, state, None, image)[0])
  for plain, mirrored in zip(
      apply(image), apply(np.flip(image, 2)), strict=True
  ):
    atol = 1e-4 * float(jnp.max(jnp.abs(plain)))
    np.testing.assert_allclose(plain, np.flip(mirrored, 2), atol=atol)


def normalize(norm, x, **settings):
  transformed = hk.transform_with_state(lambda x: norm(x, **settings))
  params, state = jax.jit(transformed.init)(jax.random.key(0), x)
  # What is kept before the first batch.
  state = jax.tree.map(jnp.zeros_like, state)
  return jax.jit(transformed.apply)(params, state, None, x)


def test_batch_norm_learns_averages():
  x = np.random.default_rng(0).normal(3, 2, (2, 3, 4, 5)).astype(np.float32)

  def norm(x, **settings):
    return torchvision_resnet.BatchNorm(name='norm')(x, **settings)

  y, state = normalize(norm, jnp.asarray(x), is_training=True)
  np.testing.assert_allclose(np.mean(y, axis=(0, 1, 2)), 0, atol=1e-5)
  np.testing.assert_allclose(np.var(y, axis=(0, 1, 2)), 1, atol=1e-4)
  np.testing.assert_allclose(
      state['norm']['mean'], 0.1 * x.mean(axis=(0, 1, 2)), rtol=1e-4
  )
  np.testing.assert_allclose(
      state['norm']['variance'], 0.1 * x.var(axis=(0, 1, 2), ddof=1), rtol=1e-4
  )


def test_frozen_norm_learns_nothing():
  x = jnp.ones((1, 2, 2, 3))

  def norm(x, **settings):
    return torchvision_resnet.FrozenNorm(name='norm')(x, **settings)

  transformed = hk.transform_with_state(norm)
  params, state = transformed.init(jax.random.key(0), x)
  assert not params
  state['norm'] = {
      'mean': jnp.asarray([1.0, 0, 0]),
      'variance': jnp.asarray([1.0, 4, 1]),
      'scale': jnp.asarray([1.0, 1, 3]),
      'offset': jnp.asarray([0.5, 0, 0]),
  }
  y, _ = transformed.apply(params, state, None, x)
  np.testing.assert_allclose(y[0, 0, 0], [0.5, 0.5, 3], atol=1e-4)
