"""Recipe of a point transformer trained on windows of PointOdyssey.

Besides the files of every run, with epochs counted from 0 in names of files,

DIR/history.csv                                 losses of every epoch
DIR/visualizations/loss_history_epoch0.png      the same as curves
DIR/visualizations/val_predictions_epoch0.png   predicted and true tracks
DIR/visualizations/val_attention_epoch0.png     attention between frames
DIR/visualizations/predictions_epoch0_batch50.png, attention_epoch0_batch50.png
"""

from collections.abc import Callable
import csv
import dataclasses
import math
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import UInt8
import numpy as np

from experiments.config import Draw
from experiments.config import RunConfig
from experiments.recipes.recipe import load_initial
from experiments.recipes.recipe import make_functions
from experiments.recipes.recipe import Recipe
from experiments.recipes.recipe import Workplace
from tapjax import parallel
from tapjax.checkpoints import read_torch_training
from tapjax.checkpoints import TorchTraining
from tapjax.data.point_odyssey.window_batches import find_windows
from tapjax.data.point_odyssey.window_batches import make_batches
from tapjax.data.point_odyssey.window_batches import PointDataConfig
from tapjax.data.point_odyssey.window_batches import WindowBatch
from tapjax.data.point_odyssey.window_batches import WindowBatches
from tapjax.data.point_odyssey.windows import WindowConfig
from tapjax.files import write_atomically
from tapjax.files import write_csv
from tapjax.geometry import normalize_frames
from tapjax.media.pictures import import_pillow
from tapjax.models.contract import Params
from tapjax.models.point_transformer.config import PointTransformerConfig
from tapjax.models.point_transformer.functions import PointTransformerFunctions
from tapjax.models.point_transformer.network import BACKBONE_PREFIX
from tapjax.settings import check_at_least
from tapjax.training.backbones import IMAGENET
from tapjax.training.backbones import load_backbone
from tapjax.training.loop import Evaluation
from tapjax.training.loop import LoopConfig
from tapjax.training.point_transformer import compute_point_losses
from tapjax.training.point_transformer import convert_point_training
from tapjax.training.point_transformer import make_point_state
from tapjax.training.point_transformer import make_point_update
from tapjax.training.point_transformer import PointBatch
from tapjax.training.point_transformer import PointLosses
from tapjax.training.point_transformer import PointMetrics
from tapjax.training.point_transformer import PointTrainingConfig
from tapjax.training.point_transformer import Update
from tapjax.training.step import TrainState
from tapjax.visualization.figures import draw_attention
from tapjax.visualization.figures import draw_curves
from tapjax.visualization.figures import draw_predictions


@dataclasses.dataclass(frozen=True)
class EpochLoopConfig:
  """Intervals of training by epochs.

  Each epoch ends with an evaluation and a snapshot.

  Attributes:
    report_every: interval of scalars, in updates.
    draw_every: interval of figures of training batches, in updates of an epoch.
    num_latest: number of latest snapshots to keep, besides the best one.
  """

  report_every: int = 1
  draw_every: int = 50
  num_latest: int = 2

  def __post_init__(self):
    check_at_least(1, self, [field.name for field in dataclasses.fields(self)])


@dataclasses.dataclass(frozen=True)
class PointTrainConfig(RunConfig):
  """Training of a point transformer on windows of PointOdyssey.

  Numbers of frames and points and the resolution of windows are those of the
  model.

  Attributes:
    backbone: initial weights of the residual network: 'imagenet', which
      downloads those of torchvision, or a file in that layout; None for random
      ones. `initial` takes precedence.
    resume: a latest.pth of the published program to resume from, with its
      weights, optimizer, epoch and losses; `initial` takes only weights.
      Existing snapshots of the run take precedence.
    data: training windows.
    training: loss and optimizer.
    loop: intervals of the loop.
  """

  backbone: str | None = IMAGENET
  resume: str | None = None
  data: PointDataConfig = dataclasses.field(default_factory=PointDataConfig)
  training: PointTrainingConfig = dataclasses.field(
      default_factory=PointTrainingConfig
  )
  loop: EpochLoopConfig = dataclasses.field(default_factory=EpochLoopConfig)

  def __post_init__(self):
    super().__post_init__()
    if not isinstance(self.model, PointTransformerConfig):
      raise ValueError(
          'preset must be a point transformer, such as '
          f'point_transformer_resnet18; got {self.preset!r}'
      )
    if self.resume is not None and self.initial is not None:
      raise ValueError(
          'resume and initial must not both be set; got '
          f'{self.resume!r} and {self.initial!r}'
      )

  @property
  def windows(self) -> WindowConfig:
    """Settings of the training windows."""
    return WindowConfig(
        num_frames=self.model.window,
        num_points=self.model.num_points,
        resolution=self.model.resolution,
        most_frames=self.data.most_frames,
    )

  def make_recipe(self, place: Workplace) -> Recipe:
    return make_recipe(self, place)

  def make_draw(self, mesh: Mesh) -> Draw:
    del mesh  # Workers put batches on the devices.
    return make_input(self)


class EpochLosses(NamedTuple):
  """Losses of an epoch; `still` is the loss of static predictions."""

  train: float
  validation: float
  still: float


class _Judgment(NamedTuple):
  """Evaluation of a batch of windows.

  `attention` is the attention between frames of the first window, in the first
  head of the first block.
  """

  losses: PointLosses
  still: PointLosses
  positions_unit: Float[Array, 'b t n 2']
  attention: Float[Array, 't t']


def make_recipe(config: PointTrainConfig, place: Workplace) -> Recipe:
  """Returns the recipe, on as many devices as divide a batch evenly."""
  # Missing packages stop the run before anything is read.
  functions = make_functions(config)
  import_pillow()
  train, validation = find_windows(config.data, config.windows, config.seed)
  data = config.data
  batches, judged = (
      make_batches(
          windows, config.windows, data.batch_size, data.num_workers, seed
      )
      for windows, seed in ((train, config.seed), (validation, None))
  )
  weight_key, drop_key = jax.random.split(jax.random.key(config.seed))
  num_batches = batches.num_batches
  saved = None
  if config.resume is not None and not place.latest_step:
    saved = read_torch_training(config.resume)
    state = convert_point_training(
        saved, config.model, config.training, num_batches, config.resume
    )
  else:
    params = load_initial(config)
    if params is None:
      params = functions.init(weight_key)
      # A run that goes on has its own.
      if config.backbone is not None and config.resume is None:
        params = load_backbone(
            params, BACKBONE_PREFIX, config.model.resnet, config.backbone
        )
    state = make_point_state(params, config.training, num_batches)
  mesh = parallel.make_batch_mesh(data.batch_size)
  _check_last_batch(len(train), data.batch_size)
  run = _Run(config, place, mesh, num_batches, judged, drop_key)
  if saved is not None:
    run.go_on(saved)
  return Recipe(
      state=parallel.replicate(mesh, state),
      update=run.update,
      draw=batches.draw,
      num_steps=config.training.num_epochs * num_batches,
      max_bad_steps=config.training.max_bad_steps,
      loop=LoopConfig(
          report_every=config.loop.report_every,
          evaluate_every=num_batches,
          save_every=num_batches,
          num_latest=config.loop.num_latest,
      ),
      evaluate=run.evaluate,
      data=(
          f'{len(train):,} windows in {data.root}, and {len(validation):,} to '
          'validate on'
      ),
  )


def make_input(config: PointTrainConfig) -> Callable[[int], WindowBatch]:
  """Returns the function from a step to its batch."""
  train, _ = find_windows(config.data, config.windows, config.seed)
  data = config.data
  return make_batches(
      train, config.windows, data.batch_size, data.num_workers, config.seed
  ).draw


class _Run:
  """Updates and evaluations of a run, with the losses of all epochs."""

  def __init__(
      self,
      config: PointTrainConfig,
      place: Workplace,
      mesh: Mesh,
      num_batches: int,
      judged: WindowBatches,
      drop_key: Array,
  ):
    self._config = config
    self._mesh = mesh
    self._num_batches = num_batches
    self._judged = judged
    self._drop_key = drop_key
    self._draw_every = config.loop.draw_every
    self._folder = place.folder
    self._write_picture = place.write_picture
    self._figures = place.folder / 'visualizations'
    self._figures.mkdir(exist_ok=True)
    self._step = place.latest_step
    self._history = read_history(place.folder / 'history.csv')
    del self._history[self._step // num_batches :]
    self._losses: list[tuple[Array, Array]] = []
    self._updates: dict[Mesh, Update] = {}
    self._judge = _make_judge(config)

  def go_on(self, saved: TorchTraining) -> None:
    """Restores the losses of a run of the published program.

    The losses of static predictions are unknown for its epochs.
    """
    self._step = (saved.epoch + 1) * self._num_batches
    self._history = [
        EpochLosses(train, validation, math.nan)
        for train, validation in zip(
            saved.train_losses, saved.validation_losses, strict=True
        )
    ]

  def update(
      self, state: TrainState, batch: WindowBatch
  ) -> tuple[TrainState, PointMetrics]:
    """Updates a state, and draws predictions at intervals."""
    epoch, index = divmod(self._step, self._num_batches)
    if index and index % self._draw_every == 0:
      first = WindowBatch(*(array[:1] for array in batch))
      params = parallel.fetch(state.params)
      judgment = self._judge(params, _prepare(first))
      self._draw(
          self._step, 'train', f'epoch{epoch}_batch{index}', first, judgment
      )
    key = jax.random.fold_in(self._drop_key, self._step)
    state, metrics = self._share(state, batch, key)
    self._step += 1
    self._losses.append((metrics.total_loss, metrics.epe))
    return state, metrics

  def _share(
      self, state: TrainState, batch: WindowBatch, key: Array
  ) -> tuple[TrainState, PointMetrics]:
    """Updates a state on as many devices as divide a batch evenly.

    The last batch of an epoch may have fewer windows, and so fewer devices.
    """
    mesh = parallel.make_batch_mesh(len(batch.frames))
    if mesh not in self._updates:
      self._updates[mesh] = make_point_update(
          self._config.model, self._config.training, self._num_batches, mesh
      )
    if mesh != self._mesh:
      state = parallel.replicate(mesh, state)
    shards = parallel.shard(mesh, parallel.take_share(batch))
    state, metrics = self._updates[mesh](state, _prepare(shards), key)
    if mesh != self._mesh:
      state = parallel.replicate(self._mesh, state)
    return state, metrics

  def evaluate(self, step: int, params: Params) -> Evaluation:
    """Evaluates weights on all validation windows, after an epoch."""
    epoch = step // self._num_batches - 1
    rows = []
    for index in range(self._judged.num_batches):
      batch = self._judged.draw(index)
      judgment = self._judge(params, _prepare(batch))
      rows.append((*judgment.losses, *judgment.still))
      if not index:
        self._draw(step, 'validation', f'epoch{epoch}', batch, judgment)
    # A batch with fewer windows weighs as much as the others, as published.
    means = np.mean(jax.device_get(rows), axis=0).astype(float).tolist()
    losses, still = PointLosses(*means[:4]), PointLosses(*means[4:])
    trained = np.mean(jax.device_get(self._losses), axis=0).astype(float)
    self._losses.clear()
    self._history.append(
        EpochLosses(float(trained[0]), float(losses.total), float(still.total))
    )
    if jax.process_index() == 0:
      write_history(self._folder / 'history.csv', self._history)
    picture = draw_history(self._history)
    self._keep(step, 'loss_history', f'loss_history_epoch{epoch}', picture)
    scalars = {
        'train_epoch/total_loss': trained[0],
        'train_epoch/epe': trained[1],
        'validation/total_loss': losses.total,
        'validation/epe': losses.end_point,
        'validation/l1_loss': losses.position,
        'validation/temporal_loss': losses.motion,
        'validation/still_epe': still.end_point,
    }
    return Evaluation(
        -float(losses.total),
        {name: float(value) for name, value in scalars.items()},
    )

  def _draw(
      self,
      step: int,
      part: str,
      name: str,
      batch: WindowBatch,
      judgment: _Judgment,
  ) -> None:
    """Draws the first window of a batch."""
    frames, targets = (array[0] for array in batch)
    pictures = {
        'predictions': draw_predictions(
            frames, np.asarray(judgment.positions_unit[0]), targets
        ),
        'attention': draw_attention(frames, np.asarray(judgment.attention)),
    }
    prefix = 'val_' if part == 'validation' else ''
    for kind, picture in pictures.items():
      self._keep(step, f'{part}/{kind}', f'{prefix}{kind}_{name}', picture)

  def _keep(
      self,
      step: int,
      title: str,
      name: str,
      picture: UInt8[np.ndarray, 'h w 3'],
  ) -> None:
    if jax.process_index() != 0:
      return
    self._write_picture(step, title, picture)
    with write_atomically(self._figures / f'{name}.png') as file:
      import_pillow().fromarray(picture).save(file, format='png')


def draw_history(
    history: list[EpochLosses],
) -> UInt8[np.ndarray, 'h w 3']:
  """Draws losses over epochs, with the loss of static predictions."""
  train, validation, still = zip(*history, strict=True)
  curves = {'train': train, 'validation': validation, 'no motion': still}
  return draw_curves(curves, 'Loss', 'epoch')


def read_history(path: pathlib.Path) -> list[EpochLosses]:
  """Reads the losses of all epochs."""
  if not path.exists():
    return []
  with path.open(encoding='utf-8', newline='') as file:
    _, *rows = csv.reader(file)
  return [EpochLosses(*map(float, row[1:])) for row in rows]


def write_history(path: pathlib.Path, history: list[EpochLosses]) -> None:
  """Writes the losses of all epochs, which count from 1."""
  rows = ([epoch, *losses] for epoch, losses in enumerate(history, start=1))
  write_csv(path, [['epoch', *EpochLosses._fields], *rows])


def _make_judge(
    config: PointTrainConfig,
) -> Callable[[Params, PointBatch], _Judgment]:
  functions = PointTransformerFunctions(config.model)

  @jax.jit
  def judge(params: Params, batch: PointBatch) -> _Judgment:
    targets = batch.targets_unit
    prediction = functions.predict_clips(params, batch.video, targets[:, 0])
    weight = config.training.motion_weight
    still = jnp.repeat(targets[:, :1], targets.shape[1], axis=1)
    first = prediction.attention[0][0, 0]
    # Means over pairs of points.
    frames, points = targets.shape[1:3]
    pairs = first.reshape(frames, points, frames, points)
    return _Judgment(
        compute_point_losses(prediction.positions_unit, targets, weight),
        compute_point_losses(still, targets, weight),
        prediction.positions_unit,
        jnp.mean(pairs, axis=(1, 3)),
    )

  return judge


def _check_last_batch(num_windows: int, batch_size: int) -> None:
  """Raises ValueError if the last batch cannot be divided among processes."""
  if jax.process_count() == 1:
    return
  last = num_windows % batch_size
  if last % jax.device_count():
    raise ValueError(
        f'the last batch of an epoch must be a multiple of the '
        f'{jax.device_count()} devices of several processes; it has {last} of '
        f'{num_windows} windows - change data.batch_size, or train in one '
        'process'
    )


@jax.jit
def _prepare(batch: WindowBatch) -> PointBatch:
  """Puts a batch on the device, unless it is already sharded."""
  return PointBatch(
      normalize_frames(batch.frames), jnp.asarray(batch.positions_unit)
  )
