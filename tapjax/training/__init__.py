"""Training: losses, optimizers, updates, the loop and its snapshots."""
