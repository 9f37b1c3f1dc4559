"""Live tracking: the loop, its screen and its recordings."""
