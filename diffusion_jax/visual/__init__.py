"""Pictures: arrays in, PNG and GIF files out."""
