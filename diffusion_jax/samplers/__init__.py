"""Samplers, the grids they run on, guidance, measurements, and drawing many images."""
