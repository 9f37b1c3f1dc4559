"""`tapjax track-objects` as its users meet it."""

import csv
import os
import re

import pytest

from tapjax import pretrained
from tapjax.media import video as video_files
from tests.cli.command_runs import refuse_to_load


@pytest.mark.usefixtures('folder')
def test_following_objects_writes_everything(run, clip, weights):
  answer = run(
      'track-objects',
      f'--video={clip}',
      f'--checkpoint={weights}',
      '--box=10,10,40,30',
      '--box=30,20,60,44',
      '--set=min_visible_share=0',
      '--set=max_points=4',
  )
  assert answer.status == 0, answer.err
  assert answer.out == (
      'tapnet: 2 objects in 5 frames; wrote objects.csv, objects.txt, '
      'objects.mp4 to objects_clip\n'
  )
  names = ['objects.csv', 'objects.mp4', 'objects.txt']
  assert sorted(os.listdir('objects_clip')) == names
  with open('objects_clip/objects.csv', newline='') as file:
    rows = list(csv.DictReader(file))
  assert [float(rows[0][side]) for side in ('left', 'bottom')] == [10, 30]
  with video_files.open_video('objects_clip/objects.mp4') as reader:
    assert reader.info == (48, 64, 12.5, 5)
  assert re.search(r'track: 100%\|[^|]*\| 5/5', answer.err)
  # What was found can be what is looked for.
  answer = run(
      'track-objects',
      f'--video={clip}',
      f'--checkpoint={weights}',
      '--detections=objects_clip/objects.txt',
      '--output=again',
  )
  assert answer.status == 0, answer.err
  assert sorted(os.listdir('again')) == names


@pytest.mark.parametrize(
    ('arguments', 'status', 'message'),
    [
        (['--box=1,1,5,5'], 2, '--video must name the video'),
        (['--video=CLIP', '--box=1,1,5'], 2, 'LEFT,TOP,RIGHT,BOTTOM'),
        (['--video=CLIP', '--box=1,1,99,5'], 2, 'inside of the video, 64x48'),
        (['--video=CLIP', '--box=1,1,x,5'], 2, '--box must be numbers'),
        (
            ['--video=CLIP', '--box=1,1,5,5', '--detections=a.txt'],
            2,
            'one of --detections and --box',
        ),
        (['--video=CLIP', '--set=window'], 2, '--set must be NAME=VALUE'),
        (['--video=CLIP', '--set=windw=3'], 1, 'did you mean window'),
        (['--video=CLIP', '--set=window=x'], 1, 'window must be int'),
        (['--video=CLIP', '--detections=no.txt'], 1, 'there is no file no.txt'),
        (['--video=no.mp4'], 1, 'no.mp4'),
    ],
    ids=str,
)
def test_objects_are_refused_before_the_work(
    run, clip, folder, monkeypatch, arguments, status, message
):
  monkeypatch.setattr(pretrained, 'load', refuse_to_load)
  arguments = [text.replace('CLIP', str(clip)) for text in arguments]
  answer = run('track-objects', *arguments)
  assert answer.status == status
  assert message in answer.err
  assert len(answer.err.splitlines()) == 1
  assert not list(folder.iterdir())


def test_boxes_of_frames_that_are_not_there(run, clip, weights, folder):
  answer = run(
      'track-objects',
      f'--video={clip}',
      f'--checkpoint={weights}',
      '--box=1,1,9,9',
      '--frame=5',
  )
  assert answer.status == 1
  assert '--frame must be one of the 5 frames, 0 to 4; got 5' in answer.err
  assert not list(folder.iterdir())


@pytest.mark.usefixtures('folder')
def test_windows_beyond_a_budget_are_refused(run, clip, weights):
  answer = run(
      'track-objects',
      f'--video={clip}',
      f'--checkpoint={weights}',
      '--box=5,5,30,30',
      '--max_memory=60MB',
  )
  answer.check_refusal(
      1, 'for windows of 32 frames and 16 objects; got 60 MB - .*window=16'
  )
