"""Soak: mutated videos through `tapjax track`, one process for each.

python -m tests.support.mutated_videos --first=0 --count=60

Each seed makes one small video of some kind and damages it: bytes are changed,
cut, doubled or zeroed, or it gets the name of another container. The command
must end within a minute with status 0 and whole results, or with status 1, one
line on stderr and no results.
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import numpy as np

from tests.support import videos

KINDS = (
    ('mp4', 'libx264', 'yuv420p', {}),
    ('mp4', 'libx264', 'yuv420p', {'movflags': 'frag_keyframe+empty_moov'}),
    ('mp4', 'mpeg4', 'yuv420p', {}),
    ('mov', 'prores_ks', 'yuv422p10le', {}),
    ('mkv', 'libx264', 'yuv420p', {}),
    ('mkv', 'ffv1', 'yuv420p', {}),
    ('webm', 'libvpx', 'yuv420p', {}),
    ('webm', 'libvpx-vp9', 'yuv420p', {}),
    ('avi', 'mjpeg', 'yuvj420p', {}),
    ('avi', 'mpeg4', 'yuv420p', {}),
    ('ts', 'libx264', 'yuv420p', {}),
    ('mpg', 'mpeg2video', 'yuv420p', {}),
    ('mxf', 'mpeg2video', 'yuv420p', {}),
    ('flv', 'flv', 'yuv420p', {}),
    ('wmv', 'wmv2', 'yuv420p', {}),
    ('rm', 'rv20', 'yuv420p', {}),
    ('gif', 'gif', 'rgb8', {}),
    ('apng', 'apng', 'rgb24', {}),
    ('h264', 'libx264', 'yuv420p', {}),
    ('nut', 'ffv1', 'yuv420p', {}),
)
RESULTS = ['tracks.csv', 'tracks.mp4', 'tracks.npz']
SECONDS = 60.0


def mutate(content, generator):
  """Returns damaged content."""
  data = bytearray(content)
  place = int(generator.integers(len(data)))
  length = int(generator.integers(1, max(2, len(data) // 4)))
  kind = generator.choice(['flip', 'header', 'cut', 'zero', 'double', 'drop'])
  if kind == 'flip':
    for index in generator.integers(len(data), size=generator.integers(1, 64)):
      data[index] = int(generator.integers(256))
  elif kind == 'header':
    for index in generator.integers(min(1024, len(data)), size=4):
      data[index] = int(generator.integers(256))
  elif kind == 'cut':
    del data[place:]
  elif kind == 'zero':
    data[place : place + length] = bytes(len(data[place : place + length]))
  elif kind == 'double':
    data[place:place] = data[place : place + length]
  else:
    del data[place : place + length]
  return bytes(data)


def make_video(folder, seed):
  """Writes the video of a seed, and returns its path."""
  generator = np.random.default_rng(seed)
  suffix, codec, pixels, options = KINDS[generator.integers(len(KINDS))]
  path = folder / f'whole.{suffix}'
  frames = videos.make_frames(int(generator.integers(2, 12)), 48, 64)
  videos.encode(
      path, frames, codec=codec, pixels=pixels, container_options=options
  )
  if generator.random() < 0.2:
    suffix = KINDS[generator.integers(len(KINDS))][0]
  damaged = folder / f'damaged.{suffix}'
  damaged.write_bytes(mutate(path.read_bytes(), generator))
  return damaged


def check(path):
  """Tracks a video in a process; returns its status and a complaint or ''."""
  output = path.parent / 'out'
  command = [sys.executable, '-m', 'tapjax', 'track', f'--video={path}']
  try:
    process = subprocess.run(
        [*command, '--grid=2', f'--output={output}'],
        capture_output=True,
        check=False,
        env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
        timeout=SECONDS,
    )
  except subprocess.TimeoutExpired:
    return None, 'it hangs'
  errors = process.stderr.decode(errors='replace')
  written = sorted(os.listdir(output)) if output.exists() else []
  if 'Traceback' in errors:
    return process.returncode, errors[-2000:]
  if process.returncode == 0:
    return 0, '' if written == RESULTS else f'wrote {written}'
  lines = re.findall(r'tapjax: error: .*', errors)
  if process.returncode != 1 or len(lines) != 1 or written:
    return process.returncode, f'{written} {errors[-2000:]}'
  return 1, ''


def main():
  """Runs the seeds and prints those with a complaint."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--first', type=int, default=0)
  parser.add_argument('--count', type=int, default=500)
  arguments = parser.parse_args()
  counts = {}
  complaints = 0
  for seed in range(arguments.first, arguments.first + arguments.count):
    with tempfile.TemporaryDirectory() as folder:
      path = make_video(pathlib.Path(folder), seed)
      start = time.monotonic()
      status, complaint = check(path)
      counts[status] = counts.get(status, 0) + 1
      if complaint:
        complaints += 1
        seconds = time.monotonic() - start
        sys.stdout.write(
            f'seed {seed} {path.name} {status} {seconds:.0f} s: {complaint}\n'
        )
  sys.stdout.write(f'{counts} by status; {complaints} complaints\n')
  return min(complaints, 1)


if __name__ == '__main__':
  sys.exit(main())
