"""Speed of reading every data format that a config names."""

import pathlib
import re

import numpy as np
import pytest

from experiments.config import override_config
from experiments.config import read_config
from experiments.config import RunConfig
from experiments.tasks import finetune
from experiments.tasks import input_speed
from experiments.tasks import training
import tapjax
from tapjax.data.point_odyssey.files import PointAnnotations
from tapjax.data.point_odyssey.generated import SceneVideo
from tapjax.data.point_odyssey.generated import write_scene
from tapjax.data.procedural.stored_videos import write_stored_videos
from tapjax.data.procedural.videos import ProceduralConfig
from tests.support import movi_writer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures('quick_compilation'),
]

CONFIGS = pathlib.Path(training.__file__).parents[1] / 'configs'
SCENE = {
    'num_frames': 6,
    'resolution': (32, 32),
    'num_queries': 16,
    'num_objects': 1,
    'samples_per_pixel': 1,
    'texture_size': 16,
    'num_leaves': 2,
}
MOVI = 'panning_movi_e/32x32'


def write_scenes(root):
  """Noise that moves by a pixel a frame."""
  generator = np.random.default_rng(0)
  for name in ('one', 'two'):
    wide = generator.integers(0, 256, (40, 70, 3), np.uint8)
    positions = generator.uniform(4, 28, (1, 20, 2)).repeat(8, axis=0)
    positions[..., 0] += np.arange(8)[:, None]
    seen = np.ones((8, 20), bool)
    scene = SceneVideo(
        np.stack([wide[:, 10 - t : 66 - t] for t in range(8)]),
        np.ones((8, 40, 56), np.uint8),
        PointAnnotations(positions.astype(np.float32), seen, seen),
    )
    write_scene(root / name, scene)


def prepare(kind, root):
  """Writes data of a format and returns a config that reads it."""
  small = ('data.batch_size=2',)
  if kind == 'procedural':
    name = 'tapir_tiny_procedural'
    video = [f'data.video.{key}={value}' for key, value in SCENE.items()]
    small += (*video, 'data.num_queries=8', 'data.num_videos=2')
  elif kind == 'stored':
    name = 'tapir_tiny_stored'
    write_stored_videos(root, range(2), ProceduralConfig(**SCENE), seed=1)
    small += (
        f'data.folder={root}',
        'data.resolution=(24,24)',
        'data.num_frames=4',
        'data.num_points=4',
        'model.resolution=(24,24)',
    )
  elif kind == 'movi':
    name = 'tapir_kubric'
    movi_writer.write_movi(root, MOVI, 'train', movi_writer.make_records(3), 1)
    small += (
        f'data.root={root}',
        f'data.name={MOVI}',
        'data.resolution=(16,16)',
        'data.tracks.num_points=8',
        'data.tracks.stride=1',
    )
  elif kind == 'cotracker':
    name = 'taptrv2_kubric'
    movi_writer.write_cotracker(root, movi_writer.make_records(3))
    small += (
        f'data.root={root}',
        'data.resolution=(16,16)',
        'data.num_frames=5',
        'data.tracks.num_points=6',
        'model.resolution=(16,16)',
        'distractors.largest_side=4',
    )
  elif kind == 'clips':
    name = 'pips_plus_plus_pointodyssey'
    write_scenes(root)
    small += (
        f'data.root={root}',
        'data.clips.crop=(32,48)',
        'data.clips.num_frames=4',
        'data.clips.num_points=6',
        'data.clips.strides=(1,)',
        'data.augmentation=None',
    )
  else:
    name = 'point_transformer_pointodyssey'
    write_scenes(root)
    small += (f'data.root={root}', 'model.resolution=(32,32)')
  return override_config(read_config(str(CONFIGS / f'{name}.py')), small)


@pytest.mark.parametrize(
    'kind', ['procedural', 'stored', 'movi', 'cotracker', 'clips', 'windows']
)
def test_every_format_is_timed(kind, tmp_path, capsys):
  root = tmp_path / 'data'
  root.mkdir()
  input_speed.print_profile(prepare(kind, root), 2)
  check_output(capsys.readouterr().out, is_kubric=kind in ('movi', 'cotracker'))


def test_videos_without_truth_are_timed(tmp_path, capsys):
  frames = np.random.default_rng(0).integers(0, 256, (8, 48, 64, 3), np.uint8)
  for index in range(2):
    tapjax.write_video(tmp_path / f'{index}.mp4', frames, frame_rate=10)
  config = finetune.make_self_training_config('tapir_tiny', str(tmp_path))
  changes = (
      'data.batch_size=1',
      'data.num_frames=4',
      'data.num_queries=4',
      'data.resolution=(32,32)',
      'model.resolution=(32,32)',
  )
  input_speed.print_profile(override_config(config, changes), 1)
  check_output(capsys.readouterr().out, is_kubric=False)


def check_output(output, *, is_kubric):
  names = ['a batch, from beginning to end']
  if is_kubric:
    names = ['reading and decoding', 'tracks', 'resizing', *names]
  rows = re.findall(r'^(\S.+?)  +([\d.]+)$', output, re.M)
  assert [name.split(' and colors')[0] for name, _ in rows] == names
  assert all(float(time) > 0 for _, time in rows[-1:])
  assert re.search(r'^[\d.]+ examples a second, without reading', output, re.M)


def test_what_cannot_be_timed_is_told():
  with pytest.raises(ValueError, match='config must have a recipe'):
    input_speed.print_profile(RunConfig('tapir'), 1)
  with pytest.raises(ValueError, match='--examples must be at least 1'):
    input_speed.print_profile(RunConfig('tapir'), 0)
