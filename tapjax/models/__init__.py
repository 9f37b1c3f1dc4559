"""One file per tracker, the contract they meet, and the list of presets."""
