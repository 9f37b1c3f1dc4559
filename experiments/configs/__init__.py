"""Configs of training runs: a file for each tracker and data set."""
