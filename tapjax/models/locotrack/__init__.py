"""LocoTrack (arXiv 2407.15420)."""
