"""Checkpoints: Orbax's arrays, step folders, and manifests of checksums."""
