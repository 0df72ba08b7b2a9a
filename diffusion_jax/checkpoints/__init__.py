"""Checkpoints: arrays, step folders and their sums."""
