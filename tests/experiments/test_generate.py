"""Shares of the work of writing scenes."""

from absl import flags
from absl.testing import flagsaver
import pytest

import experiments.run  # noqa: F401 - defines the flags.
from experiments.tasks import generate


@pytest.fixture(autouse=True)
def parsed_flags():
  with flagsaver.flagsaver():
    flags.FLAGS(['run', '--task=generate'])
    yield
  flags.FLAGS.unparse_flags()


def test_processes_share_stored_videos(tmp_path, monkeypatch):
  written = []

  def write(folder, numbers, config, seed, progress):
    assert config.num_frames == 5
    written.extend(numbers)

  monkeypatch.setattr(generate, 'write_stored_videos', write)
  for process in range(3):
    with flagsaver.flagsaver(
        scene_format='stored', num_scenes=7, num_processes=3, process=process
    ):
      generate.run(str(tmp_path), ['num_frames=5'])
  assert sorted(written) == list(range(7))


def test_scenes_are_written_by_default(tmp_path, monkeypatch):
  calls = []
  monkeypatch.setattr(
      generate,
      'write_procedural_scenes',
      lambda *given, progress: calls.append(given),
  )
  with flagsaver.flagsaver(num_scenes=2, scene_seed=4):
    generate.run(str(tmp_path), [])
  ((folder, number, config, seed),) = calls
  assert (folder, number, seed) == (tmp_path, 2, 4)
  assert config == generate.ProceduralConfig()
