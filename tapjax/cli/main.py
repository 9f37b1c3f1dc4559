"""Dispatch: one command by its name, and errors as one line on stderr."""

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import importlib
import re
import sys
import types
from typing import Any, NoReturn
import warnings

from absl import flags

import tapjax
from tapjax.cli.progress import open_closed_streams
from tapjax.cli.progress import show
from tapjax.cli.progress import show_message
from tapjax.spelling import suggest_name

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
  open_closed_streams()
  sys.exit(run_command(list(sys.argv if argv is None else argv)))


def run_command(argv: list[str]) -> int:
  """Runs a command and returns the exit status.

  0: done; 1: bad input; 2: wrong flags; 130: interrupted. Other errors are bugs
  and are raised.
  """
  name = argv[1] if len(argv) > 1 else ''
  try:
    if name in ('', 'help', '-h', '--help'):
      show(_describe_usage())
      return 0 if name else 2
    if name == '--version':
      show(f'tapjax {tapjax.__version__}')
      return 0
    if name not in COMMANDS:
      hint = suggest_name(name, COMMANDS)
      _show_error(f'unknown command {name!r}; use {", ".join(COMMANDS)}{hint}')
      return 2
    _run(name, argv[2:])
  except flags.Error as error:
    # Without the names and values that absl puts first.
    text = re.sub(r'^flags? \w+=.*?: ', '', str(error))
    _show_error(f'{text} - see tapjax {name} --help')
    return 2
  except (ValueError, OSError) as error:
    _show_error(str(error))
    return 1
  except (AssertionError, MemoryError, RuntimeError) as error:
    message = _explain(error)
    if message is None:
      raise
    _show_error(message)
    return 1
  except KeyboardInterrupt:
    _show_error('interrupted')
    return 130
  return 0


def _run(name: str, arguments: list[str]) -> None:
  command = import_command(name)
  values = flags.FlagValues()
  command.define_flags(values)
  if {'-h', '--help'} & set(arguments):
    show(f'{COMMANDS[name]}\n{_describe_flags(values)}')
    return
  rest = values([f'tapjax {name}', *arguments])[1:]
  if rest:
    raise flags.Error(f'unexpected argument {rest[0]!r}; flags begin with --')
  with _show_warnings():
    command.run(values)


def import_command(name: str) -> types.ModuleType:
  """Imports the module of a command: `define_flags(values)`, `run(values)`."""
  return importlib.import_module(f'tapjax.cli.{name.replace("-", "_")}')


def _describe_usage() -> str:
  """Returns the names and summaries of all commands."""
  lines = ['Tracks any point through a video.', '']
  lines += [f'  tapjax {name:14} {text}' for name, text in COMMANDS.items()]
  lines += [
      '',
      'tapjax COMMAND --help lists the flags of a command.',
      'tapjax --version prints the version.',
  ]
  return '\n'.join(lines)


def _describe_flags(values: flags.FlagValues) -> str:
  """Returns help on all flags, sorted by name."""
  # absl groups flags by defining module; here they are one group.
  for name in values:
    values.register_flag_by_module('flags', values[name])
  return values.module_help('flags').partition('flags:')[2].rstrip()


def _explain(error: Exception) -> str | None:
  """Returns a message for an error of JAX or the machine; None for others."""
  if _is_out_of_memory(error):
    return f'{error} - choose a smaller --resolution, or fewer points'
  import jax

  try:
    jax.devices()
  except (AssertionError, RuntimeError) as reason:
    platforms = jax.config.jax_platforms  # type: ignore[attr-defined]
    return _describe_platform_error(reason, platforms)
  return None


def _describe_platform_error(reason: Exception, platforms: str | None) -> str:
  """Returns a message for a platform on which JAX cannot start.

  JAX says why in some cases, and fails an assertion in others.
  """
  cause = str(reason).partition(' (set JAX_PLATFORMS')[0]
  cause = cause and f' ({cause})'
  if not platforms:
    return (
        f'JAX cannot start on the devices of this machine{cause} - set '
        'JAX_PLATFORMS=cpu to do without them'
    )
  install = ''
  for name, extra in (('cuda', 'cuda12'), ('tpu', 'tpu')):
    if name in platforms:
      install = f"; for a {name} device run pip install 'jax[{extra}]'"
  return (
      'JAX_PLATFORMS must name a platform on which JAX can start here; got '
      f'{platforms!r}{cause} - unset it or set JAX_PLATFORMS=cpu{install}'
  )


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
      show_message(f'warning: {message}')

    warnings.simplefilter('default', UserWarning)
    warnings.showwarning = show_warning
    yield


def _show_error(message: str) -> None:
  show_message(f'error: {message}')
