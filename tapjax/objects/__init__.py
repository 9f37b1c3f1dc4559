"""Multi-object tracking by tracked points.

```python
import tapjax
from tapjax import objects

def detect(frame):  # Any detector.
  return objects.Detections(boxes=..., labels=['cat', 'dog'])

found = objects.track_objects(tapjax.load(), frames, detect)
print(found.ids, found.boxes[:, -1])  # (left, top, right, bottom)
```
"""

from tapjax.objects.boxes import measure_overlaps
from tapjax.objects.detections import Detections
from tapjax.objects.detections import Detector
from tapjax.objects.detections import ListedDetections
from tapjax.objects.detections import make_no_detections
from tapjax.objects.detections import read_mot
from tapjax.objects.files import draw_objects
from tapjax.objects.files import write_mot
from tapjax.objects.files import write_overlay
from tapjax.objects.files import write_table
from tapjax.objects.motion import MotionDetector
from tapjax.objects.settings import ObjectSettings
from tapjax.objects.tracked_object import ObjectState
from tapjax.objects.tracker import ObjectTracks
from tapjax.objects.tracker import stream_objects
from tapjax.objects.tracker import track_object_blocks
from tapjax.objects.tracker import track_objects

__all__ = [
    'Detections',
    'Detector',
    'ListedDetections',
    'MotionDetector',
    'ObjectSettings',
    'ObjectState',
    'ObjectTracks',
    'draw_objects',
    'make_no_detections',
    'measure_overlaps',
    'read_mot',
    'stream_objects',
    'track_object_blocks',
    'track_objects',
    'write_mot',
    'write_overlay',
    'write_table',
]
