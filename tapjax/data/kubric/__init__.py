"""Kubric: records, point tracks and augmentation."""
