"""Export of augmented training clips of PointOdyssey, by several processes.

FOLDER/ae_36_128_384x512/000000/   a clip, see `exported_clips`
FOLDER/ae_36_128_384x512.json      settings of the clips
FOLDER/ae_36_128_384x512.csv       rejected clips: number, reason, details

A clip depends on its number, the scenes and the settings alone, and appears
when it is complete. A killed run can be resumed with any number of processes,
with the same result as an uninterrupted run.
"""

import collections
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import csv
import dataclasses
import functools
import io
import itertools
import multiprocessing
from multiprocessing import connection
import os
import pathlib
import signal
from typing import Any, BinaryIO, cast, NamedTuple

import filelock
import numpy as np

from tapjax.data.point_odyssey.clip_augmentation import AugmentationConfig
from tapjax.data.point_odyssey.clip_batches import find_clips
from tapjax.data.point_odyssey.clips import ClipConfig
from tapjax.data.point_odyssey.clips import ClipRejectedError
from tapjax.data.point_odyssey.clips import make_training_clip
from tapjax.data.point_odyssey.clips import read_clip
from tapjax.data.point_odyssey.clips import TrainingClip
from tapjax.data.point_odyssey.exported_clips import get_folder
from tapjax.data.point_odyssey.exported_clips import list_exported_clips
from tapjax.data.point_odyssey.exported_clips import remove_unfinished_clips
from tapjax.data.point_odyssey.exported_clips import write_clip
from tapjax.data.point_odyssey.files import PointAnnotations
from tapjax.data.point_odyssey.files import read_annotations
from tapjax.files import keep_settings
from tapjax.files import write_atomically

# Consecutive clips of a scene in one process, since reading the annotations of
# a scene is slow.
_CLIPS_IN_A_ROW = 16
# Consecutive failures after which a process ends with an error.
_MOST_FAILURES = 20
_UNREADABLE = 'unreadable'
_UNWRITTEN = 'not written'
# Settings without influence on a clip.
_FREE_SETTINGS = ('root', 'num_processes', 'num_clips')


@dataclasses.dataclass(frozen=True)
class ExportConfig:
  """Settings of an export.

  Attributes:
    root: folder of scenes.
    version: name of the settings, the prefix of the folder's name.
    clips: settings of the clips.
    augmentation: of the clips; None disables it.
    seed: of all random choices.
    num_processes: number of processes, without influence on the clips.
    num_clips: largest number of clips to try, a random sample; None tries all.
  """

  root: str = ''
  version: str = 'ae'
  clips: ClipConfig = dataclasses.field(default_factory=ClipConfig)
  augmentation: AugmentationConfig | None = dataclasses.field(
      default_factory=AugmentationConfig
  )
  seed: int = 0
  num_processes: int = 4
  num_clips: int | None = None

  def __post_init__(self):
    for name in ('num_processes', 'num_clips'):
      value = getattr(self, name)
      if value is not None and value < 1:
        raise ValueError(f'{name} must be at least 1; got {value}')

  @property
  def name(self) -> str:
    """Name of the folder, as in the published program."""
    height, width = self.clips.crop
    return (
        f'{self.version}_{self.clips.num_frames}_{self.clips.num_points}_'
        f'{height}x{width}'
    )


class ExportProgress(NamedTuple):
  """Numbers of exported and failed clips.

  Attributes:
    total: clips to try.
    written: clips that were written.
    reasons: number of failed clips by reason.
  """

  total: int
  written: int
  reasons: collections.Counter[str]

  @property
  def done(self) -> int:
    """Number of tried clips."""
    return self.written + self.reasons.total()

  def add(self, reason: str) -> 'ExportProgress':
    """Counts another clip; an empty reason counts it as written."""
    if not reason:
      return self._replace(written=self.written + 1)
    return self._replace(reasons=self.reasons + collections.Counter([reason]))


class _Outcome(NamedTuple):
  """Outcome of a clip; `reason` is empty if it was written."""

  number: int
  reason: str
  detail: str

  @property
  def is_final(self) -> bool:
    """Whether a retry would have the same outcome."""
    return self.reason not in (_UNREADABLE, _UNWRITTEN)


def export_clips(
    config: ExportConfig,
    folder: pathlib.Path,
    progress: Callable[[ExportProgress], None] | None = None,
) -> ExportProgress:
  """Exports clips into the folder `config.name` below `folder`.

  Existing clips are kept. Clips that were rejected before are counted and not
  tried again; clips that could not be read or written are retried.

  Args:
    config: settings of the export.
    folder: parent of the folder of clips, with its .json and .csv files.
    progress: called after every clip.

  Returns:
    Numbers of written and failed clips.

  Raises:
    ValueError: the folder has clips of other settings, or another export is
      running there.
    OSError: files cannot be written, or a process was killed.
  """
  if not config.root or not pathlib.Path(config.root).is_dir():
    raise ValueError(
        'root must be a folder of scenes, such as PointOdyssey/train; got '
        f'{config.root!r} - pass --set root=DIR'
    )
  clips = find_clips(pathlib.Path(config.root), config.clips)
  root = folder / config.name
  root.mkdir(parents=True, exist_ok=True)
  try:
    with filelock.FileLock(folder / f'.{config.name}.lock', timeout=0):
      remove_unfinished_clips(root)
      _check_settings(folder / f'{config.name}.json', config, clips)
      return _export(config, clips, root, progress)
  except filelock.Timeout:
    raise ValueError(
        f'{root} must be written by one export at a time; another is running -'
        ' one with more processes?'
    ) from None


def make_clip(
    clips: Sequence[tuple[pathlib.Path, np.ndarray]],
    index: int,
    config: ExportConfig,
    get_annotations: Callable[[pathlib.Path], PointAnnotations],
) -> TrainingClip:
  """Returns the clip of an index; raises ClipRejectedError.

  Clips with less than half of their positions valid are rejected, too.
  """
  scene, numbers = clips[index]
  raw = read_clip(scene, get_annotations(scene), numbers)
  generator = np.random.default_rng([config.seed, index])
  clip = make_training_clip(raw, config.clips, config.augmentation, generator)
  valid = clip.tracks.valid
  if 2 * valid.sum() < valid.size:
    raise ClipRejectedError(
        'after augmentation',
        int(valid.sum()),
        -(-valid.size // 2),
        'valid positions',
    )
  return clip


def order_clips(
    clips: Sequence[tuple[pathlib.Path, np.ndarray]], seed: int
) -> list[list[int]]:
  """Returns indices of clips in random order, in groups of one scene."""
  generator = np.random.default_rng([seed, 0])
  rows = []
  numbered = enumerate(scene for scene, _ in clips)
  for _, group in itertools.groupby(numbered, key=lambda item: item[1]):
    order = generator.permutation([index for index, _ in group]).tolist()
    rows += [
        order[start : start + _CLIPS_IN_A_ROW]
        for start in range(0, len(order), _CLIPS_IN_A_ROW)
    ]
  return [rows[i] for i in generator.permutation(len(rows))]


def _export(
    config: ExportConfig,
    clips: Sequence[tuple[pathlib.Path, np.ndarray]],
    root: pathlib.Path,
    progress: Callable[[ExportProgress], None] | None,
) -> ExportProgress:
  rows = order_clips(clips, config.seed)
  chosen = [index for row in rows for index in row][: config.num_clips]
  wanted = set(chosen)
  written = {int(path.name) for path in list_exported_clips(root)} & wanted
  notes = root.with_name(f'{config.name}.csv')
  rejected = {outcome.number: outcome for outcome in _read_notes(notes)}
  _write_notes(notes, rejected)
  numbers = ExportProgress(
      len(chosen),
      len(written),
      collections.Counter(
          outcome.reason
          for number, outcome in rejected.items()
          if number in wanted - written
      ),
  )
  if progress is not None:
    progress(numbers)
  left = [
      [i for i in row if i in wanted and i not in written and i not in rejected]
      for row in rows
  ]
  left = [row for row in left if row]
  with notes.open('ab') as file:
    for outcome in _run_processes(config, root, left):
      numbers = numbers.add(outcome.reason)
      if outcome.reason and outcome.is_final:
        rejected[outcome.number] = outcome
        _add_note(file, outcome)
      if progress is not None:
        progress(numbers)
  _write_notes(notes, rejected)
  return numbers


def _run_processes(
    config: ExportConfig, root: pathlib.Path, rows: list[list[int]]
) -> Iterator[_Outcome]:
  """Yields outcomes of clips, in order of completion."""
  # Forked processes would share the threads of JAX.
  context = multiprocessing.get_context('spawn')
  running: dict[Any, Any] = {}
  with contextlib.ExitStack() as stack:
    for first in range(min(config.num_processes, len(rows))):
      outlet, sender = context.Pipe(duplex=False)
      indices = [i for row in rows[first :: config.num_processes] for i in row]
      process = context.Process(
          target=_serve, args=(config, root, indices, sender), daemon=True
      )
      process.start()
      sender.close()
      stack.callback(process.terminate)
      running[outlet] = process
    while running:
      for receiver in cast(Any, connection.wait(list(running))):
        try:
          message = receiver.recv()
        except EOFError:
          process = running.pop(receiver)
          process.join()
          if process.exitcode:
            raise OSError(
                f'a process ended early, with status {process.exitcode}; what '
                'it finished is kept - run the same again to go on'
            ) from None
          continue
        if isinstance(message, OSError):
          raise message
        yield message


def _serve(
    config: ExportConfig,
    root: pathlib.Path,
    indices: list[int],
    sender: connection.Connection,
) -> None:
  """Exports some of the clips; entry point of a process."""
  # The parent process terminates this one, also after Ctrl-C.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  # The parent process may have ended.
  with contextlib.suppress(BrokenPipeError):
    _work(config, root, indices, sender.send)


def _work(
    config: ExportConfig,
    root: pathlib.Path,
    indices: list[int],
    send: Callable[[Any], None],
) -> None:
  """Exports some of the clips, and sends the outcome of each."""
  clips = find_clips(pathlib.Path(config.root), config.clips)
  get_annotations = functools.lru_cache(maxsize=1)(read_annotations)
  parent = os.getppid()
  failures = 0
  for index in indices:
    # The parent process may have ended.
    if os.getppid() != parent:
      return
    outcome = _try_clip(clips, index, config, root, get_annotations)
    failures = 0 if outcome.is_final else failures + 1
    if failures == _MOST_FAILURES:
      send(
          OSError(
              f'{failures} clips in a row were {outcome.reason}; the last: '
              f'{outcome.detail}'
          )
      )
      return
    send(outcome)


def _try_clip(
    clips: Sequence[tuple[pathlib.Path, np.ndarray]],
    index: int,
    config: ExportConfig,
    root: pathlib.Path,
    get_annotations: Callable[[pathlib.Path], PointAnnotations],
) -> _Outcome:
  try:
    clip = make_clip(clips, index, config, get_annotations)
  except ClipRejectedError as error:
    return _Outcome(index, error.stage, str(error))
  except (ValueError, OSError) as error:
    return _Outcome(index, _UNREADABLE, str(error))
  try:
    write_clip(get_folder(root, index), clip)
  except OSError as error:
    return _Outcome(index, _UNWRITTEN, str(error))
  return _Outcome(index, '', '')


def _check_settings(
    path: pathlib.Path,
    config: ExportConfig,
    clips: Sequence[tuple[pathlib.Path, np.ndarray]],
) -> None:
  """Raises ValueError for a folder with clips of other settings or scenes."""
  settings = dataclasses.asdict(config)
  for name in _FREE_SETTINGS:
    settings.pop(name)
  settings['scenes'] = collections.Counter(scene.name for scene, _ in clips)
  if changed := keep_settings(path, settings):
    raise ValueError(
        f'{path.with_suffix("")} has clips that differ in {", ".join(changed)} '
        '- choose another --workdir, or --set version=NAME'
    )


def _read_notes(path: pathlib.Path) -> Iterator[_Outcome]:
  """Yields the rejected clips of a file; ignores an incomplete last line."""
  if not path.is_file():
    return
  text = path.read_text(encoding='utf-8')
  for row in csv.reader(text[: text.rfind('\n') + 1].splitlines()):
    if len(row) == len(_Outcome._fields) and row[0].isdigit():
      yield _Outcome(int(row[0]), row[1], row[2])


def _add_note(file: BinaryIO, outcome: _Outcome) -> None:
  text = io.StringIO()
  csv.writer(text, lineterminator='\n').writerow(outcome)
  file.write(text.getvalue().encode())
  file.flush()


def _write_notes(path: pathlib.Path, rejected: dict[int, _Outcome]) -> None:
  with write_atomically(path) as file:
    for index in sorted(rejected):
      _add_note(file, rejected[index])
