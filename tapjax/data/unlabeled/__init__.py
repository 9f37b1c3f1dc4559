"""Clips of unlabeled videos and degraded views."""
