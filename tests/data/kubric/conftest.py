"""Small MOVi videos on disk."""

import pytest

from tests.support import movi_writer


@pytest.fixture(scope='module')
def records():
  return movi_writer.make_records(5)


@pytest.fixture(scope='module')
def movi(records, tmp_path_factory):
  root, name = tmp_path_factory.mktemp('movi'), movi_writer.NAME
  movi_writer.write_movi(root, name, 'train', records)
  return movi_writer.write_movi(root, name, 'validation', records[:2], 1)
