"""What is known exactly: mixtures, grids of densities, entropies, the bookkeeping of the bound."""
