"""TAPIR (arXiv 2306.08637)."""
