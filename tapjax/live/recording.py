"""Recording of live tracks in bounded memory, and saved states to resume from.

During a run, `unfinished/` below the output folder holds one row per point and
frame and, with `save_every`, the session and the number of rows at the last
saved frame. A killed run resumes from that frame. At the end of a run, the rows
become the results and the folder is removed.
"""

from collections.abc import Iterator
import contextlib
import io
import json
import os
import pathlib
import shutil
from typing import Any, NamedTuple
import zipfile

from jaxtyping import Int
from jaxtyping import Shaped
import numpy as np

from tapjax.files import Times
from tapjax.files import write_atomically
from tapjax.files import write_track_table
from tapjax.types import Tracks

FOLDER = 'unfinished'
ROW = np.dtype(
    [
        ('frame', np.int64),
        ('point', np.int32),
        ('x', np.float32),
        ('y', np.float32),
        ('occlusion_logits', np.float32),
        ('uncertainty_logits', np.float32),
        ('confidence', np.float32),
        ('visible', bool),
        ('lost', bool),
    ]
)
_LOGITS = ('occlusion_logits', 'uncertainty_logits')
# Maximum number of rows in memory.
_BLOCK = 1 << 16

Rows = Shaped[np.ndarray, 'n']


class Saved(NamedTuple):
  """Saved state of a run, except for the session of its tracker.

  Attributes:
    next_frame: index of the first frame that has not been tracked.
    num_rows: number of rows of the frames before `next_frame`.
    points: (t, y, x) of each point, in the order of the results.
    point_of_id: index into `points` for each id of the session.
    damaged: indices of damaged frames.
    cuts: first frames of new scenes.
    settings: settings that a resumed run must share.
  """

  next_frame: int
  num_rows: int
  points: list[tuple[float, float, float]]
  point_of_id: list[int]
  damaged: list[int]
  cuts: list[int]
  settings: dict[str, Any]


def make_rows(
    frame: int,
    points: Int[np.ndarray, 'n'],
    tracks: Tracks,
    lost: Shaped[np.ndarray, 'n'],
) -> Rows:
  """Returns the tracks `[n, 1]` of one frame as rows, sorted by point."""
  rows = np.zeros(len(points), ROW)
  rows['frame'] = frame
  rows['point'] = points
  rows['x'], rows['y'] = tracks.positions[:, 0].T
  for name in _LOGITS:
    logits = getattr(tracks, name)
    rows[name] = np.nan if logits is None else logits[:, 0]
  rows['confidence'] = tracks.confidence[:, 0]
  rows['visible'] = tracks.visible[:, 0] & ~lost
  rows['lost'] = lost
  return rows[np.argsort(points)]


class Recording:
  """Rows of a run, and its saved state."""

  def __init__(self, output: pathlib.Path, *, resume: bool):
    self.folder = output / FOLDER
    self._state = self.folder / 'state.json'
    if self._state.is_file() and not resume:
      raise ValueError(
          f'{output} holds a run that was not finished - go on with --resume, '
          f'or remove {self.folder}'
      )
    self.saved: Saved | None = None
    if self._state.is_file():
      self.saved = _read_state(self._state)
    else:
      shutil.rmtree(self.folder, ignore_errors=True)
    self.folder.mkdir(parents=True, exist_ok=True)
    self._path = self.folder / 'rows.bin'
    self._num_rows = 0 if self.saved is None else self.saved.num_rows
    self._path.touch()
    if self._path.stat().st_size < self._num_rows * ROW.itemsize:
      raise ValueError(
          f'{self._path} is shorter than its run was - remove {self.folder}'
      )
    os.truncate(self._path, self._num_rows * ROW.itemsize)
    self._file = self._path.open('ab')

  @property
  def session_path(self) -> pathlib.Path:
    """Path of the session file of the saved state."""
    assert self.saved is not None, 'asked for only after a save'
    return self._name_session(self.saved.next_frame)

  def append(self, rows: Rows) -> None:
    """Adds the rows of a frame."""
    self._file.write(rows.tobytes())
    self._num_rows += len(rows)

  @contextlib.contextmanager
  def save(self, next_frame: int, **fields: Any) -> Iterator[pathlib.Path]:
    """Yields the path for the session file, then writes the rest of the state.

    A kill at any time leaves either this state or the previous one.
    """
    self._file.flush()
    os.fsync(self._file.fileno())
    before = None if self.saved is None else self.session_path
    path = self._name_session(next_frame)
    yield path
    saved = Saved(next_frame=next_frame, num_rows=self._num_rows, **fields)
    with write_atomically(self._state) as file:
      file.write(json.dumps(saved._asdict()).encode())
    self.saved = saved
    if before not in (None, path):
      before.unlink(missing_ok=True)

  def read_saved_rows(self) -> Iterator[Rows]:
    """Yields the rows of each frame with rows, up to the saved state."""
    saved = self.saved.num_rows if self.saved else 0
    pending = np.zeros(0, ROW)
    for block in self._read_blocks(saved):
      pending = np.concatenate([pending, block])
      starts = np.flatnonzero(np.diff(pending['frame'])) + 1
      *whole, pending = np.split(pending, starts)
      yield from whole
    if len(pending):
      yield pending

  def write_arrays(
      self, path: pathlib.Path, num_frames: int, **arrays: np.ndarray
  ) -> None:
    """Writes a .npz archive of `[n, t]` arrays, one block of rows at a time.

    On frames where a point was not tracked, its position is NaN and its
    confidence 0. Logits without finite values are left out.
    """
    self._file.flush()
    shape = len(arrays['query_points']), num_frames
    kinds: dict[str, tuple[tuple[int, ...], Any, float]] = {
        'positions': ((*shape, 2), np.float32, np.nan),
        'visible': (shape, bool, 0.0),
        'lost': (shape, bool, 0.0),
        'confidence': (shape, np.float32, 0.0),
        **dict.fromkeys(_LOGITS, (shape, np.float32, np.nan)),
    }
    files = {name: self.folder / f'{name}.npy' for name in kinds}
    has_values = dict.fromkeys(_LOGITS, False)
    for name, (size, dtype, empty) in kinds.items():
      _make_array(files[name], size, dtype, empty)
    for block in self._read_blocks(self._num_rows):
      where = block['point'], block['frame']
      for name, file in files.items():
        if 0 in kinds[name][0]:
          continue
        array = np.load(file, mmap_mode='r+')
        if name == 'positions':
          array[where] = np.stack([block['x'], block['y']], axis=-1)
        else:
          array[where] = block[name]
        array.flush()
      for name in _LOGITS:
        has_values[name] |= bool(np.isfinite(block[name]).any())
    with write_atomically(path) as stream, zipfile.ZipFile(
        stream, 'w', zipfile.ZIP_DEFLATED
    ) as archive:
      for name, file in files.items():
        if has_values.get(name, True):
          archive.write(file, f'{name}.npy')
        file.unlink()
      for name, array in arrays.items():
        content = io.BytesIO()
        np.save(content, array)
        archive.writestr(f'{name}.npy', content.getvalue())

  def write_table(self, path: pathlib.Path, times: Times) -> None:
    """Writes a .csv table with a line per point and frame, by frame."""
    self._file.flush()
    write_track_table(
        path,
        (
            row
            for block in self._read_blocks(self._num_rows)
            for row in block[['point', 'frame', 'x', 'y', 'visible']].tolist()
        ),
        times,
    )

  def close(self, *, keep: bool) -> None:
    """Closes the files; removes the folder unless a saved state is kept."""
    self._file.close()
    if not (keep and self._state.is_file()):
      shutil.rmtree(self.folder, ignore_errors=True)

  def _name_session(self, next_frame: int) -> pathlib.Path:
    return self.folder / f'session_{next_frame}.safetensors'

  def _read_blocks(self, num_rows: int) -> Iterator[Rows]:
    with self._path.open('rb') as file:
      for start in range(0, num_rows, _BLOCK):
        count = min(_BLOCK, num_rows - start)
        yield np.frombuffer(file.read(count * ROW.itemsize), ROW)


def _read_state(path: pathlib.Path) -> Saved:
  try:
    fields = json.loads(path.read_text(encoding='utf-8'))
    points = [(t, y, x) for t, y, x in fields.pop('points')]
    return Saved(points=points, **fields)
  except (ValueError, TypeError, KeyError, AttributeError):
    raise ValueError(
        f'{path} does not say where its run had come to - remove {path.parent}'
    ) from None


def _make_array(
    path: pathlib.Path, shape: tuple[int, ...], dtype: Any, empty: float
) -> None:
  """Writes a .npy array filled with `empty`, one block at a time."""
  if 0 in shape:
    np.save(path, np.zeros(shape, dtype))
    return
  array = np.lib.format.open_memmap(path, 'w+', dtype, shape)
  step = max(1, _BLOCK * 8 // int(np.prod(shape[1:])))
  for start in range(0, shape[0], step):
    array[start : start + step] = empty
  array.flush()
