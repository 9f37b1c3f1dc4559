"""Haiku blocks shared by two or more trackers."""
