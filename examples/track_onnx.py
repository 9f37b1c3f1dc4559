"""Tracks a grid of points with exported files: NumPy, ONNX Runtime, a video.

tapjax export --model=tapir --frames=24 --queries=64 --output=files
python examples/track_onnx.py video.mp4 files/tapir.onnx

tapjax export --model=causal_tapir --step --queries=64 --output=files
python examples/track_onnx.py video.mp4 files/causal_tapir_start.onnx \
    files/causal_tapir_step.onnx

The first form tracks through the number of frames of the file, the second
through the whole video, frame by frame. Both print a line for each frame and
point: `frame,point,x,y,visible`, in pixels of the video. Neither tapjax nor JAX
is required: pip install numpy onnxruntime av.
"""

import itertools
import sys

import av
import numpy as np
import onnxruntime


def read_frames(path, height, width):
  """Yields the size of the video, then frames, uint8 RGB [height, width, 3]."""
  with av.open(path) as container:
    for index, frame in enumerate(container.decode(video=0)):
      if index == 0:
        yield frame.height, frame.width
      yield frame.to_ndarray(
          width=width, height=height, format='rgb24', interpolation='BICUBIC'
      )


def make_grid(num_points, height, width):
  """Returns a grid of points (y, x) in pixels of the frames."""
  side = int(np.ceil(np.sqrt(num_points)))
  centers = (np.arange(side) + 0.5) / side
  y, x = np.meshgrid(centers * height, centers * width, indexing='ij')
  points = np.stack([y.ravel(), x.ravel()], axis=-1)
  return points[:num_points].astype(np.float32)


def run(session, inputs):
  """Returns the outputs of a session by their names."""
  names = [output.name for output in session.get_outputs()]
  return dict(zip(names, session.run(names, inputs), strict=True))


def print_frame(index, positions, visible, scale):
  """Prints the positions of all points on one frame."""
  for point, ((x, y), shown) in enumerate(
      zip(positions * scale, visible, strict=True)
  ):
    print(f'{index},{point},{x:.2f},{y:.2f},{int(shown)}')


def track_video(path, file):
  """Tracks through the first frames of a video, all at once."""
  session = onnxruntime.InferenceSession(file)
  frames_input, points_input = session.get_inputs()
  num_frames, height, width, _ = frames_input.shape
  reader = read_frames(path, height, width)
  video_height, video_width = next(reader)
  frames = np.stack(list(itertools.islice(reader, num_frames)))
  if len(frames) < num_frames:
    sys.exit(f'{path} has {len(frames)} frames; {file} is for {num_frames}')
  points = make_grid(points_input.shape[0], height, width)
  # On frame 0; any other frame will do as well.
  query_points = np.pad(points, ((0, 0), (1, 0)))
  tracks = run(session, {'frames': frames, 'query_points': query_points})
  scale = np.asarray([video_width / width, video_height / height], np.float32)
  for index in range(num_frames):
    print_frame(
        index, tracks['positions'][:, index], tracks['visible'][:, index], scale
    )


def track_stream(path, start_file, step_file):
  """Tracks through a video frame by frame, as from a camera."""
  start = onnxruntime.InferenceSession(start_file)
  step = onnxruntime.InferenceSession(step_file)
  frame_input, points_input = start.get_inputs()
  height, width, _ = frame_input.shape
  reader = read_frames(path, height, width)
  video_height, video_width = next(reader)
  scale = np.asarray([video_width / width, video_height / height], np.float32)
  state = None
  for index, frame in enumerate(reader):
    if state is None:
      points = make_grid(points_input.shape[0], height, width)
      state = run(start, {'frame': frame, 'points_yx': points})
    tracks = run(step, {'frame': frame, **state})
    for name in state:
      # What a point looks like stays; the memory of the frames goes on.
      state[name] = tracks.get(f'next_{name}', state[name])
    print_frame(index, tracks['positions'], tracks['visible'], scale)


def main(arguments):
  """Runs the files named on the command line."""
  if len(arguments) not in (2, 3):
    sys.exit(__doc__)
  print('frame,point,x,y,visible')
  if len(arguments) == 2:
    track_video(*arguments)
  else:
    track_stream(*arguments)


if __name__ == '__main__':
  main(sys.argv[1:])
