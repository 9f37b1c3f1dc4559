"""ONNX files; `tests/cli/test_export.py` runs them."""

import importlib.util
import logging

import pytest

from tapjax.export import onnx_files


@pytest.mark.parametrize('missing', ['jax2onnx', 'onnxruntime'])
def test_missing_packages_are_named(missing, monkeypatch):
  monkeypatch.setattr(
      importlib.util, 'find_spec', lambda name: None if name == missing else 1
  )
  with pytest.raises(ValueError, match=f'needs the package {missing}'):
    onnx_files.check_installed()


def test_installed_packages_are_enough(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: name)
  onnx_files.check_installed()


def test_the_converter_logs_again_afterwards():
  logger = logging.getLogger('onnx_ir')
  before = logger.level
  with onnx_files._silence_converter():
    assert not logger.isEnabledFor(logging.WARNING)
  assert logger.level == before
