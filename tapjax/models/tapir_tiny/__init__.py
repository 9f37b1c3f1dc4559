"""The embedded tracker: a small causal TAPIR that tracks frame by frame."""
