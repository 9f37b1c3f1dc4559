"""Videos from addresses."""

import functools
import http.server
import threading

import numpy as np
import pytest

from tapjax.media import sources
from tapjax.media import video as video_files
from tests.support import videos


@pytest.fixture
def server(tmp_path):
  """Serves a folder; yields its address."""
  handler = functools.partial(
      http.server.SimpleHTTPRequestHandler, directory=str(tmp_path)
  )
  handler.log_message = lambda *_: None
  with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f'http://127.0.0.1:{server.server_address[1]}'
    server.shutdown()
    thread.join()


def test_videos_are_read_from_addresses(tmp_path, server):
  path = tmp_path / 'clip.mp4'
  videos.encode(path, videos.make_frames(10, 48, 64))
  address = f'{server}/clip.mp4'
  frames = video_files.read_video(address)
  np.testing.assert_array_equal(frames, video_files.read_video(path))
  assert video_files.get_name(address) == 'clip'
  source = sources.find_source(address)
  assert (source.name, source.frame_rate) == ('clip', 24)
  assert not source.repeatable
  with source.open(threading.Event()) as items:
    np.testing.assert_array_equal(np.stack([i.frame for i in items]), frames)


def test_missing_addresses_are_one_line(server):
  with pytest.raises(ValueError, match=r'none\.mp4 cannot be read: .*404'):
    video_files.read_video(f'{server}/none.mp4')


def test_playlists_of_addresses_reach_no_file(tmp_path, server):
  path = tmp_path / 'clip.ts'
  videos.encode(path, videos.make_frames(5, 48, 64))
  (tmp_path / 'list.m3u8').write_text(
      f'#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nfile://{path}\n'
      '#EXT-X-ENDLIST\n'
  )
  with pytest.raises(ValueError, match=r'cannot be read|could be decoded'):
    video_files.read_video(f'{server}/list.m3u8')
