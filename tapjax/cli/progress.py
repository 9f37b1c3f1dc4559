"""Output on the terminal: results on stdout, progress bars on stderr."""

from collections.abc import Iterator
import contextlib
import os
import sys
from typing import Any

from jaxtyping import UInt8
import numpy as np
import tqdm

# Stages whose first step includes compilation.
_COMPILED_STAGES = ('encode', 'track')


def open_closed_streams() -> None:
  """Opens what a shell has closed (`>&-`) as empty streams.

  Otherwise the next file to be opened would take the place of the stream, and
  whatever libraries print would end up in the file.
  """
  for number, name in enumerate(('stdin', 'stdout', 'stderr')):
    try:
      os.fstat(number)
    except OSError:
      # This takes the lowest number that is free.
      os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if getattr(sys, name) is None:
      mode = 'w' if number else 'r'
      stream = open(os.devnull, mode, encoding='utf-8')  # noqa: SIM115
      setattr(sys, name, stream)


def show(text: str) -> None:
  """Writes lines to stdout, as long as there is a reader.

  Raises OSError where they cannot be written, as on a full disk.
  """
  try:
    sys.stdout.write(text + '\n')
    sys.stdout.flush()
  except BrokenPipeError:  # As of `tapjax models | head -1`.
    _drop_output()
  except OSError as error:
    _drop_output()
    reason = error.strerror
    raise OSError(f'the output cannot be written to stdout: {reason}') from None


def show_message(text: str) -> None:
  """Writes a line to stderr, if there is a reader."""
  Patient(sys.stderr).write(f'tapjax: {join_lines(text)}\n')


def _drop_output() -> None:
  """Lets all further output vanish, also what Python writes at its end."""
  with contextlib.suppress(OSError, ValueError):
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Patient:
  """A stream for messages, which nobody needs to read.

  Where it cannot be written, the work goes on.
  """

  def __init__(self, stream: Any):
    self._stream = stream

  def write(self, text: str) -> None:
    """Writes text, or drops it."""
    with contextlib.suppress(OSError, ValueError):
      self._stream.write(text)
      self._stream.flush()

  def flush(self) -> None:
    """Does nothing: `write` has done it."""

  def __getattr__(self, name: str) -> Any:
    return getattr(self._stream, name)


def join_lines(text: str) -> str:
  """Returns text of several lines as one."""
  return '; '.join(line.strip() for line in text.splitlines() if line.strip())


class ProgressBars(contextlib.ExitStack):
  """Progress bars on stderr, one for each stage of the work.

  An error erases the bar it interrupts.
  """

  def __init__(self):
    super().__init__()
    self._bar: tqdm.tqdm | None = None
    self._stage = ''
    self.push(self._finish)

  def update(self, stage: str, done: int, total: int | None) -> None:
    """Shows the progress of a stage: `done` of `total` steps."""
    if self._bar is None or stage != self._stage:
      if self._bar is not None:
        self._bar.close()
      self._stage = stage
      self._bar = tqdm.tqdm(
          desc=stage,
          total=total,
          file=Patient(sys.stderr),
          postfix='compiling' if stage in _COMPILED_STAGES else '',
      )
    if done:
      self._bar.total = total
      self._bar.set_postfix_str('', refresh=False)
      self._bar.update(done - self._bar.n)

  @contextlib.contextmanager
  def stage(self, name: str) -> Iterator[None]:
    """Shows a stage of one step that ends with the block."""
    self.update(name, 0, 1)
    yield
    self.update(name, 1, 1)

  def count_frames(
      self,
      stage: str,
      blocks: Iterator[UInt8[np.ndarray, '_ h w 3']],
      total: int | None,
  ) -> Iterator[UInt8[np.ndarray, '_ h w 3']]:
    """Yields blocks of frames and shows the number of frames."""
    done = 0
    self.update(stage, done, total)
    for block in blocks:
      yield block
      done += len(block)
      self.update(stage, done, total)
    # The number of frames in a file's header can be wrong.
    self.update(stage, done, done)

  def log(self, text: str) -> None:
    """Writes a line above the bar."""
    tqdm.tqdm.write(
        f'tapjax: {join_lines(text)}',
        file=Patient(sys.stderr),
    )

  def _finish(self, error_type: type | None, *_: object) -> None:
    if self._bar is not None:
      self._bar.leave = error_type is None
      self._bar.close()
