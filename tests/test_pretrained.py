"""Loading by name: presets, their settings, and the names in their files."""

import pytest

import tapjax


def test_resolution_is_a_setting(tapnet_file):
  tracker = tapjax.load('tapnet', checkpoint=tapnet_file, resolution=(64, 128))
  assert tracker.functions.resolution == (64, 128)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'name': 'tapirr'}, 'did you mean tapir'),
        ({'name': 'TAPIR-Tiny'}, 'did you mean tapir_tiny'),
        ({'name': 'w/tapir.npy'}, "file of weights, pass checkpoint='w/tapir"),
        ({'resolution': (0, 4)}, r'resolution must be \(height, width\)'),
        ({'resolution': (64,)}, r'resolution must be \(height, width\)'),
        ({'resolution': (60, 64)}, 'multiples of 8'),
        ({'temperatur': 3.0}, 'did you mean temperature'),
        ({'channels': 3}, 'channels must be'),
    ],
    ids=str,
)
def test_bad_arguments(tapnet_file, arguments, message):
  if arguments and 'name' not in arguments:
    arguments = {'name': 'tapnet', 'checkpoint': tapnet_file, **arguments}
  with pytest.raises(ValueError, match=message):
    tapjax.load(**arguments)


def test_missing_checkpoint(tmp_path):
  with pytest.raises(FileNotFoundError, match=r'nothing\.npy'):
    tapjax.load('tapnet', checkpoint=tmp_path / 'nothing.npy')


def test_files_without_a_known_address_are_asked_for():
  with pytest.raises(ValueError, match='checkpoint must be given for loco'):
    tapjax.load('locotrack_efficientnet_b0')
  with pytest.raises(ValueError, match='no weights are published'):
    tapjax.load('point_transformer_resnet50')
