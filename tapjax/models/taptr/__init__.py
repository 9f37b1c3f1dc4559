"""TAPTRv2 (arXiv 2407.16291)."""
