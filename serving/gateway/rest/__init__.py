"""SliceWise's own REST routes: slices, batches, whole studies and jobs, over any backend."""
