"""Scores of trackers on benchmarks, and exactly how they were made."""
