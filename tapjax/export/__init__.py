"""Export of trackers to files that run without tapjax.

A file holds the weights, takes frames and points and returns tracks, at one
resolution. Names and shapes are documented in `tapjax.export.programs` and in
the `.json` beside each file. A file that disagrees with JAX is not kept.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import json
import os
import pathlib
import tempfile
from typing import Any, Literal, NamedTuple

import jax

from tapjax.export import onnx_files
from tapjax.export import stablehlo_files
from tapjax.export import verification
from tapjax.export.programs import make_session_programs
from tapjax.export.programs import make_track_program
from tapjax.export.programs import Program
from tapjax.export.verification import Difference
from tapjax.files import write_atomically
from tapjax.models import registry
from tapjax.models.contract import set_platform
from tapjax.models.contract import TrackerFunctions
from tapjax.tracker import Tracker
from tapjax.tracking.options import Progress

__all__ = [
    'Difference',
    'Exported',
    'Format',
    'check_installed',
    'check_request',
    'export_tracker',
]

Format = Literal['onnx', 'stablehlo']

# Feature stride of every tracker, in pixels; resolutions are multiples of it.
_STRIDE = 8
_COORDINATES = (
    'frames are RGB, uint8, [time, height, width, 3]; queries are (t, y, x), '
    'points (y, x) and positions (x, y), in pixels of the frames, where (0, 0) '
    'is the outer corner of the upper-left pixel and (0.5, 0.5) its center; t '
    'counts frames from 0'
)


class Exported(NamedTuple):
  """Written files, and their differences from JAX."""

  paths: tuple[pathlib.Path, ...]
  differences: tuple[Difference, ...]


def export_tracker(
    tracker: Tracker,
    output: str | os.PathLike[str],
    *,
    format: Format,  # noqa: A002 - as the flag has it.
    num_queries: int | None,
    num_frames: int | None = None,
    weights: str = 'published',
    report: Progress | None = None,
) -> Exported:
  """Exports a tracker to files, and verifies them against JAX.

  Args:
    tracker: tracker with weights, at the resolution of the frames.
    output: existing folder.
    format: 'onnx', or 'stablehlo' in the container of `jax.export`.
    num_queries: number of points; None for a free number, in StableHLO.
    num_frames: number of frames of the video; None, for trackers that stream,
      writes one file that starts a session and one that steps by a frame.
    weights: origin of the weights, for the description.
    report: called as `report(stage, done, total)`.

  Raises:
    ValueError: the tracker does not support the request, or a written file does
      not run or disagrees with JAX.
  """
  check_request(
      tracker.name, tracker.functions, format, num_queries, num_frames
  )
  check_installed(format)
  report = report or (lambda stage, done, total: None)
  programs = _make_programs(tracker, 'cpu', num_queries, num_frames)
  others = programs  # An ONNX file has the form for CPUs alone.
  if format == 'stablehlo':
    others = _make_programs(tracker, 'tpu', num_queries, num_frames)
  folder = pathlib.Path(output)
  description = _describe(tracker, weights)
  with tempfile.TemporaryDirectory(dir=folder, prefix='.export_') as hidden:
    paths = [
        pathlib.Path(hidden) / f'{_name_files(tracker, program)}.{format}'
        for program in programs
    ]
    report('export', 0, len(paths))
    for i, (path, program) in enumerate(zip(paths, programs, strict=True)):
      if format == 'onnx':
        onnx_files.write_onnx(path, program, description)
      else:
        stablehlo_files.write_stablehlo(path, program, others[i])
      report('export', i + 1, len(paths))
    report('verify', 0, 1)
    differences = verification.verify(paths, programs, num_queries)
    _check_differences(differences)
    report('verify', 1, 1)
    paths = [path.replace(folder / path.name) for path in paths]
  for path, program in zip(paths, programs, strict=True):
    _write_description(path.with_suffix('.json'), description, program)
  return Exported(tuple(paths), differences)


def check_request(
    name: str,
    functions: TrackerFunctions,
    format: Format,  # noqa: A002 - as the flag has it.
    num_queries: int | None,
    num_frames: int | None,
) -> None:
  """Raises ValueError for an unsupported request, before any work."""
  for kind, number in (('queries', num_queries), ('frames', num_frames)):
    if number is not None and number < 1:
      raise ValueError(f'{kind} must be at least 1; got {number}')
  if num_queries is None and format == 'onnx':
    raise ValueError(
        'queries must be a number for onnx, whose files are of fixed sizes; '
        'got any - export for as many points as you need at most, since '
        + (
            'others change no track'
            if functions.queries_independent
            else 'all are tracked together'
        )
    )
  if num_queries is None and not functions.queries_independent:
    raise ValueError(
        f'queries must be a number for {name}, whose points are tracked '
        'together; got any - export for as many as you will track'
    )
  resolution = functions.resolution
  if any(side % _STRIDE for side in resolution):
    nearest = [max(1, round(side / _STRIDE)) * _STRIDE for side in resolution]
    raise ValueError(
        f'resolution must be multiples of {_STRIDE}, the stride of the '
        f'features; got {",".join(map(str, resolution))} - use '
        f'{",".join(map(str, nearest))}'
    )
  if num_frames is None and not functions.streams:
    streaming = [
        model.name for model in registry.list_models() if model.streams
    ]
    raise ValueError(
        f'step needs a tracker that sees only the past; {name} needs '
        f'the whole video - use one of {", ".join(streaming)}, or say how many '
        'frames the video has'
    )


def check_installed(format: Format) -> None:  # noqa: A002 - as the flag has it.
  """Raises ValueError if packages required by a format are missing."""
  if format == 'onnx':
    onnx_files.check_installed()


def _make_programs(
    tracker: Tracker,
    platform: str,
    num_queries: int | None,
    num_frames: int | None,
) -> tuple[Program, ...]:
  """Returns the programs of a request, in the form for a platform."""
  functions = set_platform(tracker.functions, platform)
  if num_frames is None:
    return make_session_programs(functions, tracker.params, num_queries)
  return (
      make_track_program(functions, tracker.params, num_frames, num_queries),
  )


def _name_files(tracker: Tracker, program: Program) -> str:
  """Returns the stem of a program's files."""
  if program.name == 'track':
    return tracker.name
  return f'{tracker.name}_{program.name}'


def _check_differences(differences: Sequence[Difference]) -> None:
  wrong = [difference for difference in differences if not difference.is_small]
  if wrong:
    raise ValueError(
        'what was exported must compute what JAX does; it differs by '
        f'{" and ".join(map(str, wrong))}, and nothing is written'
    )


def _describe(tracker: Tracker, weights: str) -> dict[str, str]:
  """Returns the metadata of exported files."""
  height, width = tracker.functions.resolution
  return {
      'preset': tracker.name,
      'resolution': f'{height},{width}',
      'coordinates': _COORDINATES,
      'weights': weights,
      'licence_of_published_weights': registry.get_preset(tracker.name).licence,
  }


def _list_sides(shape: jax.ShapeDtypeStruct) -> list[int | str]:
  """Returns the sides of a shape, with 'n' for a free number of queries."""
  return [side if isinstance(side, int) else str(side) for side in shape.shape]


def _write_description(
    path: pathlib.Path, description: dict[str, str], program: Program
) -> None:
  def describe(
      shapes: Mapping[str, jax.ShapeDtypeStruct],
  ) -> dict[str, dict[str, Any]]:
    return {
        name: {'type': str(shape.dtype), 'shape': _list_sides(shape)}
        for name, shape in shapes.items()
    }

  contents = {
      **description,
      'inputs': describe(program.inputs),
      'outputs': describe(program.outputs),
  }
  with write_atomically(path) as file:
    file.write(json.dumps(contents, indent=2).encode() + b'\n')
