"""Pure array functions that trackers share."""
