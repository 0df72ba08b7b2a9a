"""What is known exactly: mixtures, densities on a grid, entropies, the bookkeeping of the bound."""
