"""TAPTRv2 against stored outputs of the published implementation.

Two float32 implementations differ by 1.3e-4 px and 6e-6 in logits.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tapjax
from tapjax.geometry import normalize_frames
from tapjax.geometry import resize_video
from tapjax.models.arrows import get_query_frames
from tapjax.models.haiku import make_network
from tapjax.models.taptr.functions import make_start
from tapjax.models.taptr.layers import compute_logit
from tapjax.models.taptr.network import embed_cells
from tapjax.models.taptr.network import Taptr
from tapjax.models.taptr.windows import track_windows
from tests.support import golden
from tests.support import weights

PIXELS = 5e-4
LOGITS = 5e-5
NORMALIZED = 2e-6
# Of the standard deviation of an array.
FEATURES = 5e-5


def load_tracker(case, reference, folder):
  manifest = weights.load_manifest(reference / case.meta['manifest'])
  path = golden.write_torch_arrays(
      folder / 'taptrv2.pth',
      weights.fill(manifest, case.meta['seed']),
      'ema_model',
  )
  side = case.sides[1]
  return tapjax.load('taptrv2', checkpoint=path, resolution=(side, side))


@pytest.mark.slow
@pytest.mark.parametrize(
    'name', ['strided', 'sliding', 'long', 'protocol', 'window']
)
def test_whole_video(name, reference, tmp_path):
  """Tracks of the public API.

  Only in one file are frames before the query tracked too.
  """
  case = golden.load_taptr_case(reference, name)
  expected = case.expected
  tracker = load_tracker(case, reference, tmp_path)
  tracks = tracker.track(case.frames, case.query_points)
  rows = len(expected['tracks'])
  frames = np.arange(len(case.frames))
  kept = frames >= case.query_points[:rows, :1]
  if name == 'strided':
    kept = np.ones_like(kept)
  close = np.testing.assert_allclose
  close(
      case.to_stored(tracks.positions[:rows])[kept],
      expected['tracks'][kept],
      atol=PIXELS,
  )
  logits = -tracks.occlusion_logits[:rows]
  close(logits[kept], expected['vis_logits'][kept][:, 1], atol=LOGITS)
  np.testing.assert_array_equal(
      tracks.visible[:rows][kept], expected['visible'][kept]
  )
  assert tracks.uncertainty_logits is None


def assert_features(ours, theirs):
  np.testing.assert_allclose(ours, theirs, atol=FEATURES * np.std(theirs))


# Parts of what `test_whole_video` sees whole.
@pytest.mark.slow
@pytest.mark.heavy
@pytest.mark.parametrize('name', ['sliding', 'long', 'window'])
def test_stages(name, reference, tmp_path):
  """Results of every part of the network, the earliest first."""
  case = golden.load_taptr_case(reference, name)
  expected = case.expected
  tracker = load_tracker(case, reference, tmp_path)
  functions, params, config = tracker.functions, tracker.params, tracker.config
  video = np.asarray(
      resize_video(normalize_frames(case.frames), config.resolution)
  )
  last = min(len(video), 24) - 1
  ends = np.asarray([0, last])

  class Exposed(Taptr):

    def backbone(self, frame):
      levels = self._backbone(frame[None])
      projection = self._projections[2](levels[2])
      return levels, self._projection_norms[2](projection)

  exposed = make_network(lambda: Exposed(config, 'cpu'), ('backbone',), tuple)
  colors = (video[ends] + 1) / 2 - np.asarray([0.485, 0.456, 0.406])
  colors = jnp.asarray(colors / np.asarray([0.229, 0.224, 0.225]), jnp.float32)
  levels, projected = jax.jit(
      jax.vmap(lambda frame: exposed.apply('backbone', params, frame))
  )(colors)
  channels_first = (0, 3, 1, 2)
  finest = levels[0][:, 0, ::8, ::8, ::16].transpose(channels_first)
  assert_features(finest, expected['resnet_layer1'])
  coarsest = levels[-1][:, 0, :, :, ::64].transpose(channels_first)
  assert_features(coarsest, expected['resnet_layer4'])
  projected = projected[:, 0, ::4, ::4, ::16].transpose(channels_first)
  assert_features(projected, expected['input_proj_2'])
  height, width = config.sizes[0]
  position = embed_cells((height, width), config.channels)
  position = position.reshape(height, width, -1)[::8, ::8].transpose(2, 0, 1)
  np.testing.assert_allclose(position, expected['pos_embed_0'], atol=1e-5)

  tokens = jax.jit(functions.encode_video)(params, video[None])
  assert_features(tokens[0, ends][:, ::61, ::8], expected['memory'])
  clip, network = case.sides
  points = case.query_points * np.float32([1, network / clip, network / clip])
  points = jnp.asarray(points)[None]
  queries = jax.jit(functions.describe_queries)(params, tokens, points)
  assert_features(queries.vectors[0], expected['init_features'])

  state = functions.initialize_tracks(params, tokens, queries, points)
  windows = []

  def apply(method, *arguments):
    outputs = functions._network.apply(method, params, *arguments)
    if method == 'decode_window':
      before = jax.nn.sigmoid(arguments[0].boxes)
      jax.debug.callback(
          lambda *arrays: windows.append(jax.tree.map(np.asarray, arrays)),
          before,
          *outputs,
          ordered=True,
      )
    return outputs

  @jax.jit
  def track(tokens, vectors, points, state):
    return track_windows(
        apply,
        config,
        tokens,
        vectors,
        get_query_frames(points, len(tokens)),
        make_start(state, config),
        jnp.asarray(True),
    )

  outputs = track(
      *jax.tree.map(lambda array: array[0], (tokens, *queries, state))
  )
  jax.block_until_ready(outputs)
  jax.effects_barrier()
  close = np.testing.assert_allclose
  num_windows = sum(name.endswith('_hs_last') for name in expected)
  assert num_windows >= 1
  for i, (before, layers, fused) in enumerate(windows[:num_windows]):
    boxes = np.concatenate([before[None], jax.nn.sigmoid(layers.boxes)])
    close(boxes, expected[f'win{i}_ref'], atol=NORMALIZED)
    moved = jax.nn.sigmoid(compute_logit(jnp.asarray(layers.moved)))
    close(moved, expected[f'win{i}_ref_apu'], atol=NORMALIZED)
    assert_features(fused[..., ::8], expected[f'win{i}_hs_last'])
  boxes = jax.nn.sigmoid(outputs.boxes[-1]).swapaxes(0, 1)
  close(boxes, expected['boxes'], atol=NORMALIZED)
  logits = outputs.classes[-1].swapaxes(0, 1)
  close(logits, expected['vis_logits'], atol=LOGITS)
