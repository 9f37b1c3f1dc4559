"""Procedural videos with exact point tracks."""
