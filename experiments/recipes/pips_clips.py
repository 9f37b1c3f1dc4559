"""Recipe of PIPs++ trained on clips of PointOdyssey.

Every report prints a line in the format of PIPs++: seconds of reading and of
the update, the loss, its mean, and the mean d_avg of training and of
validation, over the last 1000 values.
"""

import collections
from collections.abc import Callable
import dataclasses
import functools
import math
import time
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array
from jaxtyping import Float
import numpy as np
from tqdm import tqdm

from experiments.config import Draw
from experiments.config import RunConfig
from experiments.recipes.recipe import load_initial
from experiments.recipes.recipe import make_functions
from experiments.recipes.recipe import Recipe
from experiments.recipes.recipe import Workplace
from tapjax import parallel
from tapjax.data.point_odyssey.clip_batches import ClipBatch
from tapjax.data.point_odyssey.clip_batches import ClipDataConfig
from tapjax.data.point_odyssey.clip_batches import count_clips
from tapjax.data.point_odyssey.clip_batches import make_clip_draw
from tapjax.evaluation.pips_metrics import compute_pips_metrics
from tapjax.geometry import normalize_frames
from tapjax.models.contract import Params
from tapjax.models.pips_plus_plus.config import PipsPlusPlusConfig
from tapjax.models.pips_plus_plus.functions import PipsPlusPlusFunctions
from tapjax.training.loop import Evaluation
from tapjax.training.loop import LoopConfig
from tapjax.training.pips import compute_pips_loss
from tapjax.training.pips import make_pips_state
from tapjax.training.pips import make_pips_update
from tapjax.training.pips import PipsBatch
from tapjax.training.pips import PipsMetrics
from tapjax.training.pips import PipsTrainingConfig
from tapjax.training.pips import refine_batch
from tapjax.training.pips import transpose_batch
from tapjax.training.step import TrainState
from tapjax.visualization.figures import draw_predictions

# Values of which running means are.
_MEMORY = 1000
# Of the figure.
_SHOWN_FRAMES = 8
_SHOWN_POINTS = 12
_TRANSPOSED_SHARE = 0.5


@dataclasses.dataclass(frozen=True)
class PipsTrainConfig(RunConfig):
  """Training of PIPs++ on clips of PointOdyssey.

  Clips have the resolution of the model, which `data.clips.crop` repeats.

  Attributes:
    data: training clips.
    training: loss and optimizer.
    loop: intervals of the loop; a line is printed with every report.
  """

  data: ClipDataConfig = dataclasses.field(default_factory=ClipDataConfig)
  training: PipsTrainingConfig = dataclasses.field(
      default_factory=PipsTrainingConfig
  )
  loop: LoopConfig = dataclasses.field(
      default_factory=lambda: LoopConfig(
          report_every=1, evaluate_every=1000, save_every=1000
      )
  )

  def __post_init__(self):
    super().__post_init__()
    if not isinstance(self.model, PipsPlusPlusConfig):
      raise ValueError(f'preset must be pips_plus_plus; got {self.preset!r}')

  def make_recipe(self, place: Workplace) -> Recipe:
    return make_recipe(self, place)

  def make_draw(self, mesh: Mesh) -> Draw:
    del mesh  # Workers put batches on the devices.
    return make_input(self)


def make_recipe(config: PipsTrainConfig, place: Workplace) -> Recipe:
  """Returns the recipe, on as many devices as divide a batch evenly."""
  if config.model.resolution != config.data.clips.crop:
    raise ValueError(
        'model.resolution and data.clips.crop must be the same; got '
        f'{config.model.resolution} and {config.data.clips.crop}'
    )
  functions = make_functions(config)
  data = config.data
  draw = make_input(config)
  # Other clips than those of any step, and as they are.
  judged = make_clip_draw(
      data.validation_root or data.root, data, None, config.seed + 1
  )
  weight_key, start_key = jax.random.split(jax.random.key(config.seed))
  params = load_initial(config)
  if params is None:
    params = functions.init(weight_key)
  mesh = parallel.make_batch_mesh(data.batch_size)
  run = _Run(config, place, mesh, draw, judged, start_key)
  state = make_pips_state(params, config.training)
  return Recipe(
      state=parallel.replicate(mesh, state),
      update=run.update,
      draw=run.draw,
      num_steps=config.training.num_steps,
      max_bad_steps=config.training.max_bad_steps,
      loop=config.loop,
      evaluate=run.evaluate,
      data=f'{count_clips(data.root, data.clips):,} clips in {data.root}',
  )


def make_input(config: PipsTrainConfig) -> Callable[[int], ClipBatch]:
  """Returns the function from a step to its batch."""
  data = config.data
  return make_clip_draw(data.root, data, data.augmentation, config.seed)


class _Run:
  """Updates and evaluations of a run, with printed reports."""

  def __init__(
      self,
      config: PipsTrainConfig,
      place: Workplace,
      mesh: Mesh,
      draw: Callable[[int], ClipBatch],
      judged: Callable[[int], ClipBatch],
      start_key: Array,
  ):
    self._config = config
    self._place = place
    self._mesh = mesh
    self._draw = draw
    self._judged = judged
    self._start_key = start_key
    self._step = place.latest_step
    self._reading = 0.0
    self._losses: collections.deque[float] = collections.deque(maxlen=_MEMORY)
    self._trained: collections.deque[float] = collections.deque(maxlen=_MEMORY)
    self._validated: collections.deque[float] = collections.deque(
        maxlen=_MEMORY
    )
    # Plain, and with rows and columns of frames swapped.
    self._updates = [
        make_pips_update(
            PipsPlusPlusFunctions(
                dataclasses.replace(config.model, resolution=resolution)
            ),
            config.training,
            mesh,
        )
        for resolution in (
            config.model.resolution,
            config.model.resolution[::-1],
        )
    ]
    self._judge = _make_judge(config)

  def draw(self, step: int) -> ClipBatch:
    """Returns the batch of a step, and records its time."""
    before = time.monotonic()
    batch = self._draw(step)
    self._reading = time.monotonic() - before
    return batch

  def update(
      self, state: TrainState, batch: ClipBatch
  ) -> tuple[TrainState, PipsMetrics]:
    """Updates a state; half of the updates use transposed clips."""
    before = time.monotonic()
    chance = np.random.default_rng([self._config.seed, 1, self._step]).random()
    swaps = chance < _TRANSPOSED_SHARE
    shards = parallel.shard(self._mesh, parallel.take_share(batch))
    clips = _prepare(shards, swaps)
    key = jax.random.fold_in(self._start_key, self._step)
    state, metrics = self._updates[swaps](state, clips, key)
    self._step += 1
    if self._step % self._config.loop.report_every == 0:
      self._print_line(metrics, before)
    return state, metrics

  def evaluate(self, step: int, params: Params) -> Evaluation:
    """Evaluates weights on clips without augmentation, from static tracks."""
    rows = []
    for index in range(self._config.data.num_validation):
      batch = self._judged(index)
      clips = _prepare(batch)
      loss, positions = jax.device_get(self._judge(params, clips))
      metrics = compute_pips_metrics(
          positions,
          batch.target_points,
          batch.valid,
          self._config.model.resolution,
          drop_unstarted=True,
      )
      rows.append((loss, metrics.d_avg, metrics.survival, metrics.median_l2))
      if not index:
        self._draw_first(step, batch, positions)
    names = ('loss', 'd_avg', 'survival', 'median_l2')
    means = np.nanmean(np.asarray(rows, float), axis=0).tolist()
    scalars = dict(zip(names, means, strict=True))
    self._validated.append(scalars['d_avg'])
    return Evaluation(
        scalars['d_avg'],
        {f'validation/{name}': value for name, value in scalars.items()},
    )

  def _print_line(self, metrics: PipsMetrics, before: float) -> None:
    loss, accuracy = map(float, jax.device_get(metrics[:2]))
    self._losses.append(loss)
    self._trained.append(accuracy)
    tqdm.write(
        f'{self._place.folder.name}; '
        f'step {self._step:06}/{self._config.training.num_steps}; '
        f'rtime {self._reading:.2f}; itime {time.monotonic() - before:.2f}; '
        f'loss {loss:.3f}; loss_t {_average(self._losses):.2f}; '
        f'd_t {_average(self._trained):.1f}; '
        f'd_v {_average(self._validated):.1f}'
    )

  def _draw_first(
      self, step: int, batch: ClipBatch, positions: Float[np.ndarray, 'b n t 2']
  ) -> None:
    """Draws some points on some frames of the first clip of a batch."""
    frames = batch.frames[0]
    shown = np.linspace(0, len(frames) - 1, _SHOWN_FRAMES).astype(int)
    shown = np.unique(shown)
    scale = np.asarray(frames.shape[2:0:-1], np.float32)
    paths = [
        tracks[0][:_SHOWN_POINTS, shown].swapaxes(0, 1) / scale
        for tracks in (positions, batch.target_points)
    ]
    self._place.write_picture(
        step, 'validation/predictions', draw_predictions(frames[shown], *paths)
    )


def _make_judge(config: PipsTrainConfig) -> Callable[[Params, PipsBatch], Any]:
  """Returns loss and positions with twice as many iterations, as published."""
  functions = PipsPlusPlusFunctions(
      dataclasses.replace(
          config.model, num_iterations=2 * config.model.num_iterations
      )
  )

  @jax.jit
  def judge(params: Params, batch: PipsBatch) -> tuple[Array, Array]:
    target = batch.target_points
    start = jnp.repeat(target[:, :, :1], target.shape[2], axis=2)
    positions = refine_batch(functions, params, batch.video, start)
    loss = compute_pips_loss(
        positions[:-1], target, batch.valid, config.training.discount
    )
    return loss, positions[-1]

  return judge


@functools.partial(jax.jit, static_argnums=1)
def _prepare(
    batch: ClipBatch,
    is_transposed: bool = False,  # noqa: FBT001, FBT002
) -> PipsBatch:
  """Puts a batch on the device, unless it is already sharded."""
  clips = PipsBatch(
      normalize_frames(batch.frames),
      jnp.asarray(batch.target_points),
      jnp.asarray(batch.valid),
  )
  return transpose_batch(clips) if is_transposed else clips


def _average(values: collections.deque[float]) -> float:
  return sum(values) / len(values) if values else math.nan
