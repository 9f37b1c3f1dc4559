"""Edits of a region that follow its tracked points."""
