"""Certificates: the functions that a configuration chooses, held against known truth."""
