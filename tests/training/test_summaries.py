from tapjax.training.summaries import Curves
from tapjax.training.summaries import read_curves


def test_a_resumed_run_goes_on_behind_its_snapshot(tmp_path):
  path = tmp_path / 'curves.csv'
  curves = Curves(path)
  for step in (1, 2, 3):
    curves.write_scalars(step, {'train/loss': 1 / step})
  with path.open('a') as file:
    file.write('1')  # A process that was killed.
  resumed = Curves(path, first_step=2)
  resumed.write_scalars(
      3, {'train/loss': 7.0, 'validation/score': float('nan')}
  )
  found = read_curves(path)
  assert found['train/loss'] == [(1, 1.0), (2, 0.5), (3, 7.0)]
  assert [step for step, _ in found['validation/score']] == [3]
  Curves(path)
  assert read_curves(path) == {}
