"""Several versions of a model in one folder: kept, chosen, watched and swapped."""
