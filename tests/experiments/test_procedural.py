"""Input of recipes that learn from procedural videos."""

import jax
import pytest

from experiments.recipes import procedural
from tapjax import parallel
from tapjax.data.procedural.stored_videos import StoredConfig
from tests.support.narrow import SCENE


def test_videos_made_on_the_way_are_named():
  text = procedural.describe_input(SCENE)
  assert text == 'procedural videos, made on the way'


def test_stored_videos_are_counted_and_have_the_resolution(
    tmp_path, monkeypatch
):
  monkeypatch.setattr(procedural, 'list_stored_videos', lambda _: [1] * 1200)
  data = StoredConfig(folder=str(tmp_path), resolution=(16, 16))
  text = procedural.describe_input(data)
  assert text == f'1,200 stored videos in {tmp_path}'
  mesh = parallel.make_mesh(jax.devices()[:1])
  with pytest.raises(ValueError, match='must be the same'):
    procedural.make_input(data, (32, 16), 0, mesh)
