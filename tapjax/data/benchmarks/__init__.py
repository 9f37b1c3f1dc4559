"""Readers of benchmarks with annotated tracks."""
