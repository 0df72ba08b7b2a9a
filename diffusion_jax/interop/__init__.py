"""Other libraries' weights, in and out."""
