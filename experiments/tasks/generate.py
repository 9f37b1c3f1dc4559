"""Writes labeled procedural videos, without downloads.

Videos in PointOdyssey's format suffice to try its recipes; 'stored' ones are
training data of `tapir_tiny`. An interrupted run resumes, and several processes
can divide stored videos among them.
"""

import pathlib

from absl import flags
from tqdm import tqdm

from experiments.config import override_config
from experiments.tasks import evaluate
from tapjax.data.point_odyssey.generated import write_procedural_scenes
from tapjax.data.procedural.stored_videos import write_stored_videos
from tapjax.data.procedural.videos import ProceduralConfig

_NUM_SCENES = flags.DEFINE_integer(
    'num_scenes', 16, 'Scenes to write, for --task=generate.', lower_bound=1
)
_SEED = flags.DEFINE_integer('scene_seed', 0, 'What the scenes are drawn from.')
_FORMAT = flags.DEFINE_enum(
    'scene_format',
    'point_odyssey',
    ['point_odyssey', 'stored'],
    'How --task=generate writes scenes.',
)


def run(workdir: str, changes: list[str]) -> None:
  """Writes scenes into a folder, with overrides of `ProceduralConfig`."""
  config = override_config(ProceduralConfig(), changes)
  folder = pathlib.Path(workdir)
  num_scenes = _NUM_SCENES.value
  if _FORMAT.value == 'stored':
    numbers = range(
        evaluate.PROCESS.value or 0,
        num_scenes,
        evaluate.NUM_PROCESSES.value or 1,
    )
    with tqdm(total=len(numbers), unit='video') as bar:
      write_stored_videos(folder, numbers, config, _SEED.value, bar.update)
    return
  with tqdm(total=num_scenes, unit='scene') as bar:
    write_procedural_scenes(
        folder,
        num_scenes,
        config,
        _SEED.value,
        progress=lambda done: bar.update(done - bar.n),
    )
