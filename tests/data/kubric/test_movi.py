"""Geometry of MOVi records."""

import numpy as np

from tapjax.data.kubric import movi
from tests.support import movi_writer


def make_camera(num_frames=3):
  generator = np.random.default_rng(0)
  return movi.MoviCamera(
      movi.compute_rotations(generator.normal(size=(num_frames, 4))),
      generator.normal(size=(num_frames, 3)),
      (1.2, 0.9),
  )


def test_rotations_keep_lengths_and_orientation():
  quaternions = np.random.default_rng(1).normal(size=(5, 4))
  rotations = movi.compute_rotations(quaternions)
  np.testing.assert_allclose(
      np.einsum('nab,ncb->nac', rotations, rotations),
      np.broadcast_to(np.eye(3), (5, 3, 3)),
      atol=1e-12,
  )
  np.testing.assert_allclose(np.linalg.det(rotations), 1)
  half = np.sqrt(0.5)
  turn = movi.compute_rotations(np.asarray([half, 0, 0, half]))
  np.testing.assert_allclose(turn @ [1.0, 0, 0], [0, 1, 0], atol=1e-12)


def test_projection_undoes_unprojection():
  camera = make_camera()
  generator = np.random.default_rng(2)
  places = generator.uniform(size=(6, 2))
  frames = np.arange(6) % 3
  points = camera.unproject(frames, places, generator.uniform(2, 9, 6))
  seen, depths = camera.project(np.repeat(points[:, None], 3, axis=1))
  rows = np.arange(6)
  np.testing.assert_allclose(seen[rows, frames], places, atol=1e-9)
  assert (depths[rows, frames] > 0).all()


def test_distances_are_from_the_center():
  camera = make_camera()
  frames, distances = np.arange(3), np.asarray([2.0, 5.0, 7.0])
  points = camera.unproject(frames, np.full((3, 2), 0.2), distances)
  away = np.linalg.norm(points - camera.positions, axis=-1)
  np.testing.assert_allclose(away, distances)


def test_encodings_span_their_ranges():
  ends = np.asarray([0, 65535], np.uint16)
  depth = movi.decode_depth(ends, np.asarray([1.5, 4.0]))
  np.testing.assert_allclose(depth, [1.5, 4.0])
  three = np.repeat(ends[:, None], 3, axis=1)
  np.testing.assert_allclose(movi.decode_normals(three)[:, 0], [-1, 1])
  corners = movi.decode_object_coordinates(three)
  np.testing.assert_allclose(corners[:, 0], [-0.5, 0.5])


def test_the_first_frames_of_a_record():
  (record,) = movi_writer.make_records(1)
  fewer = record.take_frames(2)
  assert len(fewer.video) == fewer.boxes.shape[1] == 2
  np.testing.assert_array_equal(fewer.depth, record.depth[:2])
  assert fewer.focal_length == record.focal_length
