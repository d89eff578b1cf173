"""One training loop, three stages, exact resume."""
