"""Settings that make networks and scenes small enough for tests."""

from tapjax.data.procedural.videos import ProceduralConfig
from tapjax.models.pips_plus_plus.config import PipsPlusPlusConfig
from tapjax.models.point_transformer.config import PointTransformerConfig
from tapjax.models.taptr.config import TaptrConfig

LOCOTRACK = (
    'model.initial_resolution=(32,32)',
    'model.num_iterations=1',
    'model.transformer_layers=1',
    'model.transformer_channels=64',
    'model.transformer_heads=2',
    'model.encoder_layers=((5,4,16),(2,2,16))',
)
SCENE = ProceduralConfig(
    num_frames=3,
    resolution=(16, 16),
    num_queries=6,
    num_objects=2,
    samples_per_pixel=1,
    texture_size=8,
    num_leaves=2,
)
PIPS_PLUS_PLUS = PipsPlusPlusConfig(
    resolution=(48, 64),
    channels=(8, 8, 8, 8),
    fused_channels=8,
    feature_channels=8,
    levels=2,
    radius=1,
    frequencies=2,
    block_channels=(8, 12),
    num_iterations=2,
    window=4,
)
TAPTR = TaptrConfig(
    resolution=(32, 32),
    backbone_blocks=(1,),
    backbone_channels=4,
    channels=8,
    hidden_channels=8,
    num_heads=2,
    num_samples=1,
    num_groups=2,
    encoder_layers=0,
    decoder_layers=1,
    window=2,
)
POINT_TRANSFORMER = PointTransformerConfig(
    resolution=(32, 32),
    backbone_blocks=(1,),
    backbone_channels=4,
    channels=8,
    num_blocks=1,
    num_heads=2,
    window=4,
    num_points=3,
)
