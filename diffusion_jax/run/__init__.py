"""The front door: train, load, sample and evaluate runs from Python."""
