"""Every preset, one line each, and how its checkpoints are read."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import pathlib
from typing import Any, NamedTuple

import numpy as np

from tapjax.checkpoints.download import WeightFile
from tapjax.geometry import Resolution
from tapjax.models import tapnet
from tapjax.models.contract import TrackerFunctions
from tapjax.models.locotrack import config as locotrack
from tapjax.models.locotrack import cost as locotrack_cost
from tapjax.models.locotrack import weights as locotrack_weights
from tapjax.models.locotrack.functions import LocoTrackFunctions
from tapjax.models.pips_plus_plus import cost as pips_plus_plus_cost
from tapjax.models.pips_plus_plus import weights as pips_plus_plus_weights
from tapjax.models.pips_plus_plus.config import PIPS_PLUS_PLUS
from tapjax.models.pips_plus_plus.functions import PipsPlusPlusFunctions
from tapjax.models.point_transformer import config as point_transformer
from tapjax.models.point_transformer import cost as point_transformer_cost
from tapjax.models.point_transformer import weights as point_transformer_weights
from tapjax.models.point_transformer.functions import PointTransformerFunctions
from tapjax.models.tapir import config as tapir
from tapjax.models.tapir import cost as tapir_cost
from tapjax.models.tapir import weights as tapir_weights
from tapjax.models.tapir.functions import TapirFunctions
from tapjax.models.tapir_tiny import cost as tapir_tiny_cost
from tapjax.models.tapir_tiny import weights as tapir_tiny_weights
from tapjax.models.tapir_tiny.config import TAPIR_TINY
from tapjax.models.tapir_tiny.functions import TapirTinyFunctions
from tapjax.models.taptr import cost as taptr_cost
from tapjax.models.taptr import weights as taptr_weights
from tapjax.models.taptr.config import TAPTRV2
from tapjax.models.taptr.functions import TaptrFunctions
from tapjax.models.weight_names import WeightName
from tapjax.spelling import suggest_name


class EmbeddedFile(NamedTuple):
  """A weight file inside the package, by its name in `tapjax/weights`."""

  name: str

  @property
  def stem(self) -> str:
    """The name without its ending."""
    return self.name.partition('.')[0]


class Architecture(NamedTuple):
  """Functions, weight names and cost that presets of one tracker share.

  Attributes:
    make_functions: from a config to pure functions.
    list_weight_names: from a config to the names in published files.
    infer_config: replaces the settings of a config that the shapes of a
      published Haiku or PyTorch file decide.
    count_operations: from a config, frames and queries to multiply-adds times
      two, as the benchmark reports efficiency.
    ignored: shell patterns of arrays that published files have to spare.
    select_arrays: the arrays of a published PyTorch file that are weights, by
      the names in `list_weight_names`.
    upgrade_settings: translates the settings in a `.safetensors` file of an
      earlier version.
  """

  make_functions: Callable[[Any], TrackerFunctions]
  list_weight_names: Callable[[Any], Iterator[WeightName]]
  infer_config: Callable[[Any, Mapping[str, tuple[int, ...]]], Any]
  count_operations: Callable[[Any, int, int], float]
  ignored: tuple[str, ...] = ()
  select_arrays: Callable[
      [Mapping[str, np.ndarray]], Mapping[str, np.ndarray]
  ] = dict
  upgrade_settings: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict


class Preset(NamedTuple):
  """A published tracker.

  Attributes:
    name: name that `tapjax.load` takes.
    config: its settings.
    architecture: tracker of the preset.
    num_parameters: learned numbers, without running averages.
    weights: where its checkpoint was published, or is in the package; None if
      no one file is known.
    page: where its weights are offered, for people; None if in the package or
      nowhere.
    licence: of the weights.
    scores: as published, in percent: Average Jaccard, query first, at 256x256,
      or what the key ends in.
  """

  name: str
  config: Any
  architecture: Architecture
  num_parameters: int
  weights: WeightFile | EmbeddedFile | None
  page: str | None
  licence: str
  scores: Mapping[str, float]


class ModelInfo(NamedTuple):
  """Properties of a preset, as `tapjax.list_models` returns them.

  Attributes:
    name: name that `tapjax.load` takes.
    num_parameters: learned numbers, without running averages.
    licence: of the published weights.
    resolution: (height, width) at which the network sees a video.
    scores: as published, in percent: Average Jaccard, query first, at 256x256,
      or what the key ends in.
    streams: whether it can track frame by frame.
    queries_independent: whether a track depends on its own query alone; else
      points attend to each other, and results depend on which of them are
      tracked together.
    url: where its checkpoint was published, or is offered; None if it is in
      the package or nowhere.
  """

  name: str
  num_parameters: int
  licence: str
  resolution: Resolution
  scores: Mapping[str, float]
  streams: bool
  queries_independent: bool
  url: str | None


_TAPIR = Architecture(
    TapirFunctions,
    tapir_weights.list_weight_names,
    tapir_weights.infer_config,
    tapir_cost.count_operations,
    upgrade_settings=tapir_weights.upgrade_settings,
)
_TAPIR_TINY = Architecture(
    TapirTinyFunctions,
    tapir_weights.list_weight_names,
    tapir_tiny_weights.infer_config,
    tapir_tiny_cost.count_operations,
    upgrade_settings=tapir_tiny_weights.upgrade_settings,
)
_TAPNET = Architecture(
    tapnet.TapNetFunctions,
    tapnet.list_weight_names,
    lambda config, shapes: config,
    tapnet.count_operations,
)
_LOCOTRACK = Architecture(
    LocoTrackFunctions,
    locotrack_weights.list_weight_names,
    locotrack_weights.infer_config,
    locotrack_cost.count_operations,
    ignored=locotrack_weights.IGNORED,
)
_PIPS_PLUS_PLUS = Architecture(
    PipsPlusPlusFunctions,
    pips_plus_plus_weights.list_weight_names,
    lambda config, shapes: config,
    pips_plus_plus_cost.count_operations,
)
_POINT_TRANSFORMER = Architecture(
    PointTransformerFunctions,
    point_transformer_weights.list_weight_names,
    lambda config, shapes: config,
    point_transformer_cost.count_operations,
    ignored=point_transformer_weights.IGNORED,
)
_TAPTR = Architecture(
    TaptrFunctions,
    taptr_weights.list_weight_names,
    lambda config, shapes: config,
    taptr_cost.count_operations,
    select_arrays=taptr_weights.select_arrays,
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
      page=_BUCKET + path,
      licence='Apache-2.0',
      scores=dict(zip(_BENCHMARKS, scores, strict=True)),
  )


def _describe_locotrack(
    name: str,
    config: Any,
    num_parameters: int,
    url: str,
    scores: Mapping[str, float],
) -> Preset:
  """Returns a preset of LocoTrack; a folder as URL names no file."""
  weights = None
  if not url.endswith('/'):
    weights = WeightFile(url, size=None, sha256=None)
  return Preset(
      name=name,
      config=config,
      architecture=_LOCOTRACK,
      num_parameters=num_parameters,
      weights=weights,
      page=url,
      licence='Apache-2.0',
      scores=scores,
  )


def _describe_taptr(num_parameters: int, path: str, **scores: float) -> Preset:
  """Returns a preset of the TAPTR project, whose weights are restricted."""
  licence = 'non-commercial research only'
  return Preset(
      name='taptrv2',
      config=TAPTRV2,
      architecture=_TAPTR,
      num_parameters=num_parameters,
      weights=WeightFile(
          _TAPTR_SERIES + path,
          size=None,
          sha256=None,
          notice=f'the weights of taptrv2 are licensed for {licence}',
      ),
      page=_TAPTR_SERIES + path,
      licence=licence,
      scores=scores,
  )


def _describe_point_transformer(
    name: str, config: Any, num_parameters: int
) -> Preset:
  """Returns a preset of the point transformer, which was published without."""
  return Preset(
      name=name,
      config=config,
      architecture=_POINT_TRANSFORMER,
      num_parameters=num_parameters,
      weights=None,
      page=None,
      licence='none published',
      scores={},
  )


_EMBEDDED = Preset(
    name='tapir_tiny',
    config=TAPIR_TINY,
    architecture=_TAPIR_TINY,
    num_parameters=1_236_663,
    weights=EmbeddedFile('tapir_tiny.safetensors'),
    page=None,
    licence='Apache-2.0',
    scores={},
)
_TAPTR_SERIES = 'https://huggingface.co/HYeungLee/TAPTR-Series/resolve/main/'
_BUCKET = 'https://storage.googleapis.com/dm-tapnet/'
_HUB = 'https://huggingface.co/'
_LOCOTRACK_FILES = _HUB + 'datasets/hamacojr/LocoTrack-pytorch-weights/resolve/main/'  # noqa: E501
_LOCOTRACK_EFFICIENTNET = _HUB + 'yunpengZhangup/locotrack-EfficientNet/'
_PIPS_URL = 'https://www.dropbox.com/scl/fi/czdlt2zc2ji2b7zd0pvoe/reference_model.tar.gz?rlkey=56ebq4g5dk01kyq8kuismev14&dl=1'
# In its own protocol: the first frame's queries, followed at 512x896.
_PIPS_SCORES = {
    'tapvid_davis_d_avg': 70.6,
    'crohd_d_avg': 35.5,  # The paper; editions of the README differ.
    'point_odyssey_d_avg': 31.3,
}
_BENCHMARKS = ('tapvid_davis', 'tapvid_kinetics', 'robotap')

# fmt: off
_PRESETS = (
    _describe(_TAPIR, 'tapir', tapir.TAPIR, 31_072_327, 'tapir_checkpoint_panning.npy', 58.5, 50.0, 59.6),  # noqa: E501
    _describe(_TAPIR, 'bootstapir', tapir.BOOTSTAPIR, 54_699_335, 'bootstap/bootstapir_checkpoint_v2.npy', 62.4, 55.8, 69.2),  # noqa: E501
    _describe(_TAPIR, 'causal_tapir', tapir.CAUSAL_TAPIR, 31_097_415, 'causal_tapir_checkpoint.npy', 56.2, 51.2, 59.1),  # noqa: E501
    _describe(_TAPIR, 'causal_bootstapir', tapir.CAUSAL_BOOTSTAPIR, 54_699_335, 'bootstap/causal_bootstapir_checkpoint.npy', 59.7, 55.1, 69.1),  # noqa: E501
    _describe(_TAPNET, 'tapnet', tapnet.TAPNET, 2_791_090, 'checkpoint.npy', 33.0, 38.5, 45.1),  # noqa: E501
    _EMBEDDED,
    _describe_locotrack('locotrack_small', locotrack.SMALL, 8_236_133, _LOCOTRACK_FILES + 'locotrack_small.ckpt', {}),  # noqa: E501
    _describe_locotrack('locotrack_base', locotrack.BASE, 11_519_717, _LOCOTRACK_FILES + 'locotrack_base.ckpt', {'tapvid_davis': 62.6}),  # noqa: E501
    _describe_locotrack('locotrack_efficientnet_b0', locotrack.EFFICIENTNET_B0, 3_007_143, _LOCOTRACK_EFFICIENTNET, {}),  # noqa: E501
    _describe_locotrack('locotrack_efficientnet_b2', locotrack.EFFICIENTNET_B2, 4_386_005, _LOCOTRACK_EFFICIENTNET, {}),  # noqa: E501
    _describe_locotrack('locotrack_efficientnet_b5', locotrack.EFFICIENTNET_B5, 8_364_557, _LOCOTRACK_EFFICIENTNET, {}),  # noqa: E501
    _describe_locotrack('locotrack_efficientnet_b0_934', locotrack.EFFICIENTNET_B0_934, 3_031_735, _LOCOTRACK_EFFICIENTNET, {}),  # noqa: E501
    _describe_locotrack('locotrack_efficientnet_b0_tiny', locotrack.EFFICIENTNET_B0_TINY, 885_239, _LOCOTRACK_EFFICIENTNET, {}),  # noqa: E501
    _describe_locotrack('locotrack_efficientnet_b0_proj', locotrack.EFFICIENTNET_B0_PROJ, 3_104_167, _LOCOTRACK_EFFICIENTNET, {}),  # noqa: E501
    _describe_locotrack('locotrack_efficientnet_b0_deep', locotrack.EFFICIENTNET_B0_DEEP, 3_815_837, _LOCOTRACK_EFFICIENTNET, {}),  # noqa: E501
    _describe_locotrack('locotrack_efficientnet_256', locotrack.EFFICIENTNET_256, 3_476_519, _LOCOTRACK_EFFICIENTNET, {}),  # noqa: E501
    Preset('pips_plus_plus', PIPS_PLUS_PLUS, _PIPS_PLUS_PLUS, 17_565_410, WeightFile(_PIPS_URL, size=None, sha256=None), _PIPS_URL, 'MIT', _PIPS_SCORES),  # noqa: E501
    _describe_taptr(40_040_803, 'taptrv2.pth', tapvid_davis=63.5, tapvid_kinetics=49.7),  # noqa: E501
    _describe_point_transformer('point_transformer_resnet18', point_transformer.RESNET18, 14_501_314),  # noqa: E501
    _describe_point_transformer('point_transformer_resnet34', point_transformer.RESNET34, 24_609_474),  # noqa: E501
    _describe_point_transformer('point_transformer_resnet50', point_transformer.RESNET50, 27_226_050),  # noqa: E501
)
# fmt: on

DEFAULT = 'tapir_tiny'
PRESETS: Mapping[str, Preset] = {preset.name: preset for preset in _PRESETS}


def get_preset(name: str) -> Preset:
  """Returns a preset; ValueError for an unknown one lists those known."""
  if name in PRESETS:
    return PRESETS[name]
  hint = suggest_name(str(name).lower().replace('-', '_'), PRESETS)
  if pathlib.Path(str(name)).suffix:
    hint = f' - to read a file of weights, pass checkpoint={str(name)!r}'
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
          streams=_make_functions(preset).streams,
          queries_independent=_make_functions(preset).queries_independent,
          url=preset.page,
      )
      for preset in PRESETS.values()
  )


def _make_functions(preset: Preset) -> TrackerFunctions:
  return preset.architecture.make_functions(preset.config)
