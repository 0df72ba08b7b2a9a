"""Data: sources of integer pixels, in memory or streamed, and their batches."""
