"""Published files of TAPTRv2."""

import dataclasses

import numpy as np
import pytest

import tapjax
from tapjax.models import registry
from tapjax.models.contract import describe_params
from tapjax.models.contract import flatten_params
from tapjax.models.taptr.functions import TaptrFunctions
from tapjax.models.taptr.weights import list_weight_names
from tapjax.models.weight_names import list_torch_sources
from tests.support import golden
from tests.support import narrow
from tests.support import weights

pytestmark = pytest.mark.slow


@pytest.mark.parametrize('section', ['ema_model', 'model'])
def test_published_layout_is_read(section, tmp_path):
  """Averaged weights, names of parallel training, and heads stored twice."""
  functions = TaptrFunctions(narrow.TAPTR)
  params = golden.make_random_params(functions)
  ours = flatten_params(params)
  arrays = {}
  for name, source in list_torch_sources(
      list_weight_names(narrow.TAPTR)
  ).items():
    array = np.asarray(ours[name])
    if source.axes is not None:
      array = array.transpose(np.argsort(source.axes))
    arrays[f'module.{source.name}'] = array
    if source.name.startswith(('bbox_embed', 'class_embed')):
      arrays[f'module.transformer.decoder.{source.name}'] = array + 1
  arrays['module.backbone.0.body.bn1.num_batches_tracked'] = np.asarray(3)
  path = golden.write_torch_arrays(tmp_path / 'own.pth', arrays, section)
  settings = dataclasses.asdict(narrow.TAPTR)
  tracker = tapjax.load('taptrv2', checkpoint=path, **settings)
  read = flatten_params(tracker.params)
  assert read.keys() == ours.keys()
  for name, array in ours.items():
    np.testing.assert_array_equal(read[name], array, err_msg=name)

  tracker.save(tmp_path / 'own.safetensors')
  again = tapjax.load(checkpoint=tmp_path / 'own.safetensors')
  assert again.config == narrow.TAPTR


def test_names_cover_the_manifest(reference):
  """Each array of the published file is used once, or is a copy."""
  manifest = weights.load_manifest(
      reference / 'taptr' / 'manifest_taptrv2.json'
  )
  preset = registry.get_preset('taptrv2')
  expected = flatten_params(describe_params(TaptrFunctions(preset.config)))
  sources = list_torch_sources(
      preset.architecture.list_weight_names(preset.config)
  )
  assert sources.keys() == expected.keys()
  published = {
      entry['name']: tuple(entry['shape'])
      for entry in manifest
      if 'alias_of' not in entry
  }
  selected = preset.architecture.select_arrays(
      {entry['name']: np.zeros(0) for entry in manifest}
  )
  assert selected.keys() == published.keys()
  for name, source in sources.items():
    shape = published.pop(source.name)
    axes = source.axes or range(len(shape))
    assert expected[name].shape == tuple(shape[axis] for axis in axes)
  assert not published
  assert preset.num_parameters == sum(
      np.prod(array.shape, dtype=int)
      for name, array in expected.items()
      if name.startswith('params|')
  )


def test_the_licence_is_in_the_notice():
  preset = registry.get_preset('taptrv2')
  assert preset.licence in preset.weights.notice
