"""The commands behind train.py, sample.py and evaluate.py."""
