import contextlib
import errno
import hashlib
import http.server
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from tapjax import checkpoints
from tapjax.checkpoints import transfer

_CONTENT = np.random.default_rng(0).bytes(400_000)
_SHA256 = hashlib.sha256(_CONTENT).hexdigest()


class _Server(http.server.ThreadingHTTPServer):
  """An HTTP server of `content` at every path, with scripted faults."""

  daemon_threads = True

  def __init__(self):
    super().__init__(('127.0.0.1', 0), _Handler)
    self.content = _CONTENT
    self.etag = '"one"'
    self.has_ranges = True
    self.cuts: list[int] = []  # How many bytes to send, for each request.
    self.statuses: list[int] = []  # What to answer first.
    self.headers: dict[str, str] = {}
    self.ranges: list[str | None] = []  # What was asked for.
    self.delay = 0.0

  @property
  def url(self):
    return f'http://127.0.0.1:{self.server_address[1]}/files/weights.npy'


class _Handler(http.server.BaseHTTPRequestHandler):

  server: _Server

  def log_message(self, *_):
    pass

  def do_GET(self):
    server = self.server
    asked = self.headers.get('Range')
    server.ranges.append(asked)
    if server.statuses:
      self.send_response(server.statuses.pop(0))
      self.end_headers()
      return
    content, status, headers = server.content, 200, {}
    expected = self.headers.get('If-Range', server.etag)
    if asked and server.has_ranges and expected == server.etag:
      start = int(asked.removeprefix('bytes=').removesuffix('-'))
      if start >= len(content):
        status, content = 416, b''
        headers['Content-Range'] = f'bytes */{len(server.content)}'
      else:
        status = 206
        headers['Content-Range'] = (
            f'bytes {start}-{len(content) - 1}/{len(content)}'
        )
        content = content[start:]
    headers['Content-Length'] = str(len(content))
    if server.etag:
      headers['ETag'] = server.etag
    self.send_response(status)
    for name, value in (headers | server.headers).items():
      if value:
        self.send_header(name, value)
    self.end_headers()
    time.sleep(server.delay)
    with contextlib.suppress(OSError):
      length = server.cuts.pop(0) if server.cuts else len(content)
      self.wfile.write(content[:length])


@pytest.fixture
def server():
  server = _Server()
  thread = threading.Thread(target=server.serve_forever, args=(0.01,))
  thread.start()
  yield server
  server.shutdown()
  thread.join()
  server.server_close()


@pytest.fixture(autouse=True)
def _retry_at_once(monkeypatch):
  monkeypatch.setattr(transfer, '_RETRY_DELAYS', (0.0, 0.0))


@pytest.fixture
def fetch(server, tmp_path):
  def run(*, size=None, sha256=None, url=None):
    file = checkpoints.WeightFile(url or server.url, size, sha256)
    return checkpoints.fetch(file, directory=tmp_path, show_progress=False)

  return run


def _list_leftovers(folder):
  return sorted(
      path.name
      for path in folder.rglob('*')
      if path.is_file() and path.suffix not in ('.lock', '.sha256', '.npy')
  )


def test_a_file_is_downloaded_once(server, fetch, tmp_path):
  path = fetch(size=len(_CONTENT), sha256=_SHA256)
  assert path.read_bytes() == _CONTENT
  assert path.name == 'weights.npy'
  assert fetch(size=len(_CONTENT), sha256=_SHA256) == path
  assert fetch() == path
  assert server.ranges == [None]
  assert not _list_leftovers(tmp_path)


def test_a_notice_is_given_when_a_file_is_downloaded(server, tmp_path):
  file = checkpoints.WeightFile(server.url, None, None, notice='not for sale')
  with pytest.warns(UserWarning, match='not for sale'):
    checkpoints.fetch(file, directory=tmp_path, show_progress=False)
  # Warnings are errors here.
  checkpoints.fetch(file, directory=tmp_path, show_progress=False)


def test_files_of_one_name_are_kept_apart(server, fetch, tmp_path):
  first = fetch()
  server.content = b'other'
  for address in ('/other/weights.npy', '/weights.npy?key=../../x', '/../a'):
    other = fetch(url=server.url.removesuffix('/files/weights.npy') + address)
    assert other.read_bytes() == b'other'
    assert tmp_path in other.resolve().parents
  assert first.read_bytes() == _CONTENT


def test_a_cut_connection_is_continued(server, fetch):
  server.cuts = [100_000, 150_000]
  path = fetch(sha256=_SHA256)
  assert path.read_bytes() == _CONTENT
  assert server.ranges == [None, 'bytes=100000-', 'bytes=250000-']


def test_a_later_call_continues_what_an_earlier_one_left(server, fetch):
  server.cuts = [100_000, 0, 0]
  with pytest.raises(
      checkpoints.DownloadError, match=r'after 3 attempts.*ended'
  ):
    fetch()
  assert fetch().read_bytes() == _CONTENT
  assert server.ranges[-1] == 'bytes=100000-'


def test_a_file_that_changed_meanwhile_is_fetched_anew(server, fetch, tmp_path):
  server.cuts = [100_000, 0, 0]
  with pytest.raises(checkpoints.DownloadError):
    fetch()
  server.content, server.etag = _CONTENT[::-1], '"two"'
  assert fetch().read_bytes() == _CONTENT[::-1]
  assert not _list_leftovers(tmp_path)


@pytest.mark.parametrize('etag', ['', 'W/"weak"'])
def test_what_cannot_be_verified_is_not_continued(server, fetch, etag):
  server.etag = etag
  server.cuts = [100_000]
  assert fetch().read_bytes() == _CONTENT
  assert server.ranges == [None, None]
  server.cuts = [100_000]
  server.content = _CONTENT[::-1]
  digest = hashlib.sha256(server.content).hexdigest()
  url = server.url.replace('weights', 'verified')
  assert fetch(url=url, sha256=digest).read_bytes() == server.content
  assert server.ranges[2:] == [None, 'bytes=100000-']


def test_a_server_without_ranges_starts_from_zero(server, fetch):
  server.has_ranges = False
  server.cuts = [100_000]
  assert fetch(sha256=_SHA256).read_bytes() == _CONTENT
  assert server.ranges == [None, 'bytes=100000-']


def test_a_partial_file_longer_than_the_file_is_dropped(
    server, fetch, tmp_path
):
  path = fetch(sha256=_SHA256)
  path.unlink()
  part = path.with_name(f'{path.name}.part')
  part.write_bytes(bytes(500_000))
  assert fetch(sha256=_SHA256).read_bytes() == _CONTENT
  assert server.ranges == [None, 'bytes=500000-', None]
  path.unlink()
  part.write_bytes(bytes(500_000))
  assert fetch(size=400_000, sha256=_SHA256).read_bytes() == _CONTENT
  assert not _list_leftovers(tmp_path)


def test_a_stale_partial_file_is_removed_when_the_hash_is_wrong(
    server, fetch, tmp_path
):
  part = fetch(sha256=_SHA256)
  part.rename(part.with_name(f'{part.name}.part'))
  part = part.with_name(f'{part.name}.part')
  part.write_bytes(bytes(100_000))
  with pytest.raises(
      checkpoints.DownloadError, match=f'SHA-256 {_SHA256}; got'
  ):
    fetch(sha256=_SHA256)
  assert not _list_leftovers(tmp_path)
  assert fetch(sha256=_SHA256).read_bytes() == _CONTENT


def test_a_wrong_size_is_refused_before_the_download(server, fetch, tmp_path):
  with pytest.raises(
      checkpoints.DownloadError, match=r'have 399999 bytes; .* offers 400000'
  ):
    fetch(size=399_999)
  assert not list(tmp_path.rglob('*.npy'))
  assert not _list_leftovers(tmp_path)


def test_a_size_is_needed(server, fetch):
  server.headers = {'Content-Length': ''}
  with pytest.raises(checkpoints.DownloadError, match='sent with its size'):
    fetch()
  assert fetch(sha256=_SHA256).read_bytes() == _CONTENT


def test_a_wrong_hash_is_refused(fetch, tmp_path):
  with pytest.raises(checkpoints.DownloadError, match=f'got {_SHA256} - try'):
    fetch(sha256='0' * 64)
  assert not list(tmp_path.rglob('*.npy'))
  assert not _list_leftovers(tmp_path)


def test_the_first_hash_is_recorded_and_compared_ever_after(server, fetch):
  path = fetch()
  record = path.with_name(f'{path.name}.sha256')
  assert record.read_text().startswith(f'{_SHA256} 400000 ')
  path.unlink()
  server.content = _CONTENT[::-1]
  with pytest.raises(checkpoints.DownloadError, match=r'delete .*npy\.sha256'):
    fetch()
  assert not path.exists()
  record.unlink()
  assert fetch().read_bytes() == _CONTENT[::-1]


def test_a_damaged_cached_file_is_downloaded_again(server, fetch):
  path = fetch()
  path.write_bytes(_CONTENT[:-1] + b'x')
  os.utime(path, ns=(0, 0))
  assert fetch().read_bytes() == _CONTENT
  path.write_bytes(_CONTENT[:-1])
  assert fetch().read_bytes() == _CONTENT
  assert server.ranges == [None] * 3


def test_a_touched_cached_file_is_hashed_and_kept(server, fetch, monkeypatch):
  path = fetch()
  os.utime(path, ns=(0, 0))
  assert fetch() == path
  monkeypatch.setattr(hashlib, 'file_digest', None)  # No more hashing.
  assert fetch() == path
  assert server.ranges == [None]


def test_a_file_put_there_by_hand_is_recorded(server, fetch):
  path = fetch()
  path.with_name(f'{path.name}.sha256').unlink()
  assert fetch(size=400_000) == path
  assert path.with_name(f'{path.name}.sha256').exists()
  assert server.ranges == [None]


def test_a_malformed_record_is_refused(fetch):
  path = fetch()
  path.with_name(f'{path.name}.sha256').write_text('nonsense')
  with pytest.raises(checkpoints.DownloadError, match='must hold a SHA-256'):
    fetch()


def test_a_full_disk_leaves_nothing(server, fetch, tmp_path, monkeypatch):
  def fill(response, file, *_, **__):
    file.write(response.read(1000))
    raise OSError(errno.ENOSPC, 'No space left on device')

  with monkeypatch.context() as patch:
    patch.setattr(transfer, '_copy', fill)
    with pytest.raises(
        checkpoints.DownloadError,
        match=r'needs 400000 bytes in .* disk is full',
    ):
      fetch()
  assert not list(tmp_path.rglob('*.npy'))
  assert not _list_leftovers(tmp_path)
  assert fetch().read_bytes() == _CONTENT


def test_a_cache_that_cannot_be_written_is_named(server, fetch, tmp_path):
  (tmp_path / server.url.split('/')[2].replace(':', '_')).touch()
  with pytest.raises(checkpoints.DownloadError, match='set TAPJAX_CACHE'):
    fetch()


def test_a_missing_file_is_not_tried_again(server, fetch):
  server.statuses = [404, 404]
  with pytest.raises(checkpoints.DownloadError, match='answered 404 Not Found'):
    fetch()
  assert len(server.ranges) == 1


def test_a_busy_server_is_tried_again(server, fetch):
  server.statuses = [503, 429]
  assert fetch().read_bytes() == _CONTENT
  server.statuses = [503] * 3
  with pytest.raises(
      checkpoints.DownloadError, match='answered 503 - try again'
  ):
    fetch(url=server.url.replace('weights', 'other'))


def test_encoded_content_is_refused(server, fetch, tmp_path):
  server.headers = {'Content-Encoding': 'gzip'}
  with pytest.raises(
      checkpoints.DownloadError, match="Content-Encoding 'gzip'"
  ):
    fetch()
  assert not _list_leftovers(tmp_path)


def test_an_unreachable_server_says_how_to_work_offline(fetch):
  with pytest.raises(
      checkpoints.DownloadError, match=r'cannot be reached .* checkpoint=\.\.\.'
  ):
    fetch(url='http://127.0.0.1:1/weights.npy')


@pytest.mark.parametrize(
    'url', ['file:///etc/hostname', 'ftp://host/a', 'weights.npy', 'http:///a']
)
def test_only_http_is_spoken(fetch, url):
  with pytest.raises(checkpoints.DownloadError, match='must begin with http'):
    fetch(url=url)


def test_redirections_lead_to_http_only(server, fetch):
  server.statuses = [302]
  original = _Handler.end_headers

  def redirect(handler):
    handler.send_header('Location', 'file:///etc/hostname')
    original(handler)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(_Handler, 'end_headers', redirect)
    with pytest.raises(checkpoints.DownloadError, match='answered 302'):
      fetch()


def test_two_processes_download_once(server, tmp_path):
  server.delay = 0.3
  program = (
      'import pathlib, sys\n'
      'from tapjax import checkpoints\n'
      'file = checkpoints.WeightFile(sys.argv[1], None, None)\n'
      'print(checkpoints.fetch(file, directory=pathlib.Path(sys.argv[2])))\n'
  )
  processes = [
      subprocess.Popen(
          [sys.executable, '-c', program, server.url, str(tmp_path)],
          stdout=subprocess.PIPE,
          stderr=subprocess.PIPE,
          text=True,
      )
      for _ in range(2)
  ]
  outputs = [process.communicate(timeout=60) for process in processes]
  assert [process.returncode for process in processes] == [0, 0], outputs
  assert server.ranges == [None]
  assert outputs[0][0] == outputs[1][0]
  assert sum('weights' in errors for _, errors in outputs) == 1


def test_progress_goes_to_the_error_stream(server, tmp_path, capfd):
  file = checkpoints.WeightFile(server.url, None, None)
  checkpoints.fetch(file, directory=tmp_path)
  captured = capfd.readouterr()
  assert not captured.out
  assert '400k/400k' in captured.err


def test_the_cache_directory_follows_the_environment(monkeypatch, tmp_path):
  monkeypatch.setenv('HOME', str(tmp_path))
  monkeypatch.delenv('TAPJAX_CACHE', raising=False)
  monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
  assert checkpoints.cache_directory() == tmp_path / '.cache' / 'tapjax'
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'xdg'))
  assert checkpoints.cache_directory() == tmp_path / 'xdg' / 'tapjax'
  monkeypatch.setenv('TAPJAX_CACHE', '~/mine')
  assert checkpoints.cache_directory() == tmp_path / 'mine'
