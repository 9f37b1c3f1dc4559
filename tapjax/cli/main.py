"""Dispatch: one command by its name, and errors as one line on stderr."""

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import importlib
import os
import sys
import types
from typing import Any, NoReturn
import warnings

from absl import flags

import tapjax
from tapjax.cli.progress import join_lines
from tapjax.cli.progress import show

# Exit status of a shell's command that SIGPIPE ended.
_BROKEN_PIPE = 141
# Summaries by name; the module of `track-objects` is track_objects.py.
COMMANDS = {
    'track': 'Track points through a video.',
    'live': 'Track points in a stream as it comes.',
    'edit': 'Carry an edit of a frame through a video.',
    'track-objects': 'Follow objects through a video.',
    'models': 'List the known models.',
    'convert': 'Rewrite a weight file.',
    'export': 'Write files that run without tapjax.',
}


def main(argv: Sequence[str] | None = None) -> NoReturn:
  """Runs a command and exits with its status."""
  status = run_command(list(sys.argv if argv is None else argv))
  try:
    if sys.stdout is not None:
      sys.stdout.flush()
  except BrokenPipeError:
    status = _BROKEN_PIPE
  if status == _BROKEN_PIPE:
    # Python would complain of the same at its end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
  sys.exit(status)


def run_command(argv: list[str]) -> int:
  """Runs a command and returns the exit status.

  0: done; 1: bad input; 2: wrong flags; 130: interrupted; 141: nobody reads the
  output. Other errors are bugs and are raised.
  """
  name = argv[1] if len(argv) > 1 else ''
  if name in ('', 'help', '-h', '--help'):
    show(_describe_usage())
    return 0 if name else 2
  if name == '--version':
    show(f'tapjax {tapjax.__version__}')
    return 0
  if name not in COMMANDS:
    _show_error(f'unknown command {name!r}; use {", ".join(COMMANDS)}')
    return 2
  command = import_command(name)
  values = flags.FlagValues()
  command.define_flags(values)
  if {'-h', '--help'} & set(argv[2:]):
    show(f'{COMMANDS[name]}\n{_describe_flags(values)}')
    return 0
  try:
    rest = values([f'tapjax {name}', *argv[2:]])[1:]
    if rest:
      raise flags.Error(f'unexpected argument {rest[0]!r}; flags begin with --')
    _check_platform()
    with _show_warnings():
      command.run(values)
  except flags.Error as error:
    _show_error(f'{error} - see tapjax {name} --help')
    return 2
  except BrokenPipeError:
    return _BROKEN_PIPE
  except (ValueError, OSError) as error:
    _show_error(str(error))
    return 1
  except (MemoryError, RuntimeError) as error:
    if not _is_out_of_memory(error):
      raise
    _show_error(f'{error} - choose a smaller --resolution, or fewer points')
    return 1
  except KeyboardInterrupt:
    _show_error('interrupted')
    return 130
  return 0


def _check_platform() -> None:
  """Raises ValueError if JAX_PLATFORMS names none that JAX can use here."""
  wanted = os.environ.get('JAX_PLATFORMS')
  if not wanted:
    return
  import jax

  try:
    jax.devices()
  except (AssertionError, RuntimeError) as error:
    reason = str(error).partition('\n')[0].partition(' (set JAX_')[0]
    raise ValueError(
        f'JAX_PLATFORMS={wanted} names no device that JAX can use here'
        f'{f" ({reason})" if reason else ""} - unset it, or install JAX for '
        'that device'
    ) from None


def import_command(name: str) -> types.ModuleType:
  """Imports the module of a command: `define_flags(values)`, `run(values)`."""
  return importlib.import_module(f'tapjax.cli.{name.replace("-", "_")}')


def _describe_usage() -> str:
  """Returns the names and summaries of all commands."""
  lines = ['Tracks any point through a video.', '']
  lines += [f'  tapjax {name:14} {text}' for name, text in COMMANDS.items()]
  lines += ['', 'tapjax COMMAND --help lists the flags of a command.']
  return '\n'.join(lines)


def _describe_flags(values: flags.FlagValues) -> str:
  """Returns help on all flags, sorted by name."""
  # absl groups flags by defining module; here they are one group.
  for name in values:
    values.register_flag_by_module('flags', values[name])
  return values.module_help('flags').partition('flags:')[2].rstrip()


def _is_out_of_memory(error: Exception) -> bool:
  if isinstance(error, MemoryError):
    return True
  import jax

  if not isinstance(error, jax.errors.JaxRuntimeError):
    return False
  # Older versions of JAX raise only the second text.
  return any(
      words in str(error) for words in ('RESOURCE_EXHAUSTED', 'Out of memory')
  )


@contextlib.contextmanager
def _show_warnings() -> Iterator[None]:
  """Shows each warning as one line, without its source location."""
  with warnings.catch_warnings():

    def show_warning(message: Warning | str, *args: Any, **kwargs: Any) -> None:
      del args, kwargs
      _show_line('warning', str(message))

    warnings.simplefilter('default', UserWarning)
    warnings.showwarning = show_warning
    yield


def _show_error(message: str) -> None:
  _show_line('error', message)


def _show_line(kind: str, message: str) -> None:
  """Writes a message to stderr as one line, unless stderr is closed."""
  if sys.stderr is not None:
    sys.stderr.write(f'tapjax: {kind}: {join_lines(message)}\n')
