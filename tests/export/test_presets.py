"""Every preset as a file of either format, with the numbers of JAX."""

import pytest

import tapjax
from tapjax import export
from tapjax.models import registry
from tests.support import golden

# What CI runs, beside the small networks of tests/cli/test_export.
CHEAP = {('tapnet', 'onnx'), ('tapir_tiny', 'stablehlo')}


def list_cases():
  """Presets, formats, and whether frames come one after the other."""
  for model in registry.list_models():
    for kind in ('onnx', 'stablehlo'):
      for step in (False, True)[: 1 + model.streams]:
        is_cheap = (model.name, kind) in CHEAP and not step
        yield pytest.param(
            model.name,
            kind,
            step,
            id=f'{model.name}-{kind}' + '-step' * step,
            marks=() if is_cheap else pytest.mark.heavy,
        )


def load(name, reference, folder):
  """A preset with stand-in weights, initialised where its frames are."""
  settings = {'resolution': (128, 128)}
  if hasattr(registry.get_preset(name).config, 'initial_resolution'):
    settings['initial_resolution'] = settings['resolution']
  if name == registry.DEFAULT:
    return tapjax.load(name, **settings)
  checkpoint = golden.write_stand_in(reference, name, 12, folder)
  return tapjax.load(name, checkpoint=checkpoint, **settings)


def count_queries(tracker):
  """Any number, where the tracker allows it."""
  return None if tracker.functions.queries_independent else 5


@pytest.mark.slow
@pytest.mark.parametrize(('name', 'kind', 'step'), tuple(list_cases()))
def test_files_compute_what_jax_does(name, kind, step, request, tmp_path):
  reference = None
  if name != registry.DEFAULT:
    reference = request.getfixturevalue('reference')
  tracker = load(name, reference, tmp_path)
  exported = export.export_tracker(
      tracker,
      tmp_path,
      format=kind,
      num_queries=5 if kind == 'onnx' or step else count_queries(tracker),
      num_frames=None if step else 8,
  )
  largest = {now.output: now for now in exported.differences}
  for output, difference in largest.items():
    assert difference.is_small, str(difference)
    assert difference.tolerance <= 1e-2, output
  assert {'positions', 'visible'} <= set(largest)
  size = 4 * registry.get_preset(name).num_parameters
  for path in exported.paths:
    # Weights are in it once, and nothing as large as what a video makes.
    assert path.stat().st_size < 1.2 * size + 3e6
    assert path.suffix == f'.{kind}'
    assert path.with_suffix('.json').exists()
