"""Videos to track and to learn from."""
