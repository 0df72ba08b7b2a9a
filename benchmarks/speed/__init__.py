"""What is timed: training, sampling, evaluating, compiling, memory, data and scaling."""
