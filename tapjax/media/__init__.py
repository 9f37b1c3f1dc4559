"""Video files, pictures, sources of frames and track files."""
