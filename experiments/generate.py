"""Writes videos of known tracks in PointOdyssey's format, without a download.

They are procedural: enough to try a recipe that reads PointOdyssey. An
interrupted run goes on where it was.
"""

import pathlib

from absl import flags
from tqdm import tqdm

from experiments.config import override_config
from tapjax.data.point_odyssey_scenes import write_procedural_scenes
from tapjax.data.procedural import ProceduralConfig

_NUM_SCENES = flags.DEFINE_integer(
    'num_scenes', 16, 'Scenes to write, for --task=generate.', lower_bound=1
)
_SEED = flags.DEFINE_integer('scene_seed', 0, 'What the scenes are drawn from.')


def run(workdir: str, changes: list[str]) -> None:
  """Writes scenes into a folder, with changes of `ProceduralConfig`."""
  config = override_config(ProceduralConfig(), changes)
  num_scenes = _NUM_SCENES.value
  with tqdm(total=num_scenes, unit='scene') as bar:
    write_procedural_scenes(
        pathlib.Path(workdir),
        num_scenes,
        config,
        _SEED.value,
        report=lambda done: bar.update(done - bar.n),
    )
