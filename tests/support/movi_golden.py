"""The stored record of MOVi, and the settings of its cases."""

import json

import numpy as np

from tapjax.data.kubric.movi import MoviRecord
from tapjax.data.kubric.query_choices import CropWindow
from tapjax.data.kubric.query_choices import MoviChoices
from tapjax.data.kubric.query_choices import MoviTrackConfig

CASES = ('nocrop', 'crop', 'snap', 'vflip', 'pad')


def load_stored(reference):
  with np.load(reference / 'tapvid' / 'golden_kubric.npz') as file:
    return dict(file)


def make_record(stored):
  def get(name):
    return stored[f'record/{name}']

  return MoviRecord(
      video=get('video'),
      depth=get('depth')[..., 0],
      depth_range=get('metadata/depth_range'),
      segmentations=get('segmentations')[..., 0],
      normals=get('normal'),
      object_coordinates=get('object_coordinates'),
      boxes=get('instances/bboxes_3d'),
      quaternions=get('instances/quaternions'),
      camera_positions=get('camera/positions'),
      camera_quaternions=get('camera/quaternions'),
      focal_length=float(get('camera/focal_length')),
      sensor_width=float(get('camera/sensor_width')),
  )


def read_settings(stored, case):
  return json.loads(str(stored[f'{case}/settings']))


def make_case(stored, case):
  """Returns crop, config and choices of a case."""
  settings = read_settings(stored, case)
  height, width = stored['record/video'].shape[1:3]
  crop = CropWindow(*(settings['window'] or (0, 0, height, width)))
  config = MoviTrackConfig(
      num_points=settings['tracks_to_sample'],
      stride=settings['sampling_stride'],
      most_segments=settings['max_seg_id'],
      largest_share=settings['max_sampled_frac'],
      snap_to_occluder=settings.get('snap_to_occluder', False),
      as_published=True,
  )
  chosen = [
      stored.get(f'{case}/random/choice/{k}', np.zeros(0, np.int64))
      for k in range(config.most_segments)
  ]
  choices = MoviChoices(
      tuple(stored[f'{case}/random/start'].tolist()),
      chosen,
      stored.get(f'{case}/random/snap_perturb'),
      stored.get(f'{case}/random/snap_uniform'),
  )
  return crop, config, choices
