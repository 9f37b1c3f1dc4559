"""Tracking of points through a video: plan, compile, then segment by segment.

```
frames ──encode──► features ───┬──► tracks of a segment ──place──► tracks
query points ──describe────────┤
memory of earlier segments ────┴──► memory
```

A whole video is one segment, windows are several. Queries are tracked in chunks
and frames are encoded in chunks; both are padded to the shapes of programs that
exist already, and neither changes a result.
"""

from jaxtyping import Float
import numpy as np

from tapjax import parallel
from tapjax.geometry import rescale_positions
from tapjax.geometry import rescale_query_points
from tapjax.models.contract import Params
from tapjax.models.contract import TrackerFunctions
from tapjax.tracking.options import Options
from tapjax.tracking.plan import make_plan
from tapjax.tracking.prepare import PreparedVideo
from tapjax.tracking.programs import Programs
from tapjax.tracking.queries import begin
from tapjax.tracking.queries import Blocks
from tapjax.tracking.queries import describe_queries
from tapjax.tracking.queries import encode_segment
from tapjax.tracking.queries import make_empty_tracks
from tapjax.tracking.queries import place
from tapjax.tracking.queries import report
from tapjax.tracking.queries import split_queries
from tapjax.tracking.queries import track_call
from tapjax.types import PyTree
from tapjax.types import Tracks


def track(
    functions: TrackerFunctions,
    params: Params,
    programs: Programs,
    video: PreparedVideo,
    query_points: Float[np.ndarray, 'n 3'],
    options: Options,
) -> Tracks:
  """Tracks query points through a video.

  Args:
    functions: the tracker.
    params: its parameters.
    programs: compiled programs of the tracker; missing ones are added.
    video: frames at the resolution of the tracker.
    query_points: (t, y, x) in pixels of the original frames.
    options: chunks, window, devices, progress.

  Returns:
    Tracks in pixels of the original frames, in the order of the queries.
  """
  num_frames = len(video.frames)
  tracks = make_empty_tracks(functions, len(query_points), num_frames)
  if not len(query_points):
    return tracks
  points = np.asarray(
      rescale_query_points(query_points, video.original, functions.resolution),
      np.float32,
  )
  known = programs.list_shapes(functions, options)
  plan = make_plan(functions, num_frames, points, options, known)
  run = programs.compile(plan, params, video.frames.dtype, options)
  params = parallel.replicate(plan.mesh, params)
  calls = split_queries(points, plan)
  blocks: Blocks = {}
  queries = describe_queries(
      run, params, video.frames, calls, plan, blocks, options.progress
  )
  memory: list[PyTree] = [None] * len(calls)
  for number, segment in enumerate(plan.segments.tracked):
    features = encode_segment(
        run,
        params,
        video.frames,
        segment,
        plan,
        blocks,
        options.progress if plan.is_whole_video else None,
    )
    for i, call in enumerate(calls):
      report(options.progress, plan, number, i)
      if plan.shape.carries_memory and segment.begins:
        memory[i] = begin(run, plan, call)
      part, memory[i] = track_call(
          run, params, plan, segment, features, queries[i], i, call, memory[i]
      )
      place(tracks, part, segment, i * plan.queries_per_call)
    report(options.progress, plan, number, len(calls))
    # The next segment is encoded without these.
    del features
  positions = rescale_positions(
      tracks.positions, functions.resolution, video.original
  )
  return tracks._replace(positions=np.array(positions))
