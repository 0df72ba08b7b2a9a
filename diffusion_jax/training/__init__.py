"""Training: state, step, optimizer, loop, history, hooks, and what is reported."""
