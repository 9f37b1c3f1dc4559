"""Exports training clips of PointOdyssey, augmented, by many processes.

FOLDER/ae_36_128_384x512/000000/   a clip, see `exported_clips`
FOLDER/ae_36_128_384x512.json      what the clips depend on
FOLDER/ae_36_128_384x512.csv       numbers of clips that were rejected, and why

A clip depends on its number, the scenes and the settings alone, and appears
when it is complete. So a run that was killed goes on where it was, with any
number of processes, and leaves what an undisturbed one does.
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

from tapjax.data.point_odyssey.clip_batches import find_clips
from tapjax.data.point_odyssey.clips import AugmentationConfig
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

# Clips of a scene that one process does in a row, since reading the
# annotations of a scene takes long.
_CLIPS_IN_A_ROW = 16
# Clips that fail one after the other before a process gives up.
_MOST_FAILURES = 20
_UNREADABLE = 'unreadable'
_UNWRITTEN = 'not written'
# Settings that change no clip.
_FREE_SETTINGS = ('root', 'num_processes', 'num_clips')


@dataclasses.dataclass(frozen=True)
class ExportConfig:
  """Which clips are exported and how.

  Attributes:
    root: folder of scenes.
    version: a name for the settings, with which the name of the folder begins.
    clips: what they are like.
    augmentation: how they are changed; None leaves them.
    seed: what chance is drawn from.
    num_processes: that work at once; changes no clip.
    num_clips: at most so many are tried, a fair sample of all; None tries all.
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
    """Name of the folder, as the published program has it."""
    height, width = self.clips.crop
    return (
        f'{self.version}_{self.clips.num_frames}_{self.clips.num_points}_'
        f'{height}x{width}'
    )


class Progress(NamedTuple):
  """How far an export has come.

  Attributes:
    total: clips to try.
    written: of them.
    reasons: how many failed for each reason.
  """

  total: int
  written: int
  reasons: collections.Counter[str]

  @property
  def done(self) -> int:
    """Clips that were tried."""
    return self.written + self.reasons.total()

  def add(self, reason: str) -> 'Progress':
    """Counts another clip, which was written if there is no reason."""
    if not reason:
      return self._replace(written=self.written + 1)
    return self._replace(reasons=self.reasons + collections.Counter([reason]))


class _Outcome(NamedTuple):
  """What became of a clip: no reason if it was written."""

  number: int
  reason: str
  detail: str

  @property
  def is_final(self) -> bool:
    """Whether trying again would change nothing."""
    return self.reason not in (_UNREADABLE, _UNWRITTEN)


def export_clips(
    config: ExportConfig,
    folder: pathlib.Path,
    report: Callable[[Progress], None] | None = None,
) -> Progress:
  """Exports clips into a folder of their own below `folder`.

  Clips that are there stay; those that were rejected before are counted and not
  tried again, but those that could not be read or written are.

  Args:
    config: what to export.
    folder: for the folder of clips and what is beside it.
    report: called after every clip.

  Returns:
    What has become of all clips.

  Raises:
    ValueError: the folder has clips of other settings, or another export is
      running there.
    OSError: nothing can be written, or a process was killed.
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
      return _export(config, clips, root, report)
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
  """Makes the clip of a number; raises ClipRejectedError.

  Also rejected are clips with fewer than half of their positions valid.
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
  """Returns the numbers of clips in random order, some of a scene in a row."""
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
    report: Callable[[Progress], None] | None,
) -> Progress:
  rows = order_clips(clips, config.seed)
  chosen = [index for row in rows for index in row][: config.num_clips]
  wanted = set(chosen)
  written = {int(path.name) for path in list_exported_clips(root)} & wanted
  notes = root.with_name(f'{config.name}.csv')
  rejected = {outcome.number: outcome for outcome in _read_notes(notes)}
  _write_notes(notes, rejected)
  progress = Progress(
      len(chosen),
      len(written),
      collections.Counter(
          outcome.reason
          for number, outcome in rejected.items()
          if number in wanted - written
      ),
  )
  if report is not None:
    report(progress)
  left = [
      [i for i in row if i in wanted and i not in written and i not in rejected]
      for row in rows
  ]
  left = [row for row in left if row]
  with notes.open('ab') as file:
    for outcome in _run_processes(config, root, left):
      progress = progress.add(outcome.reason)
      if outcome.reason and outcome.is_final:
        rejected[outcome.number] = outcome
        _add_note(file, outcome)
      if report is not None:
        report(progress)
  _write_notes(notes, rejected)
  return progress


def _run_processes(
    config: ExportConfig, root: pathlib.Path, rows: list[list[int]]
) -> Iterator[_Outcome]:
  """Yields what becomes of clips, in the order in which they are finished."""
  # Forked processes would share the threads of JAX.
  context = multiprocessing.get_context('spawn')
  running: dict[Any, Any] = {}
  with contextlib.ExitStack() as stack:
    for first in range(min(config.num_processes, len(rows))):
      outlet, sender = context.Pipe(duplex=False)
      share = [i for row in rows[first :: config.num_processes] for i in row]
      process = context.Process(
          target=_serve, args=(config, root, share, sender), daemon=True
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
    share: list[int],
    sender: connection.Connection,
) -> None:
  """Exports a share of the clips, in a process of its own."""
  # Whoever began this ends it, also after Ctrl-C.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  # Unless nobody is there any more.
  with contextlib.suppress(BrokenPipeError):
    _work(config, root, share, sender.send)


def _work(
    config: ExportConfig,
    root: pathlib.Path,
    share: list[int],
    send: Callable[[Any], None],
) -> None:
  """Exports a share of the clips, and says what becomes of each."""
  clips = find_clips(pathlib.Path(config.root), config.clips)
  get_annotations = functools.lru_cache(maxsize=1)(read_annotations)
  parent = os.getppid()
  failures = 0
  for index in share:
    # Whoever began this may be gone.
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
  """Refuses a folder whose clips come from other settings or scenes."""
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
  """Yields what was rejected; the last line may be cut short."""
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
