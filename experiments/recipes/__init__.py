"""Recipes of training: data, updates and figures of each family."""
