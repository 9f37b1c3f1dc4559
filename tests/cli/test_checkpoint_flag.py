"""Weight files that `--checkpoint` must not accept."""

import os
import pickle

import numpy as np
import pytest


class _Attack:
  """Content of a hostile file: a call of the shell."""

  def __reduce__(self):
    return os.system, ('touch mark',)


def write_attack(path):
  attack = np.empty((), object)
  attack[()] = {'params': _Attack(), 'state': {}}
  np.save(path, attack, allow_pickle=True)
  assert b'touch mark' in pickle.dumps(attack)


@pytest.mark.parametrize(
    ('name', 'write', 'message'),
    [
        ('none.npy', lambda p, w: None, r'no checkpoint none\.npy'),
        ('cut.st', lambda p, w: p.write_bytes(w[:999]), r'cut\.st .*truncated'),
        ('empty.npy', lambda p, w: p.touch(), r'empty\.npy is empty'),
        ('words.npy', lambda p, w: p.write_text('words'), 'unknown format'),
        ('attack.npy', lambda p, w: write_attack(p), r'attack\.npy: params'),
        ('folder', lambda p, w: p.mkdir(), 'is a folder'),
    ],
)
@pytest.mark.parametrize('command', ['track', 'convert'])
def test_checkpoints_are_refused(
    run, clip, weights, folder, command, name, write, message
):
  write(folder / name, weights.read_bytes())
  before = os.listdir()
  rest = {
      'track': [f'--video={clip}', '--output=new/results'],
      'convert': ['--output=new.npy'],
  }
  answer = run(command, f'--checkpoint={name}', *rest[command])
  answer.check_refusal(1, message)
  assert answer.err.count('\n') == 1
  assert os.listdir() == before
