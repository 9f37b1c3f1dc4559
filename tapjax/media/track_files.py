"""Track files: an .npz archive, a .csv table, and an overlay video."""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import pathlib
import tempfile

from jaxtyping import Float
from jaxtyping import UInt8
import numpy as np

from tapjax import visualization
from tapjax.files import Times
from tapjax.files import write_atomically
from tapjax.files import write_track_table
from tapjax.media import video as video_files
from tapjax.types import Tracks


@contextlib.contextmanager
def make_folder(
    path: pathlib.Path, names: Sequence[str] = (), video: str | None = None
) -> Iterator[None]:
  """Creates a writable folder and its parents for the duration of a block.

  If the block fails, the created folders are removed if empty.

  Args:
    path: of the folder.
    names: of the files that will be written.
    video: that is read; it must not be one of the files.

  Raises:
    ValueError: files of these names cannot be written, or one is the video.
  """
  made: list[pathlib.Path] = []
  try:
    _make_folders(path, names, made)
    for file in (path / name for name in names):
      if video is not None and _is_same_file(file, video):
        raise ValueError(
            f'output must not be the video that is read; got {file} - choose '
            'another one'
        )
    yield
  except BaseException:
    for folder in made:
      with contextlib.suppress(OSError):
        folder.rmdir()
    raise


def write_arrays(
    path: pathlib.Path,
    tracks: Tracks,
    query_points: Float[np.ndarray, 'n 3'],
    frame_rate: float,
    model: str,
    confidence: Float[np.ndarray, 'n t'] | None = None,
    *,
    window: int | None = None,
    times: Times | None = None,
) -> None:
  """Writes an .npz archive; logits of missing heads are left out.

  `confidence` defaults to that of the tracks. `window`, the largest number of
  frames that the tracker saw at once, is left out if None. `times`, the seconds
  of the frames, default to evenly spaced ones.
  """
  if times is None:
    times = np.arange(tracks.positions.shape[1]) / frame_rate
  arrays = {
      name: array
      for name, array in (*tracks._asdict().items(), ('window', window))
      if array is not None
  }
  with write_atomically(path) as file:
    np.savez_compressed(
        file,
        **arrays,
        confidence=tracks.confidence if confidence is None else confidence,
        query_points=query_points,
        frame_rate=np.float64(frame_rate),
        times=np.asarray(times, np.float64),
        model=np.str_(model),
    )


def write_table(path: pathlib.Path, tracks: Tracks, times: Times) -> None:
  """Writes a .csv table with one line for each query and frame.

  `times` are the seconds of the frames.
  """
  rows = enumerate(
      zip(tracks.positions.tolist(), tracks.visible.tolist(), strict=True)
  )
  write_track_table(
      path,
      (
          (query, frame, x, y, shown)
          for query, row in rows
          for frame, ((x, y), shown) in enumerate(zip(*row, strict=True))
      ),
      times,
  )


def write_overlay(
    path: pathlib.Path,
    blocks: Iterable[UInt8[np.ndarray, '_ h w 3']],
    tracks: Tracks,
    frame_rate: float,
    times: Times | None = None,
) -> None:
  """Writes the video with the tracks drawn on it, block by block."""
  frames = (frame for block in blocks for frame in block)
  drawn = visualization.iterate_overlay(frames, tracks)
  video_files.write_video(path, drawn, frame_rate, times=times)


def _is_same_file(path: pathlib.Path, other: str) -> bool:
  try:
    return path.samefile(other)
  except (OSError, ValueError):  # One of them is not there.
    return False


def _make_folders(
    path: pathlib.Path, names: Sequence[str], made: list[pathlib.Path]
) -> None:
  """Creates a folder, appends new folders to `made`, and tests writing."""
  try:
    if path.exists() and not path.is_dir():
      raise ValueError(f'output must be a folder; {path} is a file')
    made += [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path):
      pass
    taken = [path / name for name in names if (path / name).is_dir()]
  except OSError as error:
    raise ValueError(
        f'output must be a folder that can be written; {path} cannot '
        f'({error.strerror}) - choose another one'
    ) from None
  if taken:
    raise ValueError(
        f'output must be a folder that can be written; {taken[0]} is a folder '
        'where a file belongs - choose another one'
    )
