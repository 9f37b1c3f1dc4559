"""Tracking of points through whole videos."""
