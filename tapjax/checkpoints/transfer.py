"""Resumable HTTP download into a partial file."""

from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import errno
import http.client
import io
import pathlib
import re
import socket
import time
from typing import Any, NamedTuple
import urllib.error
import urllib.request

import tqdm

_BLOCK = 1 << 18
_TIMEOUT_SECONDS = 20
_RETRY_DELAYS = (0.5, 1.0, 2.0, 4.0)
_TEMPORARY_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
_CONTENT_RANGE = re.compile(r'bytes (?:(\d+)-\d+|\*)/(\d+|\*)')


class DownloadError(ValueError):
  """A weight file could not be downloaded, or differs from the expected."""


class _Interrupted(Exception):  # noqa: N818
  """A failed attempt that may succeed when repeated."""


class _Body(NamedTuple):
  """Content of a response: bytes from `start` of a file of `total`."""

  start: int
  total: int | None
  validator: str


def download(
    url: str,
    part: pathlib.Path,
    *,
    size: int | None,
    can_verify: bool,
    show_progress: bool,
) -> None:
  """Downloads the file at `url` to `part`, resuming a partial file.

  A partial file is resumed only if the server confirms that the file is
  unchanged, or if the caller `can_verify` the result; otherwise the download
  starts anew. Failed connections are retried a few times.

  Raises DownloadError, keeping `part` for the next attempt unless it is wrong.
  """
  for delay in (*_RETRY_DELAYS, None):
    try:
      _attempt(
          url,
          part,
          size=size,
          can_verify=can_verify,
          show_progress=show_progress,
      )
    except _Interrupted as error:
      if delay is None:
        raise DownloadError(
            f'{url} could not be downloaded after {len(_RETRY_DELAYS) + 1}'
            f' attempts: {error} - try again later (the download continues), or'
            ' download it elsewhere and pass checkpoint=...'
        ) from None
      time.sleep(delay)
    else:
      discard_validator(part)
      return


def discard(part: pathlib.Path) -> None:
  """Removes a partial file and its validator."""
  part.unlink(missing_ok=True)
  discard_validator(part)


def discard_validator(part: pathlib.Path) -> None:
  """Removes the validator, which identifies the version of the file."""
  _get_validator_path(part).unlink(missing_ok=True)


def _get_validator_path(part: pathlib.Path) -> pathlib.Path:
  return part.with_name(f'{part.name}.etag')


def _attempt(
    url: str,
    part: pathlib.Path,
    *,
    size: int | None,
    can_verify: bool,
    show_progress: bool,
) -> None:
  """Downloads the missing bytes; raises `_Interrupted` for a retry."""
  validator_path = _get_validator_path(part)
  validator = ''
  if validator_path.exists():
    validator = validator_path.read_text(encoding='latin-1')
  if part.exists() and not (validator or can_verify):
    discard(part)
  present = part.stat().st_size if part.exists() else 0
  if size is not None and present >= size:
    if present == size:
      return
    discard(part)
    present = 0
  headers = {'Accept-Encoding': 'identity', 'User-Agent': 'tapjax'}
  if present:
    headers['Range'] = f'bytes={present}-'
    if validator:
      headers['If-Range'] = validator
  with _open(url, headers) as response:
    body = _read_range(url, response)
    if response.status == 416:
      if body.total != present or body.validator != validator:
        discard(part)
        raise _Interrupted('the partial file does not belong to the file there')
      return
    if body.start not in (0, present) or (
        body.start and validator and body.validator != validator
    ):
      discard(part)
      raise _Interrupted('the server sent a piece of another file')
    if size is not None and body.total is not None and body.total != size:
      discard(part)
      raise DownloadError(
          f'{url} must have {size} bytes; the server offers {body.total} - it'
          ' has been replaced there; update tapjax, or download the file that'
          ' you want and pass checkpoint=...'
      )
    total = body.total if size is None else size
    if total is None and not can_verify:
      raise DownloadError(
          f'{url} must be sent with its size, so that it can be checked; the'
          ' server names none - download it elsewhere and pass checkpoint=...'
      )
    with (
        _explain_full_disk(url, part, total),
        part.open('ab' if body.start else 'wb') as file,
    ):
      validator_path.write_text(body.validator, encoding='latin-1')
      received = _copy(
          response,
          file,
          body.start,
          total,
          title=part.stem,
          show_progress=show_progress,
      )
  if total is not None and received > total:
    discard(part)
    raise DownloadError(
        f'{url} must have {total} bytes; the server sent more - try again'
    )
  if total is not None and received < total:
    raise _Interrupted(f'the connection ended at {received} of {total} bytes')


def _read_range(url: str, response: Any) -> _Body:
  """Parses the headers of a response."""
  encoding = response.headers.get('Content-Encoding', 'identity')
  if encoding != 'identity':
    raise DownloadError(
        f'{url} must be sent as it is; the server sent Content-Encoding'
        f' {encoding!r} - download it elsewhere and pass checkpoint=...'
    )
  etag = response.headers.get('ETag', '')
  validator = etag if etag.startswith('"') else ''
  validator = validator or response.headers.get('Last-Modified', '')
  if response.status in (206, 416):
    match = _CONTENT_RANGE.fullmatch(response.headers.get('Content-Range', ''))
    if match is None:
      raise _Interrupted('the server sent a range without saying which')
    start, total = match.groups()
    return _Body(
        int(start or 0), None if total == '*' else int(total), validator
    )
  length = response.headers.get('Content-Length')
  is_known = length is not None and length.isdigit()
  return _Body(0, int(length) if is_known else None, validator)


def _copy(
    response: Any,
    file: io.BufferedIOBase,
    start: int,
    total: int | None,
    *,
    title: str,
    show_progress: bool,
) -> int:
  """Copies a response and returns the file size; may raise `_Interrupted`."""
  received = start
  with tqdm.tqdm(
      total=total,
      initial=start,
      desc=title,
      unit='B',
      unit_scale=True,
      disable=not show_progress,
  ) as progress:
    while total is None or received <= total:
      try:
        block = response.read(_BLOCK)
      except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(f'the connection was cut: {error}') from None
      if not block:
        break
      file.write(block)
      received += len(block)
      progress.update(len(block))
  return received


@contextlib.contextmanager
def _open(url: str, headers: Mapping[str, str]) -> Iterator[Any]:
  """Yields a response of status 200, 206 or 416; only HTTP(S) is allowed."""
  opener = urllib.request.OpenerDirector()
  for handler in (
      urllib.request.ProxyHandler,
      urllib.request.UnknownHandler,
      urllib.request.HTTPHandler,
      urllib.request.HTTPDefaultErrorHandler,
      urllib.request.HTTPRedirectHandler,
      urllib.request.HTTPSHandler,
      urllib.request.HTTPErrorProcessor,
  ):
    opener.add_handler(handler())
  request = urllib.request.Request(url, headers=dict(headers))
  try:
    response = opener.open(request, timeout=_TIMEOUT_SECONDS)
  except urllib.error.HTTPError as error:
    response = error
  except (OSError, http.client.HTTPException) as error:
    reason = getattr(error, 'reason', error)
    if isinstance(reason, socket.gaierror | TimeoutError):
      raise DownloadError(
          f'{url} could not be downloaded: the server cannot be reached'
          f' ({reason}) - go online, or download it elsewhere and pass'
          ' checkpoint=...'
      ) from None
    raise _Interrupted(f'the server cannot be reached ({reason})') from None
  with contextlib.closing(response):
    if response.status in _TEMPORARY_STATUSES:
      raise _Interrupted(f'the server answered {response.status}')
    if response.status not in (200, 206, 416):
      raise DownloadError(
          f'{url} could not be downloaded: the server answered'
          f' {response.status} {response.reason} - has it moved? Download it'
          ' elsewhere and pass checkpoint=...'
      )
    yield response


@contextlib.contextmanager
def _explain_full_disk(
    url: str, part: pathlib.Path, total: int | None
) -> Iterator[None]:
  try:
    yield
  except OSError as error:
    discard(part)
    needs = f'{total} bytes' if total is not None else 'an unknown size'
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    problem = 'the disk is full' if is_full else f'writing failed: {error}'
    raise DownloadError(
        f'{url} needs {needs} in {part.parent}, where {problem} - make room'
        ' there or set TAPJAX_CACHE to another folder'
    ) from None
