"""Networks; the only files that know Flax."""
