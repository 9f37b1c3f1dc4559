"""Partial files of downloads; `test_download` has a server."""

import pytest

from tapjax.checkpoints import transfer


@pytest.fixture(autouse=True)
def _never_retry(monkeypatch):
  monkeypatch.setattr(transfer, '_RETRY_DELAYS', ())


def download(part, url='http://127.0.0.1:9/weights', size=4):
  transfer.download(url, part, size=size, can_verify=True, show_progress=False)


def test_a_complete_file_needs_no_server(tmp_path):
  part = tmp_path / 'part'
  part.write_bytes(b'abcd')
  validator = tmp_path / 'part.etag'
  validator.write_text('"one"')
  download(part)
  assert part.read_bytes() == b'abcd'
  assert not validator.exists()


def test_a_file_that_is_too_long_is_discarded(tmp_path):
  part = tmp_path / 'part'
  part.write_bytes(b'abcdef')
  with pytest.raises(transfer.DownloadError, match='after 1 attempts'):
    download(part)
  assert not part.exists()


def test_other_protocols_are_refused(tmp_path):
  (tmp_path / 'file').write_bytes(b'abcd')
  with pytest.raises(transfer.DownloadError, match='unknown url type'):
    download(tmp_path / 'part', (tmp_path / 'file').as_uri())


def test_discarding_removes_the_validator_too(tmp_path):
  part = tmp_path / 'part'
  part.write_bytes(b'a')
  (tmp_path / 'part.etag').write_text('"one"')
  transfer.discard(part)
  transfer.discard(part)  # Nothing is left, which is no error.
  assert not list(tmp_path.iterdir())
