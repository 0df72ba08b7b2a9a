"""The Python API: train, load, sample and evaluate runs from Python."""
