"""Pure array functions shared by trackers."""
