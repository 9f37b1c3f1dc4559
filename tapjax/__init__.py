"""tapjax: Tracking Any Point in JAX and Haiku.

```python
import tapjax

frames = tapjax.read_video('video.mp4')
tracker = tapjax.load('tapir')
query_points = tapjax.sample_grid_points(frames.shape[1:3], 8)
tracks = tracker.track(frames, query_points)
```
"""

import importlib
from typing import Any, TYPE_CHECKING

if TYPE_CHECKING:
  from tapjax.geometry import sample_grid_points
  from tapjax.media.video import open_video
  from tapjax.media.video import read_video
  from tapjax.media.video import write_video
  from tapjax.models.registry import list_models
  from tapjax.models.registry import ModelInfo
  from tapjax.pretrained import load
  from tapjax.tracker import Tracker
  from tapjax.tracking.compilation import count_compilations
  from tapjax.tracking.compilation import keep_compiled_programs
  from tapjax.types import Tracks
  from tapjax.types import TrackState
  from tapjax.visualization import draw_tracks

__version__ = '0.1.0'

__all__ = [
    'ModelInfo',
    'TrackState',
    'Tracker',
    'Tracks',
    'count_compilations',
    'draw_tracks',
    'keep_compiled_programs',
    'list_models',
    'load',
    'open_video',
    'read_video',
    'sample_grid_points',
    'write_video',
]

# Public names are imported on first use, so that `tapjax --help` is quick.
_MODULES = {
    'ModelInfo': 'tapjax.models.registry',
    'TrackState': 'tapjax.types',
    'Tracker': 'tapjax.tracker',
    'Tracks': 'tapjax.types',
    'count_compilations': 'tapjax.tracking.compilation',
    'draw_tracks': 'tapjax.visualization',
    'keep_compiled_programs': 'tapjax.tracking.compilation',
    'list_models': 'tapjax.models.registry',
    'load': 'tapjax.pretrained',
    'open_video': 'tapjax.media.video',
    'read_video': 'tapjax.media.video',
    'sample_grid_points': 'tapjax.geometry',
    'write_video': 'tapjax.media.video',
}


if not TYPE_CHECKING:  # Type checkers know the names above and no others.

  def __getattr__(name: str) -> Any:
    if name not in _MODULES:
      raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})
