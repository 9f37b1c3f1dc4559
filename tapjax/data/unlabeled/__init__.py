"""Clips of unlabeled videos, and their degradation."""
