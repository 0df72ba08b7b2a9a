"""Mathematics of diffusion; knows no network, no files and no configuration."""
