"""Data sets for evaluation and training."""
