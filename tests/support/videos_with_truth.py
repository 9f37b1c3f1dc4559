"""Sources of videos with truth."""


def read_all(source):
  """Reads all videos of a source."""
  return [entry.read() for entry in source.entries()]
