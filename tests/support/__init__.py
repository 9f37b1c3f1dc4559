"""Files that tests share."""
