"""Reading the reference data: stand-in weights, clips and stored outputs."""

import json
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tapjax.models.contract import describe_params
from tapjax.models.contract import flatten_params
from tests.support import clips
from tests.support import torch_format
from tests.support import weights

# Reference outputs inside the repository; see the README there.
PUBLIC = pathlib.Path(__file__).parents[1] / 'golden'


class Case(NamedTuple):
  """One golden file: its settings, its frames and what must come out."""

  meta: dict[str, Any]
  frames: np.ndarray
  arrays: dict[str, np.ndarray]

  @property
  def resolution(self) -> tuple[int, int]:
    return self.frames.shape[1:3]


def load_public_case(name: str) -> Case:
  """Reads a file of `tests/golden`, whose clip is made again."""
  with np.load(PUBLIC / f'golden_{name}.npz') as file:
    arrays = dict(file)
  meta = json.loads(str(arrays.pop('meta')))
  clip = meta['clip']
  frames = clips.make_clip(
      clip['seed'], clip['num_frames'], clip['height'], clip['width']
  )
  assert clips.digest(frames) == clip['sha256']
  return Case(meta, frames, arrays)


def load_case(path: pathlib.Path) -> Case:
  with np.load(path) as file:
    arrays = dict(file)
  meta = json.loads(str(arrays.pop('meta')))
  with np.load(path.parents[1] / 'clips.npz') as clips:
    frames = clips[meta['clip']][meta['frames']]
  if (transform := meta.get('frame_transform')) is None:
    return Case(meta, frames, arrays)
  times = transform['upsample_nearest']
  frames = frames.repeat(times, axis=1).repeat(times, axis=2)
  if (crop := transform['crop_y0_y1_x0_x1']) is not None:
    top, bottom, left, right = crop
    frames = frames[:, top:bottom, left:right]
  return Case(meta, frames, arrays)


def make_random_params(functions, seed=0):
  """Random parameters, much faster than compiling `functions.init`."""
  generator = np.random.default_rng(seed)

  def fill(path, leaf):
    if not np.issubdtype(leaf.dtype, np.floating):
      return np.ones(leaf.shape, leaf.dtype)
    if path[-1].key in ('scale', 'variance', 'average', 'hidden'):
      return np.abs(generator.normal(1, 0.2, leaf.shape)).astype(leaf.dtype)
    if leaf.ndim <= 1:
      # Centered, so that features of different places differ.
      return generator.normal(0, 0.2, leaf.shape).astype(leaf.dtype)
    fan_in = np.prod(leaf.shape[:-1])
    return (generator.normal(size=leaf.shape) / fan_in**0.5).astype(leaf.dtype)

  shapes = describe_params(functions)
  return jax.tree_util.tree_map_with_path(
      lambda path, leaf: jnp.asarray(fill(path, leaf)), shapes
  )


def assert_equal_params(ours, theirs):
  """Compares the parameters of two trackers."""
  ours, theirs = (flatten_params(one.params) for one in (ours, theirs))
  assert ours.keys() == theirs.keys()
  for name, array in ours.items():
    np.testing.assert_array_equal(array, theirs[name], err_msg=name)


def write_torch_checkpoint(
    manifest: pathlib.Path, seed: int, path: pathlib.Path, section: str
) -> pathlib.Path:
  """Writes the stand-in weights of a manifest as a published `.pth`."""
  arrays = weights.fill(weights.load_manifest(manifest), seed)
  return write_torch_arrays(path, arrays, section)


def write_haiku_checkpoint(
    manifest: pathlib.Path, seed: int, path: pathlib.Path
) -> pathlib.Path:
  """Writes the stand-in weights of a manifest as a published `.npy`."""
  checkpoint = weights.haiku_checkpoint(weights.load_manifest(manifest), seed)
  np.save(path, checkpoint, allow_pickle=True)
  return path


def write_stand_in(
    reference: pathlib.Path, name: str, seed: int, folder: pathlib.Path
) -> pathlib.Path:
  """Writes the stand-in weights of a preset, as its weights are published."""
  family, _, variant = name.partition('_')
  if name == 'tapnet' or name.endswith('tapir'):
    manifest = reference / 'tapir' / f'manifest_{name}.json'
    return write_haiku_checkpoint(manifest, seed, folder / f'{name}.npy')
  path, section = {
      'locotrack': (f'locotrack/manifest_{variant}.json', 'state_dict'),
      'pips': ('pips2/manifest_pips2.json', 'model_state_dict'),
      'point': (
          f'point_transformer/manifest_{variant.rpartition("_")[2]}.json',
          'model_state_dict',
      ),
      'taptrv2': ('taptr/manifest_taptrv2.json', 'model'),
  }[family]
  return write_torch_checkpoint(
      reference / path, seed, folder / f'{name}.pth', section
  )


def write_torch_arrays(
    path: pathlib.Path, arrays: dict[str, np.ndarray], section: str
) -> pathlib.Path:
  """Writes what a training program saves: weights among other objects."""
  archive = torch_format.Archive()
  namespace = torch_format.Global('argparse', 'Namespace')
  root = {
      section: {name: archive.add(array) for name, array in arrays.items()},
      'args': torch_format.Call(namespace, (), {'lr': 1e-4}),
      'epoch': 3,
  }
  return archive.write(path, root)


class TaptrCase(NamedTuple):
  """A file of TAPTRv2: settings, frames, and what must come out.

  Positions there count pixel centers as integers, and the network's shares run
  from the center of the first pixel to that of the last.
  """

  meta: dict[str, Any]
  frames: np.ndarray
  expected: dict[str, np.ndarray]

  @property
  def sides(self) -> tuple[int, int]:
    """Of the clip and of the network."""
    return self.frames.shape[1], self.meta['settings']['network_size']

  @property
  def query_points(self) -> np.ndarray:
    """In raster pixels of the clip, which is scaled to the network's side."""
    clip, network = self.sides
    t, *yx = self.expected['query_points'].T
    yx = [(v / (clip - 1) * (network - 1) + 0.5) * clip / network for v in yx]
    return np.stack([t, *yx], axis=-1).astype(np.float32)

  def to_stored(self, positions: np.ndarray) -> np.ndarray:
    """Undoes the conversion for positions."""
    clip, network = self.sides
    return (positions * network / clip - 0.5) / (network - 1) * (clip - 1)


def load_taptr_case(reference: pathlib.Path, name: str) -> TaptrCase:
  with np.load(reference / 'taptr' / f'golden_taptrv2_{name}.npz') as file:
    expected = dict(file)
  meta = json.loads(str(expected.pop('meta')))
  with np.load(reference / 'clips.npz') as clips:
    frames = clips[meta['clip']][meta['frames']]
  if meta['crop'] is not None:
    top, bottom, left, right = meta['crop']
    frames = frames[:, top:bottom, left:right]
  return TaptrCase(meta, frames, expected)
