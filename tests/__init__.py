"""Tests of tapjax, in the folders of the modules that they test."""
