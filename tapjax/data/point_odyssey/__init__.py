"""PointOdyssey: scenes, training clips and windows."""
