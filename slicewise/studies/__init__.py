"""Reading scans: sources, folder layouts, NIfTI and 2D images, phantoms."""
