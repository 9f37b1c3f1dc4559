"""Drawing of tracks, boxes and figures; pure functions of frames."""

from tapjax.visualization.boxes import draw_boxes
from tapjax.visualization.overlay import draw_frame
from tapjax.visualization.overlay import draw_tracks
from tapjax.visualization.overlay import iterate_overlay
from tapjax.visualization.overlay import make_track_colors
from tapjax.visualization.points import paint_points

__all__ = [
    'draw_boxes',
    'draw_frame',
    'draw_tracks',
    'iterate_overlay',
    'make_track_colors',
    'paint_points',
]
