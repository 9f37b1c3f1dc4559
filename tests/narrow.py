"""Settings that make networks small enough to train in tests."""

LOCOTRACK = (
    'model.initial_resolution=(32,32)',
    'model.num_iterations=1',
    'model.transformer_layers=1',
    'model.transformer_channels=64',
    'model.transformer_heads=2',
    'model.encoder_layers=((5,4,16),(2,2,16))',
)
