"""Query points: read from `--queries`, a `--grid` of them, or random ones."""

from absl import flags
from jaxtyping import Float
import numpy as np

from tapjax import geometry
from tapjax.cli import common_flags

DEFAULT_GRID = 16


def define_points(
    values: flags.FlagValues, *, queries: str, grid: str, num_points: str
) -> None:
  """Defines --queries, --grid, --num_points and --seed.

  The texts are help on the first three, which are mutually exclusive.
  """
  flags.DEFINE_string('queries', None, queries, flag_values=values)
  flags.DEFINE_integer('grid', None, grid, lower_bound=1, flag_values=values)
  common_flags.define_num_points(values, None, num_points)
  flags.DEFINE_integer(
      'seed', 0, 'Seed of random points.', lower_bound=0, flag_values=values
  )
  common_flags.allow_one(
      values,
      ['queries', 'grid', 'num_points'],
      'choose points by one of --queries, --grid and --num_points',
  )


def sample_points(
    values: flags.FlagValues, num_frames: int, size: geometry.Resolution
) -> Float[np.ndarray, 'n 3']:
  """Returns random points with --num_points, else a grid on frame 0."""
  if values.num_points is not None:
    generator = np.random.default_rng(values.seed)
    return geometry.sample_random_points(
        generator, num_frames, size, values.num_points
    )
  return geometry.sample_grid_points(size, values.grid or DEFAULT_GRID)
