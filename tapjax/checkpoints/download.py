"""Cache of downloaded weight files, verified before use."""

import hashlib
import os
import pathlib
import re
from typing import NamedTuple
import urllib.parse
import warnings

import filelock

from tapjax import files
from tapjax.checkpoints import transfer
from tapjax.checkpoints.transfer import DownloadError

_RECORD = re.compile(r'([0-9a-f]{64}) (\d+) (\d+)\n')


class WeightFile(NamedTuple):
  """A published weight file.

  Attributes:
    url: http or https address.
    size: in bytes; None accepts any.
    sha256: hexadecimal digest; None records the digest of the first download.
    notice: warning shown before the download, such as a licence restriction.
  """

  url: str
  size: int | None
  sha256: str | None
  notice: str | None = None

  @property
  def stem(self) -> str:
    """File name without its suffix."""
    return pathlib.PurePosixPath(self.url).stem


class _Record(NamedTuple):
  """State of a cached file when it was last hashed."""

  sha256: str
  size: int
  modified_ns: int


def cache_directory() -> pathlib.Path:
  """Returns $TAPJAX_CACHE, $XDG_CACHE_HOME/tapjax or ~/.cache/tapjax."""
  if chosen := os.environ.get('TAPJAX_CACHE'):
    return pathlib.Path(chosen).expanduser()
  if caches := os.environ.get('XDG_CACHE_HOME'):
    return pathlib.Path(caches) / 'tapjax'
  return pathlib.Path.home() / '.cache' / 'tapjax'


def fetch(
    file: WeightFile,
    *,
    directory: pathlib.Path | None = None,
    show_progress: bool = True,
) -> pathlib.Path:
  """Returns the path of `file` in the cache, downloading it if necessary.

  The size is always checked. The SHA-256 is compared with that of `file`, or
  with the one recorded beside the cached file (`<name>.sha256`) at the first
  download. A cached file is hashed again only if its size or modification time
  differs from the record. Concurrent processes download a file once.

  Raises DownloadError if the file cannot be downloaded or verified; a cached
  file that fails verification is downloaded again first.
  """
  path = _get_cached_path(file, directory or cache_directory())
  if _is_recorded(path, file):
    return path
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f'{path}.lock'):
      if not _is_verified(path, file):
        _download(path, file, show_progress=show_progress)
  except OSError as error:
    raise DownloadError(
        f'{file.url} cannot be kept in {path.parent}: {error} - set'
        ' TAPJAX_CACHE to a folder that can be written'
    ) from None
  return path


def _get_cached_path(file: WeightFile, directory: pathlib.Path) -> pathlib.Path:
  """Returns the path of a file in the cache, which mirrors its address."""
  parts = urllib.parse.urlsplit(file.url)
  if parts.scheme not in ('http', 'https') or not parts.hostname:
    raise DownloadError(
        f'url must begin with http:// or https://; got {file.url!r} - pass a'
        ' local file as checkpoint=...'
    )
  steps = [parts.netloc, *urllib.parse.unquote(parts.path).split('/')]
  if parts.query:
    steps[-1] += f'_{parts.query}'
  safe = [re.sub(r'[^\w.-]', '_', step).lstrip('.')[-100:] for step in steps]
  if not safe[-1]:
    raise DownloadError(f'url must name a file; got {file.url!r}')
  return directory.joinpath(*filter(None, safe))


def _is_recorded(path: pathlib.Path, file: WeightFile) -> bool:
  """Returns whether the cached file is unchanged since its verification."""
  record = _read_record(path)
  if record is None or not path.is_file():
    return False
  status = path.stat()
  return (
      (status.st_size, status.st_mtime_ns) == record[1:]
      and file.size in (None, record.size)
      and file.sha256 in (None, record.sha256)
  )


def _is_verified(path: pathlib.Path, file: WeightFile) -> bool:
  """As `_is_recorded`, but hashes and records a file that changed."""
  if _is_recorded(path, file):
    return True
  if not path.is_file() or file.size not in (None, path.stat().st_size):
    return False
  digest = _hash(path)
  if digest != (file.sha256 or _get_recorded_hash(path) or digest):
    return False
  _write_record(path, path, digest)
  return True


def _download(
    path: pathlib.Path, file: WeightFile, *, show_progress: bool
) -> None:
  if file.notice is not None:
    warnings.warn(file.notice, stacklevel=3)
  part = path.with_name(f'{path.name}.part')
  transfer.download(
      file.url,
      part,
      size=file.size,
      can_verify=file.sha256 is not None,
      show_progress=show_progress,
  )
  digest = _hash(part)
  recorded = _get_recorded_hash(path)
  expected = file.sha256 or recorded or digest
  if digest != expected:
    part.unlink()
    advice = (
        'try again, or update tapjax if the file was replaced there'
        if file.sha256
        else f'delete {_get_record_path(path)} if it was replaced on purpose'
    )
    raise DownloadError(
        f'{file.url} must have the SHA-256 {expected}; got {digest} - {advice}'
    )
  _write_record(path, part, digest)
  os.replace(part, path)


def _hash(path: pathlib.Path) -> str:
  with path.open('rb') as stream:
    return hashlib.file_digest(stream, 'sha256').hexdigest()


def _get_record_path(path: pathlib.Path) -> pathlib.Path:
  return path.with_name(f'{path.name}.sha256')


def _read_record(path: pathlib.Path) -> _Record | None:
  record_path = _get_record_path(path)
  if not record_path.is_file():
    return None
  match = _RECORD.fullmatch(record_path.read_text(encoding='utf-8'))
  if match is None:
    raise DownloadError(
        f'{record_path} must hold a SHA-256, a size and a time; it does not -'
        f' delete it and {path}'
    )
  return _Record(match[1], int(match[2]), int(match[3]))


def _get_recorded_hash(path: pathlib.Path) -> str | None:
  record = _read_record(path)
  return record.sha256 if record else None


def _write_record(
    path: pathlib.Path, measured: pathlib.Path, digest: str
) -> None:
  """Records `digest` for `path`, with the size and time of `measured`."""
  status = measured.stat()
  text = f'{digest} {status.st_size} {status.st_mtime_ns}\n'
  with files.write_atomically(_get_record_path(path)) as stream:
    stream.write(text.encode())
