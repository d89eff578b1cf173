"""From 3D studies to 2D slices: preprocessing, the slice store, splits, datasets."""
