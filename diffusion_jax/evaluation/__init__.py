"""Evaluation: likelihoods of images, finished batches on disk, reports, Fréchet distance."""
