"""Batches from a pool of procedural videos, each used several times.

On a CPU, rendering a video takes about as long as training on it, so a pool of
videos is rendered, drawn from several times and then replaced. Drawn examples
differ in their queries, and are flipped, transposed and reversed in time. On an
accelerator rendering is fast: a pool of one batch, used once, is best there.

Batches depend on the key, the step and the number of devices alone, so that a
resumed run draws the same batches as an uninterrupted one.
"""

from collections.abc import Callable
import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array
from jaxtyping import Float

from tapjax import parallel
from tapjax.data.procedural.scenes import ProceduralConfig
from tapjax.data.procedural.textures import Key
from tapjax.data.procedural.videos import make_example
from tapjax.ops.loops import map_frames
from tapjax.types import Example


@dataclasses.dataclass(frozen=True)
class PoolConfig:
  """Settings of a pool; numbers are over all devices.

  Attributes:
    video: settings of the videos.
    batch_size: examples per batch.
    num_videos: size of the pool, a multiple of `batch_size`.
    num_uses: average number of draws of a video before the pool is replaced.
    num_queries: number of queries drawn from those of a video.
  """

  video: ProceduralConfig = dataclasses.field(default_factory=ProceduralConfig)
  batch_size: int = 8
  num_videos: int = 8
  num_uses: int = 1
  num_queries: int = 128


def make_draw(
    key: Key, config: PoolConfig, mesh: Mesh
) -> Callable[[int], Example]:
  """Returns a function from a step to its batch, sharded over the mesh.

  The function holds the latest pool, and is fast for steps in order. Raises
  ValueError for inconsistent settings.
  """
  num_devices = mesh.size
  _check_config(config, num_devices)
  steps_per_pool = config.num_uses * config.num_videos // config.batch_size
  video_key, draw_key = jax.random.split(key)

  def make_shard(key: Key) -> Example:
    keys = jax.random.split(
        parallel.fold_device(key), config.num_videos // num_devices
    )
    return map_frames(
        lambda key: make_example(key, config.video),
        keys,
        platform=jax.default_backend(),
    )

  def draw_shard(key: Key, pool: Example) -> Example:
    return draw_examples(
        parallel.fold_device(key),
        pool,
        config.batch_size // num_devices,
        config.num_queries,
    )

  make_pool = parallel.make_shards(make_shard, mesh)
  draw_batch = parallel.map_shards(draw_shard, mesh)

  @functools.lru_cache(maxsize=1)
  def get_pool(index: int) -> Example:
    return make_pool(jax.random.fold_in(video_key, index))

  def draw(step: int) -> Example:
    pool = get_pool(step // steps_per_pool)
    return draw_batch(jax.random.fold_in(draw_key, step), pool)

  return draw


def draw_examples(
    key: Key, pool: Example, batch_size: int, num_queries: int
) -> Example:
  """Draws videos of a pool, and queries of each, without replacement."""
  keys = jax.random.split(key, 2)
  num_videos = pool.video.shape[0]
  chosen = jax.random.permutation(keys[0], num_videos)[:batch_size]

  def draw(key: Key, index: Array) -> Example:
    example = jax.tree.map(lambda array: array[index], pool)
    keys = jax.random.split(key, 2)
    rows = jax.random.permutation(keys[0], example.query_points.shape[0])
    rows = rows[:num_queries]
    return vary_example(
        keys[1],
        Example(
            example.video,
            example.query_points[rows],
            example.target_points[rows],
            example.occluded[rows],
        ),
    )

  return jax.vmap(draw)(jax.random.split(keys[1], batch_size), chosen)


def vary_example(key: Key, example: Example) -> Example:
  """Mirrors, transposes and reverses an example at random.

  Color channels are permuted, too. Only square videos are transposed.
  """
  keys = jax.random.split(key, 5)
  num_frames, height, width = example.video.shape[:3]
  colors = jax.random.permutation(keys[0], 3)
  example = example._replace(video=example.video[..., colors])

  def reverse(example: Example) -> Example:
    last = num_frames - 1.0
    return Example(
        example.video[::-1],
        example.query_points * jnp.asarray([[-1.0, 1, 1]])
        + jnp.asarray([[last, 0, 0]]),
        example.target_points[:, ::-1],
        example.occluded[:, ::-1],
    )

  def mirror(example: Example) -> Example:
    return example._replace(
        video=example.video[:, :, ::-1],
        query_points=_reflect(example.query_points, 2, width),
        target_points=_reflect(example.target_points, 0, width),
    )

  def upend(example: Example) -> Example:
    return example._replace(
        video=example.video[:, ::-1],
        query_points=_reflect(example.query_points, 1, height),
        target_points=_reflect(example.target_points, 1, height),
    )

  def turn(example: Example) -> Example:
    return example._replace(
        video=example.video.swapaxes(1, 2),
        query_points=example.query_points[:, jnp.asarray([0, 2, 1])],
        target_points=example.target_points[..., ::-1],
    )

  changes = [reverse, mirror, upend]
  if height == width:
    changes.append(turn)
  for change, own in zip(changes, keys[1:], strict=False):
    example = jax.lax.cond(
        jax.random.bernoulli(own), change, lambda same: same, example
    )
  return example


def _reflect(
    points: Float[Array, '*n c'], axis: int, size: int
) -> Float[Array, '*n c']:
  """Mirrors one coordinate of points in a frame of `size` pixels."""
  return points.at[..., axis].set(size - points[..., axis])


def _check_config(config: PoolConfig, num_devices: int) -> None:
  if config.num_uses < 1:
    raise ValueError(f'num_uses must be at least 1; got {config.num_uses}')
  if config.batch_size < 1 or config.batch_size % num_devices:
    raise ValueError(
        f'batch_size must be a multiple of the {num_devices} devices; got '
        f'{config.batch_size}'
    )
  if config.num_videos < 1 or config.num_videos % config.batch_size:
    raise ValueError(
        'num_videos must be a multiple of batch_size; got '
        f'{config.num_videos} and {config.batch_size}'
    )
  if not 1 <= config.num_queries <= config.video.num_queries:
    raise ValueError(
        'num_queries must be between 1 and those of a video, '
        f'{config.video.num_queries}; got {config.num_queries}'
    )
