"""Settings that make networks and scenes small enough for tests."""

from tapjax.data.procedural.videos import ProceduralConfig

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
