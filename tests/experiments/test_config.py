import dataclasses
import pathlib

import pytest

from experiments.config import override_config
from experiments.config import read_config
from experiments.recipes.procedural import TrainConfig
from tapjax.data.point_odyssey.window_batches import PointDataConfig
from tapjax.data.point_odyssey.windows import WindowConfig
from tapjax.training.point_transformer import PointTrainingConfig

CONFIGS = pathlib.Path(__file__).parents[2] / 'experiments' / 'configs'


@pytest.fixture(scope='module')
def config():
  return TrainConfig('tapir_tiny')


def test_overrides_reach_any_depth(config):
  changed = override_config(
      config,
      [
          'step.optimizer.peak_lr=3e-4',
          'data.video.resolution=[64, 96]',
          'model.num_iterations=4',
          'initial=weights.safetensors',
          'seed=7',
          'seed=8',
      ],
  )
  assert changed.step.optimizer.peak_lr == 3e-4
  assert changed.data.video.resolution == (64, 96)
  assert changed.model.num_iterations == 4
  assert changed.initial == 'weights.safetensors'
  assert changed.seed == 8
  assert changed.loop == config.loop


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ('step.optimizer.peak_rl=1', 'did you mean peak_lr'),
        ('stepp.optimizer=1', 'did you mean step'),
        ('step.optimizer.peak_lr=fast', "peak_lr must be float; got 'fast'"),
        ('seed=1.5', 'seed must be int; got 1.5'),
        ('seed', 'must be a.b=value'),
        ('seed.deeper=1', "nothing called 'deeper'"),
        ('loop.save_every=0', 'save_every must be at least 1'),
    ],
)
def test_overrides_that_do_not_fit(config, change, message):
  with pytest.raises(ValueError, match=message) as caught:
    override_config(config, [change])
  assert change in str(caught.value)


def test_another_preset_brings_its_own_settings():
  config = read_config(str(CONFIGS / 'point_transformer_pointodyssey.py'))
  changed = override_config(
      config,
      [
          'model.dropout=0.2',
          'preset=point_transformer_resnet50',
          'model.window=12',
          'model.num_points=4',
          'model.resolution=(128, 160)',
          'data.scenes=("a", "b")',
          'backbone=None',
      ],
  )
  assert changed.model.backbone == 'bottleneck'
  assert changed.model.dropout == 0.1
  assert changed.windows == WindowConfig(12, 4, (128, 160), 20)
  assert changed.data.scenes == ('a', 'b')
  assert changed.backbone is None
  with pytest.raises(ValueError, match="got 'tapir'"):
    override_config(config, ['preset=tapir'])
  with pytest.raises(ValueError, match='did you mean tapnet'):
    override_config(TrainConfig('tapir_tiny'), ['preset=tapnett'])


def test_published_options_have_their_published_defaults():
  config = read_config(str(CONFIGS / 'point_transformer_pointodyssey.py'))
  assert config.preset == 'point_transformer_resnet18'
  assert config.backbone == 'imagenet'
  assert config.windows == WindowConfig(8, 8, (256, 256), 20)
  assert config.data == PointDataConfig(
      batch_size=4, num_workers=4, train_share=0.8
  )
  assert config.training == PointTrainingConfig(
      num_epochs=50, peak_lr=1e-4, max_norm=1.0, weight_decay=1e-4
  )
  assert config.loop.draw_every == 50


@pytest.mark.parametrize(
    'path', sorted(CONFIGS.glob('[!_]*.py')), ids=lambda path: path.stem
)
def test_configs_are_read(path):
  config = read_config(str(path))
  tracker, _, _ = config.preset.partition('_resnet')
  assert path.stem.startswith(tracker)
  assert dataclasses.is_dataclass(config.model)
  opening = path.read_text(encoding='utf-8')
  assert f'--config=experiments/configs/{path.name}' in opening


def test_files_that_are_no_config(tmp_path):
  with pytest.raises(FileNotFoundError, match='there is no'):
    read_config(str(tmp_path / 'absent.py'))
  (tmp_path / 'empty.py').write_text('')
  with pytest.raises(ValueError, match='must define get_config'):
    read_config(str(tmp_path / 'empty.py'))
  (tmp_path / 'other.py').write_text('def get_config():\n  return 3\n')
  with pytest.raises(ValueError, match='must return a TrainConfig; got 3'):
    read_config(str(tmp_path / 'other.py'))
