"""Every task of `experiments.run` as its flags list them, small but whole."""

import pathlib
import re
from typing import NamedTuple

from absl import flags
import pytest

from experiments import run
from experiments.config import read_config
from experiments.tasks import benchmark
from experiments.tasks import finetune
from experiments.tasks import overhead
from tests.support import tiny_runs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures('one_device', 'kept_programs'),
]
FOLDER = tiny_runs.ROOT / 'experiments' / 'configs'


class Task(NamedTuple):
  """Flags besides --task, what is printed, and what is written."""

  arguments: tuple[str, ...]
  printed: str = ''
  files: tuple[str, ...] = ()
  workdir: str = '{workdir}'


def set_all(*settings):
  return tuple(f'--set={setting}' for setting in settings)


def shrink(name):
  path = FOLDER / f'{name}.py'
  settings = tiny_runs.list_settings(read_config(str(path)))
  return (f'--config={path}', *set_all(*settings))


TRAIN = shrink('tapir_tiny_procedural')
FINETUNE = set_all(
    *tiny_runs.list_settings(
        finetune.make_self_training_config('tapir_tiny', '')
    )
)
TINY = ('--model=tapir_tiny', '--checkpoint={trained}/best.safetensors')
DAVIS = ('--benchmark=davis_first', '--data={inputs}/tapvid_davis.pkl')
RESULTS = 'davis_first/tapir_tiny/results.json'
TASKS = {
    'benchmark': Task(
        (
            '--model=tapnet',
            '--frames=2',
            '--queries=1',
            '--calls=1',
            '--resolution=32,32',
        ),
        'points x frames',
    ),
    'cycle': Task(
        (*TINY, '--videos={inputs}/FOLDER', '--length=4'), 'tapir_tiny  .*0.mp4'
    ),
    'evaluate': Task((*TINY, *DAVIS), 'davis_first', ('{workdir}/' + RESULTS,)),
    'export_clips': Task(
        set_all(
            'root={inputs}/POINT_ODYSSEY/train',
            'clips.crop=(32,48)',
            'clips.num_frames=4',
            'clips.num_points=6',
            'clips.strides=(1,)',
            'augmentation=None',
            'num_processes=1',
            'num_clips=2',
        ),
        'written',
        ('{workdir}/ae_4_6_32x48',),
    ),
    'finetune': Task(
        ('--videos={inputs}/FOLDER', '--frozen=*resnet*', *TINY, *FINETUNE),
        'came_back',
        ('{workdir}/latest.safetensors', '{workdir}/best.safetensors'),
    ),
    'follow': Task(
        (*DAVIS, '--poll_seconds=0.1'),
        '',
        ('{trained}/evaluations/2/' + RESULTS, '{trained}/summaries/follow'),
        '{trained}',
    ),
    'generate': Task(
        (
            '--num_scenes=1',
            *set_all(*tiny_runs.SCENE, 'resolution=(16,16)'),
        ),
        '',
        ('{workdir}/scene_000/anno.npz', '{workdir}/scene_000/rgbs'),
    ),
    'input': Task(
        (
            *shrink('tapnet_kubric'),
            '--set=data.root={inputs}/KUBRIC',
            '--examples=2',
        ),
        'examples a second and core',
    ),
    'overhead': Task(
        ('--model=tapnet', '--resolution=32,32'), 'tapnet +1 +[1-9]'
    ),
    'release': Task(
        ('--output={workdir}/small.safetensors',),
        '',
        ('{workdir}/small.safetensors',),
        '{trained}',
    ),
    'report': Task(('--latex',), 'davis_first', (), '{evaluated}'),
    'train': Task(
        (*TRAIN, *DAVIS),
        'average_jaccard',
        ('{workdir}/final.npy', '{workdir}/evaluations/2/' + RESULTS),
    ),
}


@pytest.fixture(scope='module')
def places(inputs, one_device, kept_programs, tmp_path_factory):
  """Folders of data, of a run of training, and of an evaluation."""
  trained, evaluated = (
      tmp_path_factory.mktemp(name) for name in ('trained', 'evaluated')
  )
  found = {'inputs': inputs, 'trained': trained, 'evaluated': evaluated}
  command = ['--task=train', f'--workdir={trained}', *TRAIN]
  assert tiny_runs.call(*command) == 0
  command = ['--task=evaluate', f'--workdir={evaluated}', *TINY, *DAVIS]
  assert tiny_runs.call(*(part.format(**found) for part in command)) == 0
  return found


def list_tasks():
  return flags.FLAGS['task'].parser.enum_values


@pytest.mark.parametrize('name', list_tasks())
def test_a_task_does_all_of_it(name, places, tmp_path, capfd, monkeypatch):
  monkeypatch.setattr(benchmark, '_PRODUCTS', 1)
  monkeypatch.setattr(overhead, '_SHAPES', ((3, 2),))
  monkeypatch.setattr(overhead, '_CALLS', 1)
  task = TASKS[name]
  places = {**places, 'workdir': tmp_path}
  arguments = [f'--task={name}', *task.arguments]
  if name not in run._WITHOUT_FOLDER:
    arguments.append(f'--workdir={task.workdir}')
  arguments = [argument.format(**places) for argument in arguments]
  capfd.readouterr()
  assert tiny_runs.call(*arguments) == 0
  printed = capfd.readouterr()
  # Bars and what stands above them go to one stream, results to the other.
  assert re.search(task.printed, printed.out + printed.err)
  for file in task.files:
    assert pathlib.Path(file.format(**places)).exists(), file


def test_tasks_are_all_there():
  assert sorted(TASKS) == sorted(list_tasks())
