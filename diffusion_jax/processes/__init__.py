"""Several processes that start and end together; signals."""
