"""Sessions that track points frame by frame."""
