"""Embeddings of the cells of TAPTRv2."""

import numpy as np

from tapjax.models.taptr.network import embed_cells
from tapjax.models.taptr.network import make_black_frame
from tests.support import narrow


def test_rows_and_columns_have_halves_of_the_channels():
  cells = np.asarray(embed_cells((3, 4), 16)).reshape(3, 4, 16)
  rows, columns = cells[..., :8], cells[..., 8:]
  assert np.all(rows == rows[:, :1])
  assert np.all(columns == columns[:1])
  assert len(np.unique(cells.reshape(12, 16), axis=0)) == 12


def test_the_initial_frame_has_the_resolution():
  assert make_black_frame(narrow.TAPTR).shape == (32, 32, 3)
