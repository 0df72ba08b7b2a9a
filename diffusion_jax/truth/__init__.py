"""Ground truth: exact mixtures, densities on grids, entropies, and the bound's decomposition."""
