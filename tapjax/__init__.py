"""tapjax: Tracking Any Point in JAX and Haiku.

```python
import tapjax

frames = tapjax.read_video('video.mp4')
tracker = tapjax.load('tapir')
query_points = tapjax.sample_grid_points(frames.shape[1:3], 8)
tracks = tracker.track(frames, query_points)
```
"""

from tapjax.compilation import count_compilations
from tapjax.compilation import keep_compiled_programs
from tapjax.geometry import sample_grid_points
from tapjax.models.registry import list_models
from tapjax.models.registry import ModelInfo
from tapjax.pretrained import load
from tapjax.pretrained import Tracker
from tapjax.types import Tracks
from tapjax.types import TrackState
from tapjax.video_io import open_video
from tapjax.video_io import read_video
from tapjax.video_io import write_video
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
