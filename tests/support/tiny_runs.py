"""Data and settings with which whole runs take seconds, and what they leave."""

import dataclasses
import pathlib
import pickle
import shlex
import struct

from absl import flags
from absl.testing import flagsaver
import numpy as np

import experiments
from experiments import config as configs
from experiments.recipes.kubric import KubricTrainConfig
from experiments.recipes.matching import MatchingTrainConfig
from experiments.recipes.pips_clips import PipsTrainConfig
from experiments.recipes.point_windows import PointTrainConfig
from experiments.recipes.procedural import TrainConfig
from experiments.recipes.self_training import SelfTrainConfig
from experiments.recipes.taptr_videos import TaptrTrainConfig
from tapjax.data.kubric.batches import KubricConfig
from tapjax.data.point_odyssey.files import PointAnnotations
from tapjax.data.point_odyssey.generated import SceneVideo
from tapjax.data.point_odyssey.generated import write_scene
from tapjax.data.procedural.pool import PoolConfig
from tapjax.data.procedural.stored_videos import StoredConfig
from tapjax.data.procedural.stored_videos import write_stored_videos
from tapjax.data.unlabeled.clips import UnlabeledConfig
from tapjax.media import video as video_files
from tapjax.models import tapnet
from tapjax.models.locotrack.config import LocoTrackConfig
from tapjax.models.pips_plus_plus.config import PipsPlusPlusConfig
from tapjax.models.point_transformer.config import PointTransformerConfig
from tapjax.models.tapir.config import TapirConfig
from tapjax.models.tapir_tiny.config import TapirTinyConfig
from tapjax.models.taptr.config import TaptrConfig
from tests.support import movi_writer
from tests.support import narrow

ROOT = pathlib.Path(experiments.__file__).parents[1]
CONFIGS = sorted((ROOT / 'experiments' / 'configs').glob('[!_]*.py'))
MOVI = 'panning_movi_e/32x32'
_SIDE = (16, 16)

_TAPIR = (
    f'model.resolution={_SIDE}',
    'model.channels=(4,4,4,4)',
    'model.num_iterations=1',
    'model.mixer_blocks=1',
    'model.mixer_channels=8',
)
# Settings of the networks, by the class of their configs.
_MODELS = {
    tapnet.TapNetConfig: (
        f'model.resolution={_SIDE}',
        'model.channels=(8,8,8)',
    ),
    TapirConfig: (*_TAPIR, f'model.initial_resolution={_SIDE}'),
    TapirTinyConfig: _TAPIR,
    LocoTrackConfig: ('model.resolution=(32,32)', *narrow.LOCOTRACK),
    PipsPlusPlusConfig: (
        'model.resolution=(32,48)',
        'model.channels=(4,4,4,4)',
        'model.fused_channels=4',
        'model.feature_channels=4',
        'model.levels=1',
        'model.radius=1',
        'model.frequencies=2',
        'model.block_channels=(4,)',
        'model.num_iterations=1',
        'model.window=8',
    ),
    PointTransformerConfig: (
        f'model.resolution={_SIDE}',
        'model.backbone_blocks=(1,)',
        'model.backbone_channels=4',
        'model.channels=8',
        'model.num_blocks=1',
        'model.num_heads=2',
        'model.window=3',
        'model.num_points=2',
    ),
    TaptrConfig: (
        f'model.resolution={_SIDE}',
        'model.backbone_blocks=(1,1)',
        'model.backbone_channels=8',
        'model.channels=32',
        'model.hidden_channels=32',
        'model.num_heads=2',
        'model.num_samples=2',
        'model.num_groups=4',
        'model.encoder_layers=1',
        'model.decoder_layers=1',
        'model.window=4',
    ),
}
SCENE = (
    'num_frames=4',
    'num_objects=2',
    'samples_per_pixel=1',
    'texture_size=8',
    'num_leaves=2',
    'num_queries=4',
)
_LOOP = ('loop.report_every=1', 'loop.evaluate_every=1', 'loop.save_every=1')
_VALIDATION = (
    'validation.num_videos=1',
    *(f'validation.video.{setting}' for setting in SCENE),
    f'validation.video.resolution={_SIDE}',
)
_POOL = (
    'data.batch_size=1',
    'data.num_videos=1',
    'data.num_queries=4',
    *(f'data.video.{setting}' for setting in SCENE),
)
_KUBRIC = (
    'data.batch_size=1',
    'data.num_frames=4',
    'data.tracks.num_points=4',
    'data.tracks.stride=1',
    'data.num_workers=1',
)
_STORED = ('data.batch_size=1', 'data.num_frames=3', 'data.num_points=4')
# Settings of everything else, by the class of configs.
_RUNS = {
    TrainConfig: (
        *_VALIDATION,
        *_LOOP,
        'step.optimizer.num_steps=2',
        'step.optimizer.warmup_steps=1',
    ),
    MatchingTrainConfig: (
        *_VALIDATION,
        *_LOOP,
        'matching.optimizer.num_steps=2',
        'matching.optimizer.warmup_steps=1',
    ),
    KubricTrainConfig: (
        f'data.name={MOVI}',
        'num_validation=1',
        'step.optimizer.num_steps=2',
        'step.optimizer.warmup_steps=1',
        *_LOOP,
    ),
    SelfTrainConfig: (
        'data.batch_size=1',
        'data.num_frames=4',
        'data.num_queries=4',
        'data.num_workers=1',
        'labeled_batch=1',
        *(f'labeled.{setting}' for setting in SCENE),
        f'labeled.resolution={_SIDE}',
        'held_out=1',
        'training.optimizer.num_steps=2',
        'training.optimizer.warmup_steps=1',
        *_LOOP,
    ),
    PipsTrainConfig: (
        'data.clips.crop=(32,48)',
        'data.clips.num_frames=4',
        'data.clips.num_points=6',
        'data.clips.strides=(1,)',
        'data.augmentation.resize=(40,56)',
        'data.augmentation.largest_padding=2',
        'data.augmentation.smallest_scale=0.9',
        'data.batch_size=1',
        'data.num_workers=1',
        'data.num_validation=1',
        'training.num_steps=2',
        *_LOOP,
    ),
    # Two batches an epoch, after which come a score and a snapshot.
    PointTrainConfig: (
        'backbone=None',
        'data.batch_size=3',
        'data.num_workers=1',
        'training.num_epochs=2',
        'loop.draw_every=1',
    ),
    TaptrTrainConfig: (
        'backbone=None',
        *_VALIDATION,
        'training.num_steps=2',
        *_LOOP,
    ),
}


def list_settings(config):
  """Returns what makes a config tiny; KeyError for a kind that is not known."""
  model = list(_MODELS[type(config.model)])
  if getattr(config.model, 'num_extra_convs', 0):
    model.append('model.num_extra_convs=1')
  settings = [*model, *_RUNS[type(config)]]
  small = configs.override_config(config, model).model.resolution
  side = f'({small[0]},{small[1]})'
  match config.data:
    case PoolConfig():
      settings += (*_POOL, f'data.video.resolution={side}')
    case StoredConfig():
      settings += (*_STORED, f'data.resolution={side}')
    case KubricConfig():
      settings += (*_KUBRIC, f'data.resolution={side}')
    case UnlabeledConfig():
      settings.append(f'data.resolution={side}')
  return settings


def list_commands(path):
  """Returns the arguments of each command that a config's docstring gives."""
  opening = path.read_text(encoding='utf-8').split('"""')[1]
  lines = opening.replace('\\\n', ' ').splitlines()
  start = 'python -m experiments.run '
  return [
      shlex.split(line.removeprefix(start))
      for line in lines
      if line.startswith(start)
  ]


def call(*arguments):
  """Runs a task in this process, and returns its exit status or message."""
  from experiments import run

  with flagsaver.flagsaver():
    flags.FLAGS(['run', *arguments])
    try:
      run.main(['run'])
    except SystemExit as error:
      return error.code
    finally:
      flags.FLAGS.unparse_flags()
  return 0


def write_inputs(folder):
  """Writes data under the names that commands of docstrings have for it."""
  records = movi_writer.make_records(2)
  movi_writer.write_movi(folder / 'KUBRIC', MOVI, 'train', records, 1)
  movi_writer.write_movi(folder / 'KUBRIC', MOVI, 'validation', records[:1], 1)
  movi_writer.write_cotracker(folder / 'KUBRIC_MOVIF', records)
  write_scenes(folder / 'POINT_ODYSSEY' / 'train')
  write_videos(folder / 'FOLDER')
  write_davis(folder / 'tapvid_davis.pkl')
  return folder


def write_stored(folder):
  scene = dataclasses.replace(narrow.SCENE, num_frames=4, num_queries=4)
  write_stored_videos(folder, range(2), scene, seed=1)


def write_scenes(split):
  """Two scenes of noise that moves by a pixel a frame, as PointOdyssey has."""
  split.mkdir(parents=True)
  for index in range(2):
    generator = np.random.default_rng(index)
    wide = generator.integers(0, 256, (40, 70, 3), np.uint8)
    positions = generator.uniform(4, 28, (1, 20, 2)).repeat(7, axis=0)
    positions[..., 0] += np.arange(7)[:, None]
    seen = np.ones((7, 20), bool)
    scene = SceneVideo(
        np.stack([wide[:, 10 - t : 66 - t] for t in range(7)]),
        np.ones((7, 40, 56), np.uint8),
        PointAnnotations(positions.astype(np.float32), seen, seen),
    )
    write_scene(split / f'scene_{index}', scene)


def write_videos(folder, count=2):
  folder.mkdir()
  generator = np.random.default_rng(0)
  for index in range(count):
    frames = generator.integers(0, 256, (5, 32, 32, 3), np.uint8)
    video_files.write_video(folder / f'{index}.mp4', frames, frame_rate=10)


def write_davis(path):
  """Two short videos as TAP-Vid-DAVIS has them, positions from 0 to 1."""
  generator = np.random.default_rng(0)
  videos = {
      name: {
          'video': generator.integers(0, 256, (4, 32, 32, 3), np.uint8),
          'points': generator.uniform(0.1, 0.9, (3, 4, 2)).astype(np.float32),
          'occluded': np.zeros((3, 4), bool),
      }
      for name in ('one', 'two')
  }
  path.write_bytes(pickle.dumps(videos))


def read_events(folder):
  """Returns {tag: steps} of TensorBoard's files, which are framed records."""
  from tensorboardX.proto import event_pb2

  tags = {}
  for path in sorted(p for p in folder.iterdir() if p.is_file()):
    content = path.read_bytes()
    while content:
      (size,) = struct.unpack('<Q', content[:8])
      event = event_pb2.Event.FromString(content[12 : 12 + size])
      content = content[16 + size :]
      for value in event.summary.value:
        kind = value.WhichOneof('value')
        tags.setdefault((kind, value.tag), []).append(event.step)
  return tags
