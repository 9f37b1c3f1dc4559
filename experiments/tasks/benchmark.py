"""Speed and memory of a tracker on this machine.

Efficiency is the rate of floating-point operations of a tracker, relative to
products of 2048x2048 float32 matrices in the same process: 1 means that only
such products take time.

Each row runs in a separate process, so that its peak memory is its own.

With --lazy, frames are generated on demand, so that the memory of a tracker
that processes a video in parts does not grow with its length.

With --export, an exported file in ONNX Runtime and the compiled program of JAX
are timed in turns, and their outputs are compared.

With --streaming, causal trackers are timed frame by frame: the median and the
95th percentile of the time of a step, and points per second.
"""

from collections.abc import Callable
from collections.abc import Iterator
import csv
import datetime
import functools
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

from absl import flags
import jax
import jax.numpy as jnp
import numpy as np

from tapjax import tables
from tapjax.export import onnx_files
from tapjax.export import programs
from tapjax.export import run_file
from tapjax.export import verification
from tapjax.geometry import Resolution
from tapjax.geometry import sample_random_points
from tapjax.media.lazy import LazyFrames
from tapjax.models import registry
from tapjax.settings import replace_settings
from tapjax.tracker import Tracker
from tapjax.tracking import prepare

MODELS = flags.DEFINE_list('model', ['tapir'], 'Presets to run.')
_FRAMES = flags.DEFINE_list('frames', ['50'], 'Lengths of the video.')
_QUERIES = flags.DEFINE_list('queries', ['100'], 'Numbers of query points.')
RESOLUTION = flags.DEFINE_list(
    'resolution', None, "HEIGHT,WIDTH of the video; the preset's without it."
)
_QUERY_CHUNK = flags.DEFINE_integer(
    'query_chunk', None, 'Queries at once; fits the length without it.'
)
_CALLS = flags.DEFINE_integer(
    'calls', 3, 'Calls to time after the first; the fastest counts.'
)
_STREAMING = flags.DEFINE_bool(
    'streaming', False, 'Time steps of a session, one for each of --frames.'
)
_LAZY = flags.DEFINE_bool(
    'lazy',
    False,
    'Make frames as they are wanted, and track points of the first one to the '
    'end, as evaluation does with long sequences; --calls=0 times the first '
    'call, less what it compiles.',
)
_EXPORT = flags.DEFINE_bool(
    'export', False, 'Time ONNX files in ONNX Runtime beside JAX.'
)
_HEADER = flags.DEFINE_bool('header', True, 'Print the names of the columns.')
_CSV = flags.DEFINE_string(
    'csv',
    None,
    'Append rows to this .csv file too, with the number of CPU cores and the '
    'date.',
)
_JSON = flags.DEFINE_bool(
    'json', False, 'Print rows as lines of JSON, once each is measured.'
)

# Tracing, lowering and compiling, as JAX itself times them.
_COMPILE_EVENTS = '/jax/core/compile/'
_PRODUCT_SIZE = 2048
_PRODUCTS = 20


# Steps before the timed ones.
_WARM_STEPS = 3


class Row(NamedTuple):
  """One measurement; times in seconds, memory in GB."""

  preset: str
  frames: int
  queries: int
  resolution: str
  device: str
  compile_s: float
  call_s: float
  points_x_frames_per_s: float
  peak_gb: float
  efficiency: float


class StreamRow(NamedTuple):
  """One measurement of a session; times as named, memory in GB."""

  preset: str
  steps: int
  queries: int
  resolution: str
  device: str
  compile_s: float
  step_ms: float
  slow_step_ms: float
  points_x_frames_per_s: float
  peak_gb: float


class ExportRow(NamedTuple):
  """One measurement of a file; times in seconds, its size in MB."""

  preset: str
  frames: int
  queries: int
  resolution: str
  jax_s: float
  onnx_s: float
  onnx_to_jax: float
  file_mb: float
  difference_px: float


class _Kind(NamedTuple):
  """Kind of measurement."""

  row: type[Row | StreamRow | ExportRow]
  measure: Callable[[str, int, int], tuple]


def run() -> None:
  """Prints a row for each combination of the flags."""
  combinations = [
      (model, frames, queries)
      for model in MODELS.value
      for frames in _FRAMES.value
      for queries in _QUERIES.value
  ]
  kind = _Kind(Row, measure)
  if _STREAMING.value:
    kind = _Kind(StreamRow, measure_steps)
  elif _EXPORT.value:
    kind = _Kind(ExportRow, measure_export)
  if _JSON.value:
    if _CSV.value is not None:
      raise ValueError('--csv and --json exclude each other')
    for row in _iterate_rows(kind, combinations):
      sys.stdout.write(json.dumps(row) + '\n')
      sys.stdout.flush()
    return
  names = [name.replace('_x_', ' x ') for name in kind.row._fields]
  rows: Iterator[list] = (
      [f'{x:.3g}' if isinstance(x, float) else x for x in row]
      for row in _iterate_rows(kind, combinations)
  )
  if _CSV.value is not None:
    rows = _append_rows(pathlib.Path(_CSV.value), names, rows)
  tables.write_table(
      names if _HEADER.value else None, rows, num_rows=len(combinations)
  )


def _append_rows(
    path: pathlib.Path, names: list[str], rows: Iterator[list]
) -> Iterator[list]:
  """Yields rows, and appends each to a table in a file once it is measured.

  Raises ValueError if the table has other columns.
  """
  columns = [*names, 'cores', 'date']
  if path.exists():
    with path.open(newline='', encoding='utf-8') as file:
      found = file.readline().rstrip('\n').split(',')
    if found != columns:
      raise ValueError(
          '--csv must be a new file, or have the columns '
          f'{", ".join(columns)}; {path} has {", ".join(found)}'
      )
  date = datetime.date.today().isoformat()
  for row in rows:
    lines = [[*row, os.cpu_count(), date]]
    if not path.exists():
      lines.insert(0, columns)
    with path.open('a', newline='', encoding='utf-8') as file:
      csv.writer(file, lineterminator='\n').writerows(lines)
    yield row


def _iterate_rows(
    kind: _Kind, combinations: list[tuple[str, str, str]]
) -> Iterator[tuple | list]:
  """Measures one combination in this process, several in their own."""
  if len(combinations) == 1:
    model, frames, queries = combinations[0]
    yield kind.measure(model, int(frames), int(queries))
    return
  for model, frames, queries in combinations:
    command = [sys.executable, '-m', 'experiments.run', '--task=benchmark']
    command += [f'--model={model}', f'--frames={frames}']
    command += [f'--queries={queries}', f'--calls={_CALLS.value}']
    command += ['--json', f'--streaming={_STREAMING.value}']
    command.append(f'--lazy={_LAZY.value}')
    command.append(f'--export={_EXPORT.value}')
    if RESOLUTION.value is not None:
      command.append(f'--resolution={",".join(RESOLUTION.value)}')
    if _QUERY_CHUNK.value is not None:
      command.append(f'--query_chunk={_QUERY_CHUNK.value}')
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    # Libraries may print too: the row is the last line.
    yield json.loads(done.stdout.splitlines()[-1])


def measure(model: str, num_frames: int, num_queries: int) -> Row:
  """Times a preset with random weights on a random video."""
  tracker = make_random_tracker(model)
  config = tracker.config

  generator = np.random.default_rng(0)
  video = _make_video(generator, num_frames, config.resolution)
  points = sample_random_points(
      generator,
      1 if _LAZY.value else num_frames,
      config.resolution,
      num_queries,
  )

  def call() -> float:
    start = time.perf_counter()
    tracker.track_video(video, points, query_chunk=_QUERY_CHUNK.value)
    return time.perf_counter() - start

  compile_seconds = _time_compilation()
  first = call()
  compile_s = sum(compile_seconds)
  # The machine may be shared: rate and call are taken in turns, and the best
  # of each counts.
  rates, calls = [], []
  for _ in range(_CALLS.value):
    rates.append(measure_product_rate())
    calls.append(call())
  rates.append(measure_product_rate())
  seconds = min(calls, default=first - compile_s)
  operations = registry.get_preset(model).architecture.count_operations(
      config, num_frames, num_queries
  )
  return Row(
      preset=model,
      frames=num_frames,
      queries=num_queries,
      resolution='{}x{}'.format(*config.resolution),
      device=jax.devices()[0].device_kind,
      compile_s=compile_s,
      call_s=seconds,
      points_x_frames_per_s=num_frames * num_queries / seconds,
      peak_gb=measure_peak_memory(),
      efficiency=operations / seconds / max(rates),
  )


def _make_video(
    generator: np.random.Generator, num_frames: int, resolution: Resolution
) -> prepare.PreparedVideo:
  """Returns noise, held in memory or generated lazily."""
  if _LAZY.value:
    # What each frame is made of: making noise anew would take time.
    noise = generator.integers(256, size=(*resolution, 3), dtype=np.uint8)
    frames = LazyFrames(
        num_frames, resolution, lambda row: np.roll(noise, row, axis=1)
    )
    return prepare.PreparedVideo(frames, resolution)
  values = generator.uniform(-1, 1, (num_frames, *resolution, 3))
  return prepare.PreparedVideo(values.astype(np.float32), resolution)


def measure_steps(model: str, num_steps: int, num_queries: int) -> StreamRow:
  """Times the steps of a session of a preset with random weights."""
  tracker = make_random_tracker(model)
  resolution = tracker.functions.resolution
  generator = np.random.default_rng(0)
  frames = generator.integers(256, size=(8, *resolution, 3), dtype=np.uint8)
  points = sample_random_points(generator, 1, resolution, num_queries)
  compile_seconds = _time_compilation()
  session = tracker.start(frames[0], points[:, 1:])
  seconds = []
  for step in range(_WARM_STEPS + num_steps):
    start = time.perf_counter()
    session, _ = tracker.step(session, frames[step % len(frames)])
    seconds.append(time.perf_counter() - start)
  timed = np.asarray(seconds[_WARM_STEPS:])
  return StreamRow(
      preset=model,
      steps=num_steps,
      queries=num_queries,
      resolution='{}x{}'.format(*resolution),
      device=jax.devices()[0].device_kind,
      compile_s=sum(compile_seconds),
      step_ms=1e3 * float(np.median(timed)),
      slow_step_ms=1e3 * float(np.quantile(timed, 0.95)),
      points_x_frames_per_s=num_queries * num_steps / float(timed.sum()),
      peak_gb=measure_peak_memory(),
  )


def measure_export(model: str, num_frames: int, num_queries: int) -> ExportRow:
  """Times a preset with random weights, in JAX and in ONNX Runtime."""
  tracker = make_random_tracker(model)
  program = programs.make_track_program(
      tracker.functions, tracker.params, num_frames, num_queries
  )
  arrays = verification.make_arrays(program, num_queries)
  compiled = functools.partial(jax.jit(program.function), tracker.params)
  onnx_files.check_installed()
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / f'{model}.onnx'
    onnx_files.write_onnx(path, program, {})
    file_mb = path.stat().st_size / 1e6
    call = run_file.open_file(str(path))

  def call_jax() -> np.ndarray:
    return np.asarray(compiled(*arrays.values())[0])

  def call_onnx() -> np.ndarray:
    return call(arrays)['positions']

  difference = np.max(np.abs(call_jax() - call_onnx()))
  # The machine may be shared: both take turns, and the best of each counts.
  seconds: dict[Callable[[], np.ndarray], list[float]] = {
      call_jax: [],
      call_onnx: [],
  }
  for _ in range(_CALLS.value):
    for function, taken in seconds.items():
      start = time.perf_counter()
      function()
      taken.append(time.perf_counter() - start)
  jax_s, onnx_s = map(min, seconds.values())
  return ExportRow(
      preset=model,
      frames=num_frames,
      queries=num_queries,
      resolution='{}x{}'.format(*tracker.functions.resolution),
      jax_s=jax_s,
      onnx_s=onnx_s,
      onnx_to_jax=onnx_s / jax_s,
      file_mb=file_mb,
      difference_px=float(difference),
  )


def make_random_tracker(model: str) -> Tracker:
  """Returns a preset with random weights, at the resolution of --resolution."""
  preset = registry.get_preset(model)
  settings = {}
  if RESOLUTION.value is not None:
    settings['resolution'] = tuple(int(side) for side in RESOLUTION.value)
  config = replace_settings(preset.config, settings)
  functions = preset.architecture.make_functions(config)
  params = functions.init(jax.random.key(0))
  return Tracker(model, config, functions, params)


def _time_compilation() -> list[float]:
  """Returns a list to which the seconds of each compilation are appended."""
  compile_seconds: list[float] = []

  def listen(event: str, duration_secs: float, **details: str | int) -> None:
    del details
    if event.startswith(_COMPILE_EVENTS):
      compile_seconds.append(duration_secs)

  jax.monitoring.register_event_duration_secs_listener(listen)
  return compile_seconds


def measure_product_rate() -> float:
  """Returns floating-point operations per second of successive products."""
  matrix = jnp.ones((_PRODUCT_SIZE, _PRODUCT_SIZE))
  product = jax.jit(lambda a: jnp.dot(a, a, precision='highest'))
  jax.block_until_ready(product(matrix))
  start = time.perf_counter()
  for _ in range(_PRODUCTS):
    jax.block_until_ready(product(matrix))
  seconds = time.perf_counter() - start
  return 2 * _PRODUCT_SIZE**3 * _PRODUCTS / seconds


def measure_peak_memory() -> float:
  """Returns peak memory in GB, of the device if available, else the process."""
  statistics = jax.devices()[0].memory_stats() or {}
  if 'peak_bytes_in_use' in statistics:
    return statistics['peak_bytes_in_use'] / 1e9
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return peak * (1 if sys.platform == 'darwin' else 1024) / 1e9
