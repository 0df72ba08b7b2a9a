"""One script a question; each prints its answer and can write it as JSON."""
