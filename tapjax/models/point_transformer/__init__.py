"""The point transformer, a small baseline."""
