"""Files of tracked objects."""

import csv

import numpy as np
import pytest

from tapjax import objects
from tests.support.object_tracks import make_tracks


def test_files_hold_what_was_found(tmp_path):
  found = make_tracks()
  objects.write_mot(tmp_path / 'o.txt', found)
  lines = (tmp_path / 'o.txt').read_text().splitlines()
  assert lines[0] == '1,1,2.00,3.00,10.00,20.00,0.500,-1,-1,-1'
  assert len(lines) == 4
  read = objects.read_mot(tmp_path / 'o.txt')
  assert read.keys() == {0, 1, 2}
  assert read[1].ids.tolist() == [1, 12]
  np.testing.assert_allclose(read[1].boxes, found.boxes[:, 1])
  objects.write_table(tmp_path / 'o.csv', found)
  with (tmp_path / 'o.csv').open(newline='') as file:
    rows = list(csv.DictReader(file))
  assert [(row['frame'], row['object']) for row in rows] == [
      ('0', '1'),
      ('1', '1'),
      ('1', '12'),
      ('2', '12'),
  ]
  assert rows[2]['right'] == '35.50'
  assert [row['detected'] for row in rows] == ['0', '1', '1', '0']
  assert rows[0]['label'] == 'cat'


@pytest.mark.parametrize(
    'text',
    ['1,2,3', '0,1,1,1,5,5', '1,1,1,1,0,5', 'a,b,c,d,e,f', '1,1,1,1,nan,5'],
)
def test_text_that_is_none_of_the_mot_challenge(tmp_path, text):
  path = tmp_path / 'o.txt'
  path.write_text(f'1,-1,5,5,5,5,0.5\n{text}\n')
  with pytest.raises(ValueError, match=r'o\.txt must have frame,.* line 2 is'):
    objects.read_mot(path)
