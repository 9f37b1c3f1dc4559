"""Evaluation of trackers on benchmarks, with reproducible settings."""
