"""Output on the terminal: results on stdout, progress bars on stderr."""

from collections.abc import Iterator
import contextlib
import sys

from jaxtyping import UInt8
import numpy as np
import tqdm

# Stages whose first step includes compilation.
_COMPILED_STAGES = ('encode', 'track')


def show(text: str) -> None:
  """Writes lines to stdout."""
  if sys.stdout is not None:  # It may be closed.
    sys.stdout.write(text + '\n')


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
          file=sys.stderr,
          disable=sys.stderr is None,
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
    tqdm.tqdm.write(f'tapjax: {join_lines(text)}', file=sys.stderr)

  def _finish(self, error_type: type | None, *_: object) -> None:
    if self._bar is not None:
      self._bar.leave = error_type is None
      self._bar.close()
