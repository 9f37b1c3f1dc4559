"""PointOdyssey: scenes, training clips and short windows."""
