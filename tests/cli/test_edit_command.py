"""`tapjax edit` as its users meet it."""

import numpy as np
import pytest

from tapjax import pretrained
from tapjax.media import video as video_files
from tests.cli.command_runs import refuse_to_load
from tests.cli.command_runs import write_picture


@pytest.mark.usefixtures('compile_once')
@pytest.mark.parametrize('edit', ['color', 'image', 'draw'])
def test_editing_lays_the_edit_on_its_frame(run, clip, weights, folder, edit):
  height, width = (48, 64) if edit == 'draw' else (5, 4)
  picture = np.zeros((height, width, 4), np.uint8)
  picture[...] = [10, 250, 10, 255]
  if edit == 'draw':
    inside = np.zeros((48, 64), bool)
    inside[12:36, 16:48] = True
    picture[~inside] = 0
  write_picture('edit.png', picture)
  chosen = {
      'color': ['--region=16,12,48,36', '--color=10,250,10'],
      'image': ['--region=16,12,48,12,48,36,16,36', '--image=edit.png'],
      'draw': ['--draw=edit.png', '--max_memory=1GB'],
  }[edit]
  answer = run(
      'edit',
      f'--video={clip}',
      f'--checkpoint={weights}',
      '--frame=2',
      '--num_points=40',
      '--output=new/edited.mp4',
      *chosen,
  )
  assert answer.status == 0, answer.err
  assert 'through 5 frames; wrote new/edited.mp4' in answer.out
  before, after = (video_files.read_video(p) for p in (clip, 'new/edited.mp4'))
  assert after.shape == before.shape
  change = np.abs(after[2].astype(float) - before[2]).mean(-1)
  assert change[:8].mean() < 30
  green = after[2, 18:30, 22:42].mean(axis=(0, 1))
  assert green[1] > 200
  assert green[0] < 60


@pytest.mark.parametrize(
    ('arguments', 'status', 'message'),
    [
        (['--color=1,2,3'], 2, '--region must say where'),
        (['--region=1,1,5,5'], 2, 'error: choose the edit by one of --image'),
        (['--region=1,1,5', '--color=1,2,3'], 2, 'two corners or more'),
        (['--region=1,1,5,5', '--color=1,2,300'], 2, 'RED,GREEN,BLUE'),
        (['--region=1,1,5,x', '--color=1,2,3'], 2, '--region must be numbers'),
        (['--region=90,1,99,5', '--color=1,2,3'], 1, 'holds none'),
        (['--region=1,1,5,5', '--image=no.png'], 1, 'no picture file'),
        (['--draw=small.png'], 1, 'must be 64x48 pixels'),
        (['--draw=text.png'], 1, 'not a readable picture'),
        (
            ['--region=1,1,5,5', '--color=1,2,3', '--output=a.avi'],
            1,
            'must end in .mp4',
        ),
    ],
    ids=str,
)
def test_edits_are_refused_before_the_work(
    run, clip, weights, folder, monkeypatch, arguments, status, message
):
  monkeypatch.setattr(pretrained, 'load', refuse_to_load)
  write_picture('small.png', np.zeros((4, 4, 4), np.uint8))
  (folder / 'text.png').write_text('no picture')
  answer = run('edit', f'--video={clip}', f'--checkpoint={weights}', *arguments)
  assert answer.status == status
  assert message in answer.err
  assert len(answer.err.splitlines()) == 1


@pytest.mark.usefixtures('compile_once')
def test_edits_of_frames_that_are_not_there(run, clip, weights, folder):
  answer = run(
      'edit',
      f'--video={clip}',
      f'--checkpoint={weights}',
      *('--region=1,1,5,5', '--color=1,2,3', '--frame=5'),
  )
  assert answer.status == 1
  assert '0 to 4; got 5' in answer.err
  assert not list(folder.iterdir())
