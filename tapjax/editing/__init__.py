"""Edits of one frame, propagated through a video by tracked points.

```python
from tapjax import editing

region = editing.make_region(frames.shape[1:3], corners_xy)
edit = editing.fill_region(region, (255, 0, 0))
query_points = editing.sample_region(region, frame=0, num_points=150)
tracks = tracker.track(frames, query_points)
edited = list(editing.iterate_edit(frames, edit, query_points, tracks))
```
"""

from tapjax.editing.edit import fit_motion
from tapjax.editing.edit import iterate_edit
from tapjax.editing.region import Edit
from tapjax.editing.region import fill_region
from tapjax.editing.region import fit_picture
from tapjax.editing.region import make_region
from tapjax.editing.region import sample_region

__all__ = [
    'Edit',
    'fill_region',
    'fit_motion',
    'fit_picture',
    'iterate_edit',
    'make_region',
    'sample_region',
]
