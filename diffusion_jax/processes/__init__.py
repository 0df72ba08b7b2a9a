"""Several processes that start and end together, and signals."""
