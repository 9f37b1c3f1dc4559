"""Tasks of `experiments.run`, one module each."""
