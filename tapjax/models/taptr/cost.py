"""Number of operations of TAPTRv2."""

from tapjax.models.taptr.config import TaptrConfig
from tapjax.models.taptr.windows import count_windows
from tapjax.nn.torchvision_resnet import count_resnet
from tapjax.ops.deformable import count_tokens


def count_operations(
    config: TaptrConfig, num_frames: int, num_queries: int
) -> float:
  """Returns multiply-adds times two of tracking queries through a video.

  Queries are taken to be on the first frame.
  """
  channels, hidden = config.channels, config.hidden_channels
  samples = config.num_heads * config.num_levels * config.num_samples
  tokens = count_tokens(config.sizes)
  frame = count_resnet(config.backbone, *config.resolution)
  frame += (
      2.0
      * channels
      * sum(
          height * width * inputs
          for (height, width), inputs in zip(
              config.sizes, config.backbone.output_channels, strict=True
          )
      )
  )
  # Offsets, weights, values and output; four cells a sample; the perceptron.
  token = channels * (3 * samples + 2 * channels + 2 * hidden)
  token += samples * 4 * channels // config.num_heads
  frame += 2.0 * config.encoder_layers * tokens * token

  # The five matrices, two of which are applied by head; samples, read at four
  # cells, scored and summed; the step; two attentions; the perceptrons.
  point = channels * (2 * samples + 4 * channels)
  point += 6 * samples * channels
  point += 2 * samples * channels + channels**2
  point += 8 * channels**2 + 2 * channels * (config.window + num_queries)
  point += 2 * channels * hidden
  # Embeddings of two boxes, the update, the fusion and the heads.
  point += (3 * 2 + 1 + 3 + 4 + 2) * channels**2 + 7 * channels
  num_windows = count_windows(max(num_frames, config.window), config.window)
  entries = int(num_windows) * config.window * num_queries
  return (
      num_frames * frame
      + 2.0 * entries * (config.decoder_layers * point + 4 * channels**2)
      + 2.0 * num_queries * config.num_levels * channels**2
  )
