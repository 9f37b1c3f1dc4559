"""`tapjax edit`: propagates an edit of one frame through a video."""

import pathlib

from absl import flags
from jaxtyping import Bool
import numpy as np

from tapjax import editing
from tapjax.cli import common_flags
from tapjax.cli import sources
from tapjax.cli.progress import ProgressBars
from tapjax.cli.progress import show
from tapjax.geometry import Resolution
from tapjax.media import track_files
from tapjax.media import video as video_files
from tapjax.media.pictures import read_picture
from tapjax.tracking import memory


def define_flags(values: flags.FlagValues) -> None:
  """Defines the flags of the command."""
  common_flags.define_video(values, f'{sources.VIDEO_HELP}.')
  common_flags.define_model(values, 'Preset; see `tapjax models`.')
  common_flags.define_checkpoint(
      values, 'Weight file; the published weights without it.'
  )
  common_flags.define_resolution(values)
  common_flags.define_output(
      values, 'Video to write; edit_VIDEO.mp4 without it.'
  )
  common_flags.define_max_memory(values)
  common_flags.define_frame(values, 'Index of the edited frame.')
  common_flags.define_num_points(
      values, 256, 'About this many points of the region are tracked.'
  )
  for name, text in (
      ('image', 'Picture to stretch over the region.'),
      ('draw', 'RGBA picture of the size of the frame, laid over the region.'),
  ):
    flags.DEFINE_string(name, None, text, flag_values=values)
  flags.DEFINE_list(
      'region',
      None,
      'Corners X,Y,X,Y,... in pixels of the video: two opposite ones of a '
      'rectangle, or all of a polygon.',
      flag_values=values,
  )
  flags.DEFINE_list(
      'color', None, 'RED,GREEN,BLUE to fill the region.', flag_values=values
  )
  flags.register_multi_flags_validator(
      ['image', 'draw', 'color'],
      lambda chosen: sum(value is not None for value in chosen.values()) == 1,
      'choose the edit by one of --image, --draw and --color',
      flag_values=values,
  )
  flags.register_multi_flags_validator(
      ['draw', 'region'],
      lambda chosen: (chosen['draw'] is None) != (chosen['region'] is None),
      '--region must say where --image and --color go, and --draw needs none',
      flag_values=values,
  )


def run(values: flags.FlagValues) -> None:
  """Propagates an edit of one frame through a video."""
  if values.video is None:
    raise flags.Error('--video must name the video to edit')
  resolution = common_flags.parse_resolution(values.resolution)
  max_memory = common_flags.parse_max_memory(values)
  source = sources.find_video(values.video)
  size = source.info.height, source.info.width
  region, edit = _make_edit(values, size)
  query_points = editing.sample_region(region, values.frame, values.num_points)
  output = pathlib.Path(values.output or f'edit_{source.name}.mp4')
  if output.suffix.lower() != '.mp4':
    raise ValueError(f'--output must end in .mp4; got {str(output)!r}')
  with track_files.make_folder(
      output.parent, [output.name], values.video
  ), ProgressBars() as progress:
    tracker = common_flags.load_tracker(values, resolution, progress)
    if max_memory is not None:
      memory.check_frame_budget(tracker.functions, size, max_memory)
    with source.open() as reader:
      video = tracker.prepare(
          progress.count_frames(
              'read', reader.read_blocks(source.block), source.info.num_frames
          ),
          on_disk=max_memory is not None,
      )
      times = reader.times
    num_frames = len(video.frames)
    common_flags.check_frame(values.frame, num_frames)
    tracks = tracker.track_video(
        video, query_points, max_memory=max_memory, report=progress.update
    )
    del video
    memory.release_memory()
    with source.open() as reader:
      counted = progress.count_frames(
          'draw', reader.read_blocks(source.block), num_frames
      )
      frames = (frame for block in counted for frame in block)
      video_files.write_video(
          output,
          editing.iterate_edit(frames, edit, query_points, tracks),
          source.info.frame_rate,
          times=times,
      )
  show(
      f'{tracker.name}: carried the edit by {len(query_points)} points through '
      f'{num_frames} frames; wrote {output}'
  )


def _make_edit(
    values: flags.FlagValues, size: Resolution
) -> tuple[Bool[np.ndarray, 'h w'], editing.Edit]:
  """Returns the region and the edit described by the flags."""
  if values.draw is not None:
    return _read_drawing(values.draw, size)
  corners = common_flags.parse_numbers('region', values.region)
  if len(corners) < 4 or len(corners) % 2:
    raise flags.IllegalFlagValueError(
        '--region must be X,Y of two corners or more; got '
        f'{",".join(values.region)!r}'
    )
  region = editing.make_region(size, corners.reshape(-1, 2))
  if values.color is not None:
    return region, editing.fill_region(region, _parse_color(values.color))
  picture = read_picture(values.image)
  return region, editing.fit_picture(picture, region)


def _read_drawing(
    path: str, size: Resolution
) -> tuple[Bool[np.ndarray, 'h w'], editing.Edit]:
  """Reads a picture of the size of the video, transparent outside the edit."""
  picture = read_picture(path)
  if picture.shape[:2] != size:
    raise ValueError(
        f'--draw must be {size[1]}x{size[0]} pixels as the video is; '
        f'got {picture.shape[1]}x{picture.shape[0]} - draw on one of its '
        'frames, and save the drawing alone'
    )
  colors, opacity = picture[..., :3], picture[..., 3]
  edit = editing.Edit(colors, opacity.astype(np.float32) / 255)
  return opacity > 0, edit


def _parse_color(texts: list[str]) -> tuple[int, int, int]:
  """Returns red, green and blue."""
  numbers = common_flags.parse_numbers('color', texts)
  if len(numbers) != 3 or ((numbers < 0) | (numbers > 255)).any():
    raise flags.IllegalFlagValueError(
        '--color must be RED,GREEN,BLUE of 0 to 255; got '
        f'{",".join(texts)!r}'
    )
  red, green, blue = (round(number) for number in numbers.tolist())
  return red, green, blue
