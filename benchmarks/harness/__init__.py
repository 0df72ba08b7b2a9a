"""What every benchmark shares: programs, rounds in turn, the floor, peers and records."""
