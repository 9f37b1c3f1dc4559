"""What is trained: a file for each tracker and its data."""
