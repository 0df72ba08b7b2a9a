"""Evaluation: likelihoods of images, finished batches on disk, the report's numbers."""
