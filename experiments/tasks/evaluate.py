"""Evaluation of trackers on benchmarks, and reports of results."""

from collections.abc import Sequence
import pathlib
import sys
from typing import Any

from absl import flags
import jax
import tqdm

from experiments.config import override_config
from experiments.tasks import benchmark as speed
from experiments.tasks.training import CHANGES
import tapjax
from tapjax.data.benchmarks.tapvid import open_robotap
from tapjax.evaluation import benchmarks
from tapjax.evaluation import classical
from tapjax.evaluation import methods
from tapjax.evaluation import report
from tapjax.evaluation.evaluate import evaluate
from tapjax.evaluation.evaluate import iterate_results
from tapjax.evaluation.evaluate import Share
from tapjax.models import registry

BENCHMARK = flags.DEFINE_list(
    'benchmark',
    ['procedural_24', 'procedural_48'],
    f'Benchmarks to run, of {", ".join(benchmarks.BENCHMARKS)}.',
)
_DATA = flags.DEFINE_string(
    'data', None, 'File, zip or folder with the data of the benchmark.'
)
_SPLITS = flags.DEFINE_list(
    'splits', None, 'Splits of RoboTAP; all without it.'
)
CHECKPOINT = flags.DEFINE_string(
    'checkpoint', None, "Weight file; the preset's own without it."
)
NUM_PROCESSES = flags.DEFINE_integer(
    'num_processes', None, 'Processes that share the videos and the folder.'
)
PROCESS = flags.DEFINE_integer('process', None, 'Which of them this is.')
_LATEX = flags.DEFINE_bool('latex', False, 'Also print rows for LaTeX.')


def run(workdir: str) -> None:
  """Evaluates each model on each benchmark and prints one table."""
  results = []
  for model in speed.MODELS.value:
    method = _make_method(model)
    for name in BENCHMARK.value:
      result = run_one(name, method, pathlib.Path(workdir))
      if result is not None:
        results.append(result)
  if results:
    _show(report.format_table(results))


def show_report(workdir: str) -> None:
  """Prints all results below a folder, with published scores."""
  results = list(iterate_results(pathlib.Path(workdir)))
  if not results:
    raise ValueError(f'workdir must have results; {workdir} has none')
  _show(report.format_table(results))
  if _LATEX.value:
    for result in results:
      _show(f'% {result["model"]} on {result["benchmark"]}')
      _show(report.format_latex(result))


def parse_settings(model: str, changes: Sequence[str]) -> dict[str, Any]:
  """Parses `--set NAME=VALUE` as settings of a preset."""
  config = override_config(registry.get_preset(model).config, changes)
  names = {change.partition('=')[0].partition('.')[0] for change in changes}
  return {name: getattr(config, name) for name in sorted(names)}


def _make_method(model: str) -> methods.Method:
  if model == classical.NAME:
    return methods.make_classical_method(
        _get_resolution() or benchmarks.METRIC_RESOLUTION
    )
  return methods.make_method(load_tracker(model))


def load_tracker(model: str) -> tapjax.Tracker:
  """Loads a preset with the weights and settings of the flags."""
  settings = parse_settings(model, CHANGES.value)
  if (resolution := _get_resolution()) is not None:
    settings['resolution'] = resolution
  return tapjax.load(model, checkpoint=CHECKPOINT.value, **settings)


def _get_resolution() -> tuple[int, int] | None:
  if speed.RESOLUTION.value is None:
    return None
  height, width = speed.RESOLUTION.value
  return int(height), int(width)


def run_one(
    name: str,
    method: methods.Method,
    workdir: pathlib.Path,
    share: Share | None = None,
) -> dict | None:
  """Evaluates a tracker on a benchmark, or on a share of its videos.

  The share is that of the flags by default. Returns None while other processes
  are not finished.
  """
  benchmark = benchmarks.get_benchmark(name)
  data = None if _DATA.value is None else pathlib.Path(_DATA.value)
  source = benchmarks.open_benchmark(benchmark, data)
  if _SPLITS.value is not None and data is not None:
    source = open_robotap(data, [int(split) for split in _SPLITS.value])
  if share is None:
    share = Share(
        jax.process_index() if PROCESS.value is None else PROCESS.value,
        NUM_PROCESSES.value or jax.process_count(),
    )
  with tqdm.tqdm(desc=f'{method.name} {name}', file=sys.stderr) as bar:

    def show(done: int, total: int) -> None:
      bar.total = total
      bar.update(done - bar.n)

    folder = workdir / name / method.name
    results = evaluate(
        benchmark, source, method, folder, share=share, report=show
    )
  if results is None:
    sys.stderr.write(f'{folder}: other processes are not finished\n')
    return None
  for video, error in results['failed'].items():
    sys.stderr.write(f'{name}: {video} was left out: {error}\n')
  return results


def _show(text: str) -> None:
  sys.stdout.write(f'{text}\n')
