"""Programs around tapjax: `python -m experiments.run`."""
