"""Every preset, one line each, and how its checkpoints are read."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import difflib
from typing import Any, NamedTuple

import numpy as np

from tapjax.checkpoints.download import WeightFile
from tapjax.geometry import Resolution
from tapjax.models import tapir
from tapjax.models import tapnet
from tapjax.models import taptr
from tapjax.models import taptr_names
from tapjax.models import taptr_network
from tapjax.models.base import TrackerFunctions
from tapjax.models.names import WeightName


class Architecture(NamedTuple):
  """What the presets of one tracker share.

  Attributes:
    make_functions: from a config to pure functions.
    list_weight_names: from a config to the names in published files.
    infer_config: replaces the settings of a config that the shapes of a
      published Haiku or PyTorch file decide.
    count_operations: from a config, frames and queries to multiply-adds times
      two, as the benchmark reports efficiency.
    select_arrays: the arrays of a published PyTorch file that are weights, by
      the names in `list_weight_names`.
  """

  make_functions: Callable[[Any], TrackerFunctions]
  list_weight_names: Callable[[Any], Iterator[WeightName]]
  infer_config: Callable[[Any, Mapping[str, tuple[int, ...]]], Any]
  count_operations: Callable[[Any, int, int], float]
  select_arrays: Callable[
      [Mapping[str, np.ndarray]], Mapping[str, np.ndarray]
  ] = dict


class Preset(NamedTuple):
  """A published tracker.

  Attributes:
    name: what `tapjax.load` takes.
    config: its settings.
    architecture: what it is a preset of.
    num_parameters: learned numbers, without running averages.
    weights: where its checkpoint was published.
    licence: of the weights.
    scores: published Average Jaccard in percent, query first, at 256x256.
  """

  name: str
  config: Any
  architecture: Architecture
  num_parameters: int
  weights: WeightFile
  licence: str
  scores: Mapping[str, float]


class ModelInfo(NamedTuple):
  """What `tapjax.list_models` says of a preset.

  Attributes:
    name: what `tapjax.load` takes.
    num_parameters: learned numbers, without running averages.
    licence: of the published weights.
    resolution: (height, width) at which the network sees a video.
    scores: published Average Jaccard in percent, query first, at 256x256.
    streams: whether it can track frame by frame.
    queries_independent: whether a track depends on its own query alone; else
      points attend to each other, and results depend on which of them are
      tracked together.
    url: where its checkpoint was published.
  """

  name: str
  num_parameters: int
  licence: str
  resolution: Resolution
  scores: Mapping[str, float]
  streams: bool
  queries_independent: bool
  url: str


_TAPIR = Architecture(
    tapir.make_functions,
    tapir.list_weight_names,
    tapir.infer_config,
    tapir.count_operations,
)
_TAPNET = Architecture(
    tapnet.make_functions,
    tapnet.list_weight_names,
    lambda config, shapes: config,
    tapnet.count_operations,
)
_TAPTR = Architecture(
    taptr.make_functions,
    taptr_names.list_weight_names,
    lambda config, shapes: config,
    taptr.count_operations,
    taptr_names.select_arrays,
)


def _describe(
    architecture: Architecture,
    name: str,
    config: Any,
    num_parameters: int,
    path: str,
    *scores: float,
) -> Preset:
  """Returns a preset of the TAP-Net project, whose weights are Apache 2.0."""
  return Preset(
      name=name,
      config=config,
      architecture=architecture,
      num_parameters=num_parameters,
      weights=WeightFile(_BUCKET + path, size=None, sha256=None),
      licence='Apache-2.0',
      scores=dict(zip(_BENCHMARKS, scores, strict=True)),
  )


def _describe_taptr(num_parameters: int, path: str, **scores: float) -> Preset:
  """Returns a preset of the TAPTR project, whose weights are restricted."""
  licence = 'non-commercial research only'
  return Preset(
      name='taptrv2',
      config=taptr_network.TAPTRV2,
      architecture=_TAPTR,
      num_parameters=num_parameters,
      weights=WeightFile(
          _TAPTR_SERIES + path,
          size=None,
          sha256=None,
          notice=f'the weights of taptrv2 are licensed for {licence}',
      ),
      licence=licence,
      scores=scores,
  )


_TAPTR_SERIES = 'https://huggingface.co/HYeungLee/TAPTR-Series/resolve/main/'
_BUCKET = 'https://storage.googleapis.com/dm-tapnet/'
_BENCHMARKS = ('tapvid_davis', 'tapvid_kinetics', 'robotap')

# fmt: off
_PRESETS = (
    _describe(_TAPIR, 'tapir', tapir.TAPIR, 31_072_327, 'tapir_checkpoint_panning.npy', 58.5, 50.0, 59.6),  # noqa: E501
    _describe(_TAPIR, 'bootstapir', tapir.BOOTSTAPIR, 54_699_335, 'bootstap/bootstapir_checkpoint_v2.npy', 62.4, 55.8, 69.2),  # noqa: E501
    _describe(_TAPIR, 'causal_tapir', tapir.CAUSAL_TAPIR, 31_097_415, 'causal_tapir_checkpoint.npy', 56.2, 51.2, 59.1),  # noqa: E501
    _describe(_TAPIR, 'causal_bootstapir', tapir.CAUSAL_BOOTSTAPIR, 54_699_335, 'bootstap/causal_bootstapir_checkpoint.npy', 59.7, 55.1, 69.1),  # noqa: E501
    _describe(_TAPNET, 'tapnet', tapnet.TAPNET, 2_791_090, 'checkpoint.npy', 33.0, 38.5, 45.1),  # noqa: E501
    _describe_taptr(40_040_803, 'taptrv2.pth', tapvid_davis=63.5, tapvid_kinetics=49.7),  # noqa: E501
)
# fmt: on

PRESETS: Mapping[str, Preset] = {preset.name: preset for preset in _PRESETS}


def get_preset(name: str) -> Preset:
  """Returns a preset; ValueError for an unknown one lists those known."""
  if name in PRESETS:
    return PRESETS[name]
  close = difflib.get_close_matches(str(name), PRESETS, 1)
  hint = f' - did you mean {close[0]}?' if close else ''
  raise ValueError(
      f'name must be one of {", ".join(PRESETS)}; got {name!r}{hint}'
  )


def list_models() -> tuple[ModelInfo, ...]:
  """Returns what there is to know about every preset."""
  return tuple(
      ModelInfo(
          name=preset.name,
          num_parameters=preset.num_parameters,
          licence=preset.licence,
          resolution=preset.config.resolution,
          scores=preset.scores,
          streams=_make_functions(preset).make_memory is not None,
          queries_independent=_make_functions(preset).queries_independent,
          url=preset.weights.url,
      )
      for preset in PRESETS.values()
  )


def _make_functions(preset: Preset) -> TrackerFunctions:
  return preset.architecture.make_functions(preset.config)
