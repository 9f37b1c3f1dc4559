"""Losses, optimizers and the training step."""
