"""Pure mathematics of diffusion: knows no network, no files, no configuration."""
