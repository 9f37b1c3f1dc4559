"""Point tracks of MOVi in plain loops over objects and frames.

Whole images are decoded first, and then every object and every frame is
handled by itself: slow, and written to be read beside the specification.
"""

import numpy as np


def rotate(q):
  w, x, y, z = np.asarray(q, float) / np.linalg.norm(q)
  return np.array(
      [
          [
              1 - 2 * y * y - 2 * z * z,
              2 * x * y - 2 * z * w,
              2 * x * z + 2 * y * w,
          ],
          [
              2 * x * y + 2 * z * w,
              1 - 2 * x * x - 2 * z * z,
              2 * y * z - 2 * x * w,
          ],
          [
              2 * x * z - 2 * y * w,
              2 * y * z + 2 * x * w,
              1 - 2 * x * x - 2 * y * y,
          ],
      ]
  )


def make_matrix(q, p):
  matrix = np.eye(4)
  matrix[:3, :3] = rotate(q)
  matrix[:3, 3] = p
  return matrix


def compute(record, crop, config, choices):
  """Returns queries, positions and occlusion, in pixels of the whole frame."""
  t, h, w = record.depth.shape
  low, high = (float(value) for value in record.depth_range)
  depth = low + record.depth.astype(float) * (high - low) / 65535
  normals = record.normals.astype(float) / 65535 * 2 - 1
  coordinates = record.object_coordinates.astype(float) / 65535 - 0.5
  segments = record.segmentations.astype(int)
  f = record.focal_length / record.sensor_width
  k = np.array([[f, 0, -0.5], [0, -f * h / w, -0.5], [0, 0, -1]])
  matrices = [
      make_matrix(record.camera_quaternions[i], record.camera_positions[i])
      for i in range(t)
  ]
  padded = np.pad(normals, ((0, 0), (1, 1), (1, 1), (0, 0)))
  rough = np.zeros((t, h, w), int)
  for dy in (0, 2):
    for dx in (0, 2):
      near = padded[:, dy : dy + h, dx : dx + w]
      rough += ((near - normals) ** 2).sum(-1) > 0.0025
  s = config.stride
  a, b, c = choices.start
  grid = np.stack(
      np.meshgrid(
          np.arange(a, t, s),
          np.arange(b + crop.top, crop.bottom, s),
          np.arange(c + crop.left, crop.right, s),
          indexing='ij',
      ),
      axis=-1,
  ).reshape(-1, 3)
  of_grid = segments[tuple(grid.T)]
  unit = np.array(
      [
          [x, y, z, 1]
          for x in (-0.5, 0.5)
          for y in (-0.5, 0.5)
          for z in (-0.5, 0.5)
      ]
  )
  queries, tracks, hidden = [], [], []
  for segment in range(config.most_segments):
    mine = grid[of_grid == segment][choices.chosen[segment]]
    if not len(mine):
      continue
    if segment == 0:
      mine = np.concatenate([mine[mine[:, 0] == i] for i in range(t)])
    worlds = []
    if segment == 0:
      world = []
      for frame, y, x in mine:
        ray = np.linalg.inv(k) @ [(x + 0.5) / w, (y + 0.5) / h, 1]
        ray *= depth[frame, y, x] / np.linalg.norm(ray)
        world.append((matrices[frame] @ [*ray, 1])[:3])
      worlds = [np.array(world)] * t
    else:
      local = coordinates[tuple(mine.T)]
      local = np.concatenate([local, np.ones((len(local), 1))], axis=1)
      for frame in range(t):
        box = record.boxes[segment - 1, frame].astype(float)
        box = np.concatenate([box, np.ones((8, 1))], axis=1)
        solution = np.linalg.lstsq(unit, box, rcond=None)[0]
        worlds.append((local @ solution)[:, :3])
    xy, occluded, aways = [], [], []
    for frame in range(t):
      x_world = worlds[frame]
      inverse = np.linalg.inv(matrices[frame])
      homogeneous = np.concatenate([x_world, np.ones((len(x_world), 1))], 1)
      projected = (k @ (homogeneous @ inverse.T)[:, :3].T).T
      place = projected[:, :2] / projected[:, 2:] * [w, h]
      offset = x_world - record.camera_positions[frame]
      distance = np.linalg.norm(offset, axis=1)
      base = np.floor(np.clip(place, -9e6, 9e6) - 0.5).astype(int)
      depths, same = [], []
      for dy in (0, 1):
        for dx in (0, 1):
          column = np.clip(base[:, 0] + dx, 0, w - 1)
          row = np.clip(base[:, 1] + dy, 0, h - 1)
          depths.append(depth[frame, row, column])
          same.append(segments[frame, row, column] == segment)
      out = projected[:, 2] < 0
      out |= np.max(depths, axis=0) < 0.99 * distance
      out |= ~np.any(same, axis=0)
      out |= (place[:, 1] < crop.top) | (place[:, 0] < crop.left)
      out |= (place[:, 1] > crop.bottom) | (place[:, 0] > crop.right)
      away = np.zeros(len(mine), bool)
      if segment:
        now = rotate(record.quaternions[segment - 1, frame])
        for i, (start, y, x) in enumerate(mine):
          then = rotate(record.quaternions[segment - 1, start])
          normal = now @ np.linalg.inv(then) @ normals[start, y, x]
          away[i] = normal @ offset[i] > 0
      xy.append(place)
      occluded.append(out)
      aways.append(away)
    aways = np.stack(aways, axis=1)
    trusted = rough[tuple(mine.T)] <= 2
    trusted &= ~aways[np.arange(len(mine)), mine[:, 0]]
    queries.append(np.add(mine, [0, 0.5, 0.5]))
    tracks.append(np.stack(xy, axis=1))
    hidden.append(np.stack(occluded, axis=1) | (aways & trusted[:, None]))
  return np.concatenate(queries), np.concatenate(tracks), np.concatenate(hidden)
