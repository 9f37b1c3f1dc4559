"""From a preset's name and a weight file to a tracker that is ready to use."""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import importlib.resources
import json
import math
import os
import pathlib
from typing import Any
import warnings

import jax
from jaxtyping import Float
from jaxtyping import Int
from jaxtyping import UInt8
import numpy as np

from tapjax import checkpoints
from tapjax.models import registry
from tapjax.models.contract import describe_params
from tapjax.models.contract import flatten_params
from tapjax.models.contract import Params
from tapjax.models.contract import TrackerFunctions
from tapjax.models.contract import unflatten_params
from tapjax.models.weight_names import list_haiku_sources
from tapjax.models.weight_names import list_torch_sources
from tapjax.settings import freeze
from tapjax.settings import replace_settings
from tapjax.streaming import session as streaming
from tapjax.tracking import checks
from tapjax.tracking import forward_backward
from tapjax.tracking import long_videos
from tapjax.tracking import whole_video
from tapjax.types import Tracks

Path = str | os.PathLike[str]


@dataclasses.dataclass(frozen=True)
class Tracker:
  """A tracker with its weights: frames and query points in, tracks out.

  Attributes:
    name: of the preset.
    config: settings of the network; they belong to the weights.
    functions: the tracker as pure functions, for those who train or compose.
    params: what the functions take first.
  """

  name: str
  config: Any
  functions: TrackerFunctions
  params: Params

  @property
  def visibility_threshold(self) -> float:
    """The confidence above which this tracker calls a point visible.

    `Tracks.apply_threshold` takes another one. A tracker that tells neither
    occlusion nor uncertainty has confidences of 0 and 1 alone.
    """
    return getattr(self.config, 'visibility_threshold', 0.5)

  def track(
      self,
      frames: UInt8[np.ndarray, 't h w 3'],
      query_points: Float[np.ndarray, 'n 3'],
      *,
      query_chunk: int | None = None,
      frame_chunk: int | None = None,
      max_memory: int | str | None = None,
      window: int | None = None,
      devices: Sequence[jax.Device] | None = None,
      report: whole_video.Report | None = None,
  ) -> Tracks:
    """Tracks points through a whole video.

    Args:
      frames: RGB, of any size.
      query_points: (t, y, x) each: the index of a frame, which may be a
        fraction, then pixels of `frames` with (0, 0) the outer corner of the
        upper-left one.
      query_chunk: points to track at once; bounds memory, changes no result. A
        tracker whose points attend to each other takes all of them without it,
        and with it each chunk as a set of its own.
      frame_chunk: frames to encode at once; bounds memory, changes no result.
      max_memory: bytes that tracking may take besides `frames`, or text such as
        '4GB'. A video that needs more is tracked through windows, as long as
        memory allows.
      window: tracks through windows of that many frames. A causal tracker gives
        the tracks of the whole video; of another one they differ a little, and
        a warning says so.
      devices: that share the work; without it all local GPUs or TPU cores, or
        one CPU.
      report: called as `report(stage, done, total)` while work goes on.

    Returns:
      Tracks in pixels of `frames`, one row per query, as NumPy arrays.

    Raises:
      ValueError: what was passed is not a video, or not points in it, or
        `max_memory` is too little for the tracker.
    """
    frames = checks.check_frames(frames)
    points = checks.check_query_points(query_points)
    checks.check_queries_inside(points, len(frames), frames.shape[1:3])
    checks.check_chunks(query_chunk, frame_chunk, window)
    on_disk = max_memory is not None
    return self.track_video(
        self.prepare(whole_video.split_frames(frames), on_disk=on_disk),
        points,
        query_chunk=query_chunk,
        frame_chunk=frame_chunk,
        max_memory=max_memory,
        window=window,
        devices=devices,
        report=report,
    )

  def warmup(
      self,
      num_frames: int,
      num_queries: int,
      resolution: Sequence[int] | None = None,
      *,
      query_chunk: int | None = None,
      frame_chunk: int | None = None,
      devices: Sequence[jax.Device] | None = None,
  ) -> None:
    """Compiles what `track` needs, before there is a video.

    Later videos of up to `num_frames`, and at least half as many, need no
    compilation, whatever their number of queries; where queries see each other
    there may be up to `num_queries` of them. Frames are `resolution` large, or
    as the network wants them.
    """
    self.estimate_memory(
        num_frames,
        num_queries,
        resolution,
        query_chunk=query_chunk,
        frame_chunk=frame_chunk,
        devices=devices,
    )

  def estimate_memory(
      self,
      num_frames: int,
      num_queries: int,
      resolution: Sequence[int] | None = None,
      *,
      query_chunk: int | None = None,
      frame_chunk: int | None = None,
      devices: Sequence[jax.Device] | None = None,
  ) -> int:
    """Returns the bytes that `track` takes for such a video.

    The caller's frames and what the process holds already come on top. Compiles
    the program, as `warmup` does, since only it knows.
    """
    for name, number in (
        ('num_frames', num_frames),
        ('num_queries', num_queries),
    ):
      if number < 1:
        raise ValueError(f'{name} must be at least 1; got {number}')
    checks.check_chunks(query_chunk, frame_chunk)
    size = resolution or self.functions.resolution
    return whole_video.warm_up(
        self.functions,
        self.params,
        num_frames,
        num_queries,
        checks.check_resolution(size),
        query_chunk=query_chunk,
        frame_chunk=frame_chunk,
        devices=devices,
    )

  def fit_window(
      self,
      num_frames: int,
      num_queries: int,
      resolution: Sequence[int],
      max_memory: int | str,
      *,
      query_chunk: int | None = None,
      frame_chunk: int | None = None,
      devices: Sequence[jax.Device] | None = None,
  ) -> int | None:
    """Returns the window for which `max_memory` is enough.

    None if it is enough for the whole video, or if the tracker goes through
    long videos in windows of its own. The caller's frames do not count.

    Raises:
      ValueError: it is enough for none.
    """
    return whole_video.fit_window(
        self.functions,
        self.params,
        num_frames,
        num_queries,
        checks.check_resolution(resolution),
        checks.check_memory(max_memory),
        query_chunk=query_chunk,
        frame_chunk=frame_chunk,
        devices=devices,
    )

  def prepare(
      self,
      blocks: Iterable[UInt8[np.ndarray, '_ h w 3']],
      *,
      on_disk: bool = False,
  ) -> whole_video.PreparedVideo:
    """Resizes a video that arrives in blocks of a few frames.

    It is only held at the resolution of the network, or in a temporary file.
    """
    return whole_video.prepare_video(
        blocks, self.functions.resolution, on_disk=on_disk
    )

  def track_video(
      self,
      video: whole_video.PreparedVideo,
      query_points: Float[np.ndarray, 'n 3'],
      *,
      query_chunk: int | None = None,
      frame_chunk: int | None = None,
      max_memory: int | str | None = None,
      window: int | None = None,
      devices: Sequence[jax.Device] | None = None,
      report: whole_video.Report | None = None,
  ) -> Tracks:
    """As `track`, for a video that `prepare` made.

    The video's frames do not count for `max_memory`; keep them on disk.
    """
    points = checks.check_query_points(query_points)
    checks.check_queries_inside(points, len(video.frames), video.original)
    checks.check_chunks(query_chunk, frame_chunk, window)
    if max_memory is not None and window is None and len(points):
      window = self.fit_window(
          len(video.frames),
          len(points),
          video.original,
          max_memory,
          query_chunk=query_chunk,
          frame_chunk=frame_chunk,
          devices=devices,
      )
    if window is not None:
      long_videos.check_window(self.functions, window)
      if not long_videos.is_exact(self.functions):
        warnings.warn(
            f'{self.name} sees windows of {window} of the {len(video.frames)} '
            'frames: tracks may differ from those of the whole video',
            stacklevel=2,
        )
    return whole_video.track_video(
        self.functions,
        self.params,
        video,
        points,
        query_chunk=query_chunk,
        frame_chunk=frame_chunk,
        window=window,
        devices=devices,
        report=report,
    )

  def measure_agreement(
      self,
      video: whole_video.PreparedVideo,
      query_points: Float[np.ndarray, 'n 3'],
      tracks: Tracks,
      *,
      num_checks: int = forward_backward.NUM_CHECKS,
      radius: float = forward_backward.RADIUS,
  ) -> Float[np.ndarray, 'n t']:
    """Returns how well tracks lead back to their queries, in [0, 1].

    From `num_checks` frames of the video the points are tracked anew; the
    result is 1 where they meet their query and 1/2 where they miss it by
    `radius` pixels at 256x256; see `tapjax.tracking.forward_backward`.
    """
    return forward_backward.measure_agreement(
        lambda points: self.track_video(video, points),
        checks.check_query_points(query_points),
        tracks,
        video.original,
        num_checks=num_checks,
        radius=radius,
        together=self.functions.queries_independent,
    )

  def start(
      self,
      frame: streaming.Frames,
      points_yx: Float[np.ndarray, '*k n 2'],
  ) -> streaming.Session:
    """Begins to track points frame by frame; see `tapjax.streaming.session`.

    The frame shows the points, (y, x) in its pixels. It is not tracked: pass it
    to `step` too if it is the first one of the video. It may be from another
    video, or of another size. Several frames with points `[k, n, 2]`, NaN where
    one is not given, describe each point by the mean over them.
    """
    return streaming.start(self.functions, self.params, frame, points_yx)

  def step(
      self,
      session: streaming.Session,
      frame: UInt8[np.ndarray, 'h w 3'],
      rule: streaming.LostRule = streaming.DEFAULT_RULE,
  ) -> tuple[streaming.Session, Tracks]:
    """Tracks all points of a session in the next frame.

    Returns the session to go on with, and tracks `[n, 1]` of the points of
    `session.ids`, in pixels of `frame`. `session.lost` says which of them are
    lost, by the rule.
    """
    return streaming.step(self.functions, self.params, session, frame, rule)

  def add(
      self,
      session: streaming.Session,
      frame: streaming.Frames,
      points_yx: Float[np.ndarray, '*k n 2'],
  ) -> streaming.Session:
    """Begins to track more points, as `start` does."""
    return streaming.add(self.functions, self.params, session, frame, points_yx)

  def remove(
      self,
      session: streaming.Session,
      ids: Int[np.ndarray, 'n'] | Sequence[int],
  ) -> streaming.Session:
    """Ceases to track points, by their numbers in `session.ids`."""
    return streaming.remove(session, np.asarray(ids, np.int32))

  def save(
      self,
      path: Path,
      metadata: Mapping[str, str] | None = None,
      *,
      dtype: str = 'float32',
  ) -> None:
    """Writes the weights: `.npy` as published, else tapjax's `.safetensors`.

    Both are read by `load(checkpoint=path)`. Only the latter keeps settings
    that differ from the preset's, and `metadata`: what else to say of the
    weights. It can be half as large, with `dtype='float16'`.
    """
    path = pathlib.Path(path)
    if path.suffix not in ('.npy', '.safetensors'):
      raise ValueError(
          f'path must end in .safetensors or .npy; got {path.name!r}'
      )
    arrays = {
        name: np.asarray(array, dtype)
        for name, array in flatten_params(self.params).items()
    }
    if path.suffix == '.safetensors':
      own = {
          'preset': self.name,
          'config': json.dumps(dataclasses.asdict(self.config)),
      }
      checkpoints.write_checkpoint(path, arrays, {**(metadata or {}), **own})
      return
    preset = registry.get_preset(self.name)
    names = preset.architecture.list_weight_names(self.config)
    published = checkpoints.invert_arrays(arrays, list_haiku_sources(names))
    checkpoints.write_haiku_npy(path, published)
    inferred = preset.architecture.infer_config(
        preset.config, {name: array.shape for name, array in published.items()}
    )
    if changes := _list_changes(inferred, self.config):
      warnings.warn(
          f'{path.name} holds no settings, and these differ from what its '
          f'arrays tell of a {self.name}: {changes} - pass them when you load '
          'it, or save as .safetensors',
          stacklevel=2,
      )


def load(
    name: str | None = None,
    *,
    checkpoint: Path | None = None,
    resolution: Sequence[int] | None = None,
    **settings: Any,
) -> Tracker:
  """Returns a tracker with its weights.

  Args:
    name: of a preset; see `list_models`. None takes it from the checkpoint, or
      the default without one, whose weights are in the package.
    checkpoint: a file of any published or own format. None takes the weights in
      the package or the cache, or downloads the published ones.
    resolution: (height, width) at which the network sees the video; None takes
      the preset's, at which its published scores were measured.
    **settings: replace fields of the preset's config.

  Raises:
    ValueError: the name, a setting or the file does not fit, or a download
      failed.
    FileNotFoundError: there is no such file.
  """
  if resolution is not None:
    settings['resolution'] = checks.check_resolution(resolution)
  if checkpoint is None:
    preset = registry.get_preset(registry.DEFAULT if name is None else name)
    # Settings that cannot be are told before a long download, not after.
    preset.architecture.make_functions(
        replace_settings(preset.config, settings)
    )
    file = checkpoints.read_checkpoint(_find_weights(preset))
  else:
    if name is not None:
      registry.get_preset(name)
    file = checkpoints.read_checkpoint(checkpoint)
    preset = registry.get_preset(name or identify_preset(file))
  config = _choose_config(preset, file, settings)
  functions = preset.architecture.make_functions(config)
  params = _read_params(preset, config, functions, file)
  if file.format != 'tapjax':
    _warn_of_inference(preset, file)
  return Tracker(preset.name, config, functions, params)


def _find_weights(preset: registry.Preset) -> pathlib.Path:
  """Returns where a preset's weights are, downloading them if need be."""
  if preset.weights is None:
    reason = 'no weights are published - train it first'
    if preset.page is not None:
      reason = (
          'its weights are not published as one file - choose one from '
          f'{preset.page}'
      )
    raise ValueError(f'checkpoint must be given for {preset.name}: {reason}')
  if isinstance(preset.weights, registry.EmbeddedFile):
    folder = importlib.resources.files('tapjax') / 'weights'
    return pathlib.Path(str(folder / preset.weights.name))
  return checkpoints.fetch(preset.weights)


def identify_preset(file: checkpoints.Checkpoint) -> str:
  """Returns the one preset that a checkpoint fits, or raises ValueError.

  Own files say it. Published ones are told by their arrays and, where several
  presets have the same, by the name under which the file was published.
  """
  if file.format == 'tapjax':
    if (name := file.metadata.get('preset')) is None:
      raise ValueError(
          f'{file.path} must name its preset in its metadata, as files that '
          'tapjax wrote do; it names none'
      )
    return name
  fitting = _list_fitting_presets(file)
  if len(fitting) > 1:
    published = [
        name
        for name in fitting
        if (weights := registry.PRESETS[name].weights) is not None
        and weights.stem == file.path.stem
    ]
    fitting = published or fitting
  if len(fitting) == 1:
    return fitting[0]
  if fitting:
    raise ValueError(
        f'{file.path} fits several presets: {", ".join(fitting)}; their arrays '
        'do not tell them apart - name the one it was trained as'
    )
  raise ValueError(
      f'{file.path} fits none of the presets {", ".join(registry.PRESETS)} - '
      'name the preset to see what differs'
  )


def _list_fitting_presets(file: checkpoints.Checkpoint) -> list[str]:
  """Returns the presets whose published files have the arrays of this one."""

  def fits(preset: registry.Preset) -> bool:
    shapes = _get_shapes(preset, file)
    functions = preset.architecture.make_functions(preset.config)
    sources = _list_sources(preset, preset.config, file)
    wanted = {source.name for source in sources.values()}
    if not wanted <= shapes.keys() or not all(
        checkpoints.is_ignored(name, _list_ignored(preset, file))
        for name in shapes.keys() - wanted
    ):
      return False
    expected = flatten_params(describe_params(functions))
    return all(
        math.prod(shapes[source.name]) == math.prod(expected[name].shape)
        for name, source in sources.items()
    )

  return [preset.name for preset in registry.PRESETS.values() if fits(preset)]


def _choose_config(
    preset: registry.Preset,
    file: checkpoints.Checkpoint,
    settings: Mapping[str, Any],
) -> Any:
  """Returns the preset's config, as the file and then the caller change it."""
  if file.format == 'tapjax':
    config = _read_own_config(preset, file)
  else:
    config = preset.architecture.infer_config(
        preset.config, _get_shapes(preset, file)
    )
  return replace_settings(config, settings)


def _warn_of_inference(
    preset: registry.Preset, file: checkpoints.Checkpoint
) -> None:
  """Says so if a published file decides a setting against the preset."""
  inferred = preset.architecture.infer_config(
      preset.config, _get_shapes(preset, file)
  )
  if inferred != preset.config:
    warnings.warn(
        f'{file.path.name} differs from preset {preset.name}: using '
        f'{_list_changes(preset.config, inferred)}, which its arrays were '
        'trained with',
        stacklevel=3,
    )


def _list_changes(old: Any, new: Any) -> str:
  """Names the settings in which two configs differ, with the new values."""
  return ', '.join(
      f'{field.name}={getattr(new, field.name)}'
      for field in dataclasses.fields(new)
      if getattr(new, field.name) != getattr(old, field.name)
  )


def _read_own_config(
    preset: registry.Preset, file: checkpoints.Checkpoint
) -> Any:
  """Returns the config that one of our own files carries."""
  named = identify_preset(file)
  if named != preset.name:
    raise ValueError(
        f'checkpoint must hold weights of {preset.name}; {file.path} holds '
        f'those of {named} - load it under that name'
    )
  try:
    stored = json.loads(file.metadata['config'])
  except (KeyError, ValueError, RecursionError):
    stored = None
  if not isinstance(stored, dict):
    raise ValueError(
        f'{file.path} must carry a config in its metadata; it has none that '
        'can be read - was it written by tapjax?'
    )
  return replace_settings(
      preset.config,
      {name: freeze(value) for name, value in stored.items()},
  )


def _read_params(
    preset: registry.Preset,
    config: Any,
    functions: TrackerFunctions,
    file: checkpoints.Checkpoint,
) -> Params:
  """Returns the arrays of a file as parameters; every one must fit."""
  expected = describe_params(functions)
  shapes = {
      name: array.shape for name, array in flatten_params(expected).items()
  }
  sources = _list_sources(preset, config, file)
  if not sources:
    raise ValueError(
        f'checkpoint must be a Haiku .npy file for {preset.name}, of which no '
        f'PyTorch weights exist; {file.path} is a PyTorch file'
    )
  try:
    arrays = checkpoints.convert_arrays(
        _select_arrays(preset, file),
        sources,
        shapes,
        ignored=_list_ignored(preset, file),
        origin=str(file.path),
    )
  except checkpoints.CheckpointMismatchError:
    _refuse_other_preset(preset, file)
    raise
  return jax.tree.map(jax.numpy.asarray, unflatten_params(arrays))


def _refuse_other_preset(
    preset: registry.Preset, file: checkpoints.Checkpoint
) -> None:
  """Raises ValueError if a file that does not fit a preset fits another one."""
  fitting = _list_fitting_presets(file)
  if fitting and preset.name not in fitting:
    raise ValueError(
        f'checkpoint must hold weights of {preset.name}; {file.path} is of '
        f'another model, {" or ".join(fitting)} - load it under that name'
    ) from None


def _list_sources(
    preset: registry.Preset, config: Any, file: checkpoints.Checkpoint
) -> dict[str, checkpoints.Source]:
  names = preset.architecture.list_weight_names(config)
  if file.format == 'haiku':
    return list_haiku_sources(names)
  if file.format == 'torch':
    return list_torch_sources(names)
  ours = list_haiku_sources(names)
  return {name: checkpoints.Source(name) for name in ours}


def _list_ignored(
    preset: registry.Preset, file: checkpoints.Checkpoint
) -> tuple[str, ...]:
  """Returns patterns of arrays that the file may have to spare."""
  return () if file.format == 'tapjax' else preset.architecture.ignored


def _select_arrays(
    preset: registry.Preset, file: checkpoints.Checkpoint
) -> Mapping[str, np.ndarray]:
  """Returns the arrays of a file that are weights of the preset's tracker."""
  if file.format == 'torch':
    return preset.architecture.select_arrays(file.arrays)
  return file.arrays


def _get_shapes(
    preset: registry.Preset, file: checkpoints.Checkpoint
) -> dict[str, tuple[int, ...]]:
  arrays = _select_arrays(preset, file)
  return {name: array.shape for name, array in arrays.items()}
