"""PIPs++ against stored outputs of the published implementation.

Stored positions count pixel centers as integers. Tolerances are those that the
reference data states, of float32 against float64.
"""

import json
import pathlib
from typing import Any, NamedTuple

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tapjax
from tapjax.geometry import normalize_frames
from tapjax.models import pips_plus_plus
from tapjax.models.base import make_stages

CELL = 8


class Case(NamedTuple):
  meta: dict[str, Any]
  frames: np.ndarray
  arrays: dict[str, np.ndarray]
  tracker: tapjax.Tracker


def load_case(reference, name, folder, **settings):
  path = reference / 'pips2' / f'golden_pips2_{name}.npz'
  with np.load(path) as file:
    arrays = dict(file)
  meta = json.loads(str(arrays.pop('meta')))
  with np.load(reference / 'clips.npz') as clips:
    frames = clips[meta['clip'].split()[0]][meta['frames']]
  if (crop := meta['settings'].get('crop')) is not None:
    top, left, height, width = crop
    frames = frames[:, top : top + height, left : left + width]
  checkpoint = golden.write_torch_checkpoint(
      reference / 'pips2' / meta['manifest'],
      meta['seed'],
      folder / 'model-000000001.pth',
      'model_state_dict',
  )
  tracker = tapjax.load(
      'pips_plus_plus',
      checkpoint=checkpoint,
      resolution=settings.pop('resolution', frames.shape[1:3]),
      num_iterations=meta['settings']['iters'],
      **settings,
  )
  return Case(meta, frames, arrays, tracker)


def move_queries(query_points):
  """Returns raster query points."""
  return query_points + np.asarray([0, 0.5, 0.5], np.float32)


def move_tracks(tracks):
  """Returns raster positions [n, t, 2] for [t, n, 2] of pixel centers."""
  return tracks.swapaxes(-3, -2) + np.float32(0.5)


FORWARD = (
    'forward8',
    'forward8_iters16',
    'forward12_beautify',
    'forward8_rect',
)


@pytest.mark.slow
@pytest.mark.parametrize('name', FORWARD)
def test_one_window(name, reference, tmp_path):
  """Every stage, the earliest first, through the five arrows."""
  case = load_case(reference, name, tmp_path)
  beautify = case.meta['settings']['beautify']
  if beautify:
    case = load_case(reference, name, tmp_path, late_step=0.5)
  expected, functions = case.arrays, case.tracker.functions
  params, config = case.tracker.params, case.tracker.config
  features = case.meta['tolerance']['features']
  pixels = case.meta['tolerance']['tracks_px']
  close = np.testing.assert_allclose
  video = normalize_frames(case.frames)[None]

