"""Networks; the only code that uses Flax."""
