"""Snapshots of training states on disk."""

import resource

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tapjax.models.contract import Params
from tapjax.training.snapshots import SnapshotError
from tapjax.training.snapshots import Snapshots
from tests.training.test_loop import assert_equal
from tests.training.test_loop import list_steps
from tests.training.test_loop import make_state
from tests.training.test_loop import Run


def test_full_disk_leaves_the_last_snapshot_as_it_was(tmp_path):
  snapshots = Snapshots(tmp_path)
  state = make_state(40_000)._replace(num_updates=jnp.int32(1))
  snapshots.save(1, state)
  snapshots.wait()
  noise = jax.random.normal(jax.random.key(0), (40_000,))
  weights = {'net/~/layer': {'w': noise}}
  _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
  try:
    snapshots.save(2, state._replace(params=Params(weights, {})))
    with pytest.raises(SnapshotError, match='is the disk full') as caught:
      snapshots.wait()
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
  assert 'last good one is of step 1' in str(caught.value)
  again = Snapshots(tmp_path)
  assert_equal(again.restore(make_state(40_000)), state)


def test_damaged_snapshot_is_named_and_the_one_before_intact(tmp_path):
  run = Run(tmp_path)
  run.go(make_state(), 6)
  run.snapshots.close()
  before, last = list_steps(tmp_path)[-2:]
  for path in (tmp_path / str(last) / 'default').rglob('*'):
    if path.is_file():
      path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  with pytest.raises(SnapshotError, match=f'snapshot .*{last} cannot be read'):
    Snapshots(tmp_path).restore(make_state())
  for path in sorted((tmp_path / str(last)).rglob('*'), reverse=True):
    path.unlink() if path.is_file() else path.rmdir()
  (tmp_path / str(last)).rmdir()
  restored = Snapshots(tmp_path).restore(make_state())
  assert int(restored.num_updates) == before


def test_snapshot_of_another_network(tmp_path):
  snapshots = Snapshots(tmp_path)
  snapshots.save(1, make_state(3))
  snapshots.wait()
  with pytest.raises(SnapshotError, match='if the network was changed'):
    Snapshots(tmp_path).restore(make_state(4))


def test_empty_folder_has_nothing_to_resume(tmp_path):
  snapshots = Snapshots(tmp_path)
  assert snapshots.restore(make_state()) is None
  assert snapshots.best_score == -np.inf
